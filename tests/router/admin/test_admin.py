"""The admin interface over a supervisor whose workers are in this process: every endpoint, and requests that are nonsense."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from starlette.types import Message

from router.admin.app import application
from router.admin.openapi import ENDPOINTS
from router.admin.security import Gate, from_elsewhere
from router.app import running
from router.config.load import load_text
from router.config.plugins import Registry
from router.config.schema import Security
from router.logs.setup import LogSettings
from router.serve.answers import Answers
from router.serve.channel import RefusedError
from router.serve.supervisor import Generation, ReloadError, Supervisor

TEXT = """
admin: {port: 0}
telemetry: [{kind: io.l5d.recentRequests, sampleRate: 1.0, capacity: 2}]
routers:
- protocol: http
  label: web
  dtab: /svc => /$/inet/127.0.0.1/1
  servers: [{port: 0}]
"""


@attrs.define(eq=False)
class HereChannel:
    """A channel to a worker in this process."""

    handlers: dict[str, Any]

    async def ask(self, what: str, **fields: Any) -> Any:
        if what == "log_level":
            return None
        try:
            return json.loads(json.dumps(await self.handlers[what](**fields)))
        except Exception as error:
            raise RefusedError(str(error)) from error


@attrs.define(eq=False)
class HereSlot:
    channel: Any
    number: int = 0
    pid: int = 77
    starts: int = 1
    since: float = 0.0
    serves: bool = True


@attrs.frozen
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.body.endswith(b"\n")
        return json.loads(self.body)


@attrs.define(eq=False)
class Rig:
    """``application``: the one to ask; a new one for each request where it is None."""

    supervisor: Supervisor
    worker: Any
    application: Any = None

    async def ask(self, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        """One request, straight into the application."""
        path, _, query = target.partition("?")
        fields = [
            (name.replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in {"host": "localhost:1", **headers}.items()
        ]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": fields, "root_path": "",
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
        }  # fmt: skip
        sent: list[Message] = []
        pieces = [body[:3], body[3:]]

        async def receive() -> Message:
            piece = pieces.pop(0) if pieces else b""
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message: Message) -> None:
            sent.append(message)

        await (self.application or application(self.supervisor))(scope, receive, send)
        data = b"".join([message.get("body", b"") for message in sent[1:]])
        return Answer(sent[0]["status"], dict(sent[0]["headers"]), data)

    async def call(self) -> None:
        """One request through the router; its endpoint does not exist."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.worker.addresses[0][2])
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert b" 502 " in b"".join([piece async for piece in stream])


@asynccontextmanager
async def admin(text: str = TEXT) -> AsyncIterator[Rig]:
    registry = Registry()
    loaded = load_text(text, "test.yaml", registry)
    assert loaded.config is not None, loaded.render()
    async with running(loaded.config, registry) as worker:
        supervisor = Supervisor(lambda: loaded, LogSettings("json", "INFO"), {})
        slot: Any = HereSlot(HereChannel(dict(Answers(worker).handlers)))
        supervisor.generation = Generation(1, loaded, {}, [slot], worker.addresses)
        yield Rig(supervisor, worker)


async def test_every_endpoint_that_is_described_answers_as_described() -> None:
    async with admin() as rig:
        await rig.call()
        for endpoint in ENDPOINTS:
            if endpoint.method == "get":
                path = endpoint.path.replace("{prefix}", "$/inet")
                answer = await rig.ask(path + ("?path=/svc/a" if "delegator" in path else ""))
                assert answer.status == 200, endpoint.path
                assert answer.headers[b"content-type"].decode().startswith(endpoint.content), endpoint.path
        described = {endpoint.path for endpoint in ENDPOINTS}
        routes: Any = application(rig.supervisor).routes
        assert {route.path.replace(":path}", "}") for route in routes} == described
        assert set((await rig.ask("/openapi.json")).json["paths"]) == described


async def test_metrics_in_every_form() -> None:
    async with admin() as rig:
        await rig.call()
        flat = (await rig.ask("/admin/metrics.json")).json
        server = next(name for name in flat if name.startswith("rt/web/server/") and name.endswith("/requests"))
        assert flat[server] == 1
        tree = (await rig.ask("/admin/metrics.json?tree=1")).json
        assert tree["rt"]["web"]["service"]["svc"]["a"]["requests"] == 1
        assert (await rig.ask("/admin/metrics.json?q=rt/web/service/svc/a/requests")).json == 1
        assert (await rig.ask("/admin/metrics.json?q=rt/nope")).status == 404
        assert b'rt:service:requests{rt="web", service="/svc/a"} 1\n' in (await rig.ask("/admin/metrics/prometheus")).body
        assert b'waypost_service_requests_total{router="web",service="/svc/a"} 1.0' in (await rig.ask("/metrics")).body
        assert b"host=localhost:1" in (await rig.ask("/admin/metrics/influxdb")).body


async def test_what_the_workers_know() -> None:
    async with admin() as rig:
        await rig.call()
        state = (await rig.ask("/client_state.json")).json
        (address,) = state["/$/inet/127.0.0.1/1"]["addresses"]
        assert (address["ip"], address["port"], address["state"], address["load"]) == ("127.0.0.1", 1, "alive", 0)
        workers = (await rig.ask("/admin/workers.json")).json
        assert [(worker["worker"], worker["pid"], worker["draining"]) for worker in workers["workers"]] == [(0, 77, False)]
        rig.worker.host.events.emit("endpoint_ejected", client="/$/x")
        rig.supervisor.events.emit("reloaded", generation=2)
        events = (await rig.ask("/admin/events.json")).json
        assert {(event["worker"], event["event"]) for event in events} >= {(0, "endpoint_ejected"), (None, "reloaded")}


async def test_telemeters_serve_where_they_were_told_to() -> None:
    async with admin() as rig:
        assert (await rig.ask("/elsewhere")).status == 404
        text = TEXT.replace("[{kind", "[{kind: io.l5d.prometheus, path: /elsewhere, prefix: lb_}, {kind")
        loaded = load_text(text, "test.yaml", Registry())
        assert loaded.config is not None
        rig.supervisor.telemetry.use(loaded.config.telemeters)
        answer = await rig.ask("/elsewhere")
        assert (answer.status, b"\nlb_supervisor:reloads 0\n" in answer.body) == (200, True)


async def test_delegation() -> None:
    async with admin() as rig:
        tree = (await rig.ask("/delegator.json?namespace=web&path=/svc/a")).json
        assert (tree["type"], tree["delegate"]["bound"]["id"]) == ("delegate", "/$/inet/127.0.0.1/1")
        body = json.dumps({"namespace": "web", "path": "/svc/a", "dtab": "/svc => /$/nil"}).encode()
        tree = (await rig.ask("/delegator.json", "POST", body, content_type="application/json; charset=utf-8")).json
        assert [part["path"] for part in tree["alt"]] == ["/$/nil/a", "/$/inet/127.0.0.1/1/a"]
        assert (await rig.ask("/delegator.json", "POST", body)).status == 415


@pytest.mark.parametrize(
    ("target", "body", "status", "told"),
    [
        ("/delegator.json?path=svc", None, 400, "'/' expected"),
        ("/delegator.json?path=/svc&dtab=/a", None, 400, "expected"),
        ("/delegator.json?path=/svc&namespace=wob", None, 404, "no router has the label 'wob'; there are web"),
        ("/delegator.json", b"{", 400, "not JSON"),
        ("/delegator.json", b"[" * 100_000, 400, "not JSON"),
        ("/delegator.json", b"[]", 400, "expected a JSON object"),
        ("/delegator.json", b'{"path": 1}', 400, "expected a JSON object"),
        ("/delegator.json", b'"' + b"x" * (1 << 20) + b'"', 413, "more than 1048576 bytes"),
        ("/admin/nope", None, 404, "Not Found"),
        ("/admin/shutdown", None, 405, "Method Not Allowed"),
    ],
)
async def test_nonsense(target: str, body: bytes | None, status: int, told: str) -> None:
    async with admin() as rig:
        if body is None:
            answer = await rig.ask(target)
        else:
            answer = await rig.ask(target, "POST", body, content_type="application/json")
        assert answer.status == status
        assert told in answer.json["error"]


async def test_logging_levels() -> None:
    async with admin() as rig:
        assert {"logger": "waypost", "level": "WARNING"} in (await rig.ask("/logging.json")).json
        answer = await rig.ask("/logging.json", "POST", b"logger=waypost.namer&level=DEBUG")
        assert {"logger": "waypost.namer", "level": "DEBUG"} in answer.json
        await rig.ask("/logging.json", "POST", b"logger=waypost.namer&level=WARNING")
        for nonsense in (b"", b"logger=x&level=INFO", b"logger=waypost&level=LOUD", b"\xff" * 9999):
            assert (await rig.ask("/logging.json", "POST", nonsense)).status == 400


async def test_stopping_and_reloading(monkeypatch: Any) -> None:
    async with admin() as rig:
        assert (await rig.ask("/ready")).body == b"ready\n"
        assert (await rig.ask("/admin/reload", "POST")).json == {"reloaded": "nothing: it is the same"}

        async def refuse() -> str:
            raise ReloadError("test.yaml:1:1: error: no routers")

        monkeypatch.setattr(rig.supervisor, "_reload", refuse)
        refused = await rig.ask("/admin/reload", "POST")
        assert (refused.status, refused.json) == (409, {"error": "test.yaml:1:1: error: no routers"})
        foreign = await rig.ask("/admin/shutdown", "POST", origin="http://evil.example")
        assert (foreign.status, rig.supervisor.stopping.is_set()) == (403, False)
        assert (await rig.ask("/admin/shutdown", "POST", origin="http://localhost:1")).body == b"draining\n"
        assert rig.supervisor.stopping.is_set()
        assert (await rig.ask("/ready")).status == 503


async def test_what_is_switched_off_does_not_exist() -> None:
    security = "admin: {port: 0, security: {controlEnabled: false, pathBlacklist: ['^/config[.]json$']}}"
    async with admin(TEXT.replace("admin: {port: 0}", security)) as rig:
        assert (await rig.ask("/admin/shutdown", "POST")).status == 404
        assert (await rig.ask("/config.json")).status == 404
        assert (await rig.ask("/admin/ping")).status == 200


@pytest.mark.parametrize(
    ("security", "path", "allowed"),
    [
        (Security(), "/admin/shutdown", True),
        (Security(ui_enabled=False), "/delegator.json", False),
        (Security(ui_enabled=False), "/files/x.css", False),
        (Security(ui_enabled=False), "/admin/ping", True),
        (Security(diagnostics_enabled=False), "/admin/ping", False),
        (Security(diagnostics_enabled=False, path_whitelist=("^/admin/ping$",)), "/admin/ping", True),
        (Security(path_whitelist=("/admin/.*",), path_blacklist=("^/admin/ping$",)), "/admin/ping", False),
    ],
)
def test_linkerds_switches(security: Security, path: str, allowed: bool) -> None:
    assert Gate(security).allows(path) is allowed


def test_who_is_from_elsewhere() -> None:
    assert not from_elsewhere(None, "localhost:9990")
    assert not from_elsewhere("http://localhost:9990", "localhost:9990")
    assert from_elsewhere("http://localhost:8080", "localhost:9990")
    assert from_elsewhere("null", "localhost:9990")


async def test_a_bug_is_told_and_harms_nobody(monkeypatch: Any, caplog: Any) -> None:
    async with admin() as rig:

        async def broken() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(rig.supervisor.gatherer, "snapshot", broken)
        with pytest.raises(ZeroDivisionError):  # the server would log it too
            await rig.ask("/metrics")
        assert 'admin_crashed path=/metrics cause="ZeroDivisionError: "' in caplog.text
        assert (await rig.ask("/admin/ping")).status == 200


@pytest.mark.parametrize("host", ["x/files", "[", "x?y", "x#y", "", "\xff"])
async def test_a_host_that_is_nonsense_opens_nothing_and_breaks_nothing(host: str) -> None:
    async with admin(TEXT.replace("{port: 0}", "{port: 0, ip: 0.0.0.0, security: {controlEnabled: false}}", 1)) as rig:
        assert (await rig.ask("/admin/shutdown", "POST", host=host)).status == 404
        assert not rig.supervisor.stopping.is_set()
        assert (await rig.ask("/admin/ping", host=host)).body == b"pong"
        assert (await rig.ask("/nowhere", host=host)).status == 404


@pytest.mark.parametrize("origin", ["http://[", "", "http://localhost:1@x", "\xff"])
async def test_an_origin_that_is_nonsense_is_another_one(origin: str) -> None:
    async with admin() as rig:
        assert (await rig.ask("/admin/shutdown", "POST", origin=origin)).status == 403
        assert not rig.supervisor.stopping.is_set()
