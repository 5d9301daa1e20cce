"""Which names the admin interface answers to, by where it listens and by who asks."""

from __future__ import annotations

import socket

import pytest

from router.admin.hosts import welcome
from router.config.load import load_text
from router.config.plugins import Registry
from router.config.schema import Admin, Security
from tests.router.admin.test_admin import TEXT, admin

OURS = [
    "127.0.0.1", "127.0.0.1:9990", "10.1.2.3:9990", "[::1]:9990", "[2001:db8::1]", "localhost", "LocalHost:9990",
    "localhost.:1", "web.localhost:9990", socket.gethostname(), "waypost.example.com:9990", "WAYPOST.example.com.",
]  # fmt: skip
OTHERS = ["evil.example", "evil.example:9990", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "x@localhost", "a b"]
BROWSERS = [
    {"accept-language": "de"}, {"origin": "http://evil.example"}, {"referer": "http://evil.example/"},
    {"sec-fetch-site": "same-origin"}, {"sec-fetch-mode": "cors"}, {"user-agent": "Mozilla/5.0 (X11)"},
]  # fmt: skip
LISTED = Security(hosts=("waypost.example.com",))


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.7"])
@pytest.mark.parametrize("host", OURS)
def test_names_that_are_ours_are_answered_whoever_asks(ip: str, host: str) -> None:
    listening = Admin(ip=ip, security=LISTED)
    assert all(welcome(listening, {"host": host, **more}) for more in [{}, *BROWSERS])


@pytest.mark.parametrize("host", OTHERS)
def test_at_loopback_no_other_name_is_answered(host: str) -> None:
    for ip in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert not welcome(Admin(ip=ip, security=LISTED), {"host": host, "user-agent": "Prometheus/2.42"})


@pytest.mark.parametrize("host", [*OTHERS, None, ""])
def test_elsewhere_other_names_are_refused_to_browsers_alone(host: str | None) -> None:
    listening = Admin(ip="0.0.0.0")
    asked = {} if host is None else {"host": host}
    assert welcome(listening, {**asked, "user-agent": "Prometheus/2.42"})
    assert not any(welcome(listening, {**asked, **more}) for more in BROWSERS)


def test_without_a_host_whoever_is_no_browser_is_answered() -> None:
    assert welcome(Admin(), {})
    assert not any(welcome(Admin(), more) for more in BROWSERS)


async def test_a_page_whose_name_was_made_to_lead_here_learns_and_changes_nothing() -> None:
    async with admin() as rig:
        for path, method in (("/config.json", "GET"), ("/admin/metrics.json", "GET"), ("/admin/shutdown", "POST")):
            told = await rig.ask(path, method, host="evil.example:9990", origin="http://evil.example:9990")
            assert (told.status, "admin.security.hosts" in told.json["error"]) == (421, True)
        assert not rig.supervisor.stopping.is_set()
        assert rig.supervisor.metrics.flat()["admin/hosts_refused"] == 3
        described = (await rig.ask("/openapi.json")).json["paths"].values()
        assert all("421" in operation["responses"] for methods in described for operation in methods.values())


async def test_a_listed_name_is_answered() -> None:
    async with admin(TEXT.replace("{port: 0}", "{port: 0, security: {hosts: [waypost.example.com]}}", 1)) as rig:
        assert (await rig.ask("/admin/ping", host="waypost.example.com:9990")).body == b"pong"
        assert (await rig.ask("/admin/ping", host="waypost.example.org:9990")).status == 421


@pytest.mark.parametrize("name", ["http://x", "x:80", "*.example.com", "", "a b"])
def test_what_is_no_name_is_refused_at_its_line(name: str) -> None:
    loaded = load_text(f"admin:\n  security:\n    hosts: ['{name}']\nrouters:\n- protocol: http\n", "test.yaml", Registry())
    assert loaded.config is None
    assert "is no host name: there must be no scheme, port or wildcard" in loaded.render()
