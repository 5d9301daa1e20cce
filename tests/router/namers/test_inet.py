"""The resolver behind ``/$/inet``, against a resolver of our own and a clock that jumps."""

import socket

import pytest
import trio
import trio.abc

from dtab import AddrBound, AddrFailed, Endpoint, Ok, Pending
from router.namers.inet import LOOKUPS, InetResolver, literal


@pytest.mark.parametrize(
    ("host", "ip"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.0.01", "127.0.0.1"),
        ("a\0b", None),
        ("\ud800", None),
        ("10", "0.0.0.10"),
        ("::1", "::1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost", None),
        ("1.2.3.4.5", None),
        ("256.256.256.256", None),
        ("", None),
        (".", None),
        ("\u0661", None),
        (":", None),
    ],
)
def test_literals(host, ip):
    assert literal(host) == ip


class Dns(trio.abc.HostnameResolver):
    """Names and their addresses; a name that is not there fails."""

    def __init__(self):
        self.names = {}
        self.asked = []
        self.under_way = self.most = 0
        self.delay = 0.0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        self.asked.append((trio.current_time(), host.decode()))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await trio.sleep(self.delay)
        self.under_way -= 1
        if host.decode() not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, type, 6, "", (ip, port or 0)) for ip in self.names[host.decode()]]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@pytest.fixture
async def dns():
    made = Dns()
    before = trio.socket.set_custom_hostname_resolver(made)
    yield made
    trio.socket.set_custom_hostname_resolver(before)


def bound(*ips, port=80):
    return Ok(AddrBound(frozenset([Endpoint(ip, port) for ip in ips])))


async def test_literal_is_there_at_once(host):
    assert InetResolver(host)("127.1", 80, False).sample() == bound("127.0.0.1")


async def test_name_is_pending_then_bound_then_follows(host, dns, autojump_clock, watch):
    dns.names["a"] = ["10.0.0.1", "10.0.0.2"]
    seen = watch(InetResolver(host)("a", 80, False))
    assert seen.last == Pending()
    await seen.until(bound("10.0.0.1", "10.0.0.2"))
    dns.names["a"] = ["10.0.0.3"]
    started = trio.current_time()
    await trio.sleep(10.5)
    assert seen.last == bound("10.0.0.3")
    assert [at - started for at, _ in dns.asked[1:]] == pytest.approx([10.0])
    seen.close()


async def test_failure_keeps_what_is_known_and_backs_off(host, dns, autojump_clock, watch):
    dns.names["a"] = ["10.0.0.1"]
    seen = watch(InetResolver(host)("a", 80, False))
    await seen.until(bound("10.0.0.1"))
    del dns.names["a"]
    await trio.sleep(40)
    assert seen.last == bound("10.0.0.1")
    gaps = [later - earlier for (earlier, _), (later, _) in zip(dns.asked, dns.asked[1:], strict=False)]
    assert gaps == pytest.approx([10, 1, 2, 4, 8, 10])
    (event,) = host.events.recent
    assert (event.name, event.fields["cause"]) == ("namer_dns_failed", "cannot resolve a: Name or service not known")
    dns.names["a"] = ["10.0.0.2"]
    await trio.sleep(10)
    assert seen.last == bound("10.0.0.2")
    assert [event.name for event in host.events.recent] == ["namer_dns_failed", "namer_dns_recovered"]
    seen.close()


async def test_name_never_known_says_why_without_flooding_the_log(host, dns, autojump_clock, watch, caplog):
    seen = watch(InetResolver(host)("nowhere", 80, False))
    await trio.sleep(0.5)
    assert seen.last == Ok(AddrFailed("cannot resolve nowhere: Name or service not known"))
    assert not caplog.records
    dns.names["nowhere"] = ["10.0.0.1"]
    await trio.sleep(1)
    assert seen.last == bound("10.0.0.1")
    seen.close()


@pytest.mark.parametrize("name", ["a..b", "x" * 70 + ".com", "\xff" * 70])
async def test_what_python_cannot_encode_is_a_failed_address(host, watch, name):
    seen = watch(InetResolver(host)(name, 80, False))
    await seen.until(Ok(AddrFailed(f"cannot resolve {name}: not a host name")))
    seen.close()


async def test_fixed_resolves_once(host, dns, autojump_clock, watch):
    resolver = InetResolver(host)
    seen = watch(resolver("a", 80, True))
    await trio.sleep(0.5)  # fails at first, which does not count
    dns.names["a"] = ["10.0.0.1"]
    await trio.sleep(100)
    assert seen.last == bound("10.0.0.1")
    assert len(dns.asked) == 2
    seen.close()


async def test_ports_share_a_look_up_that_ends_with_the_last(host, dns, autojump_clock, watch):
    dns.names["a"] = ["10.0.0.1"]
    tasks = len(host.nursery.child_tasks)
    resolver = InetResolver(host)
    one, two = watch(resolver("a", 80, False)), watch(resolver("a", 81, False))
    await two.until(bound("10.0.0.1", port=81))
    assert one.last == bound("10.0.0.1")
    assert len(dns.asked) == 1
    one.close()
    await trio.sleep(15)
    assert len(dns.asked) == 2
    two.close()
    await trio.sleep(100)
    assert len(dns.asked) == 2
    assert len(host.nursery.child_tasks) == tasks


async def test_look_ups_at_a_time_are_bounded(host, dns, autojump_clock, watch):
    dns.delay = 1.0
    resolver = InetResolver(host)
    seen = [watch(resolver(f"n{number}", 80, False)) for number in range(3 * LOOKUPS)]
    await trio.sleep(2.5)
    assert dns.most == LOOKUPS
    for one in seen:
        one.close()


async def test_observed_again_it_resolves_again(host, dns, autojump_clock, watch):
    dns.names["a"] = ["10.0.0.1"]
    addr = InetResolver(host)("a", 80, False)
    first = watch(addr)
    await first.until(bound("10.0.0.1"))
    first.close()
    dns.names["a"] = ["10.0.0.2"]
    second = watch(addr)
    await second.until(bound("10.0.0.2"))
    second.close()
