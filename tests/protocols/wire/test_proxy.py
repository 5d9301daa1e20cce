"""The PROXY protocol: what its headers say, and that exactly they are taken off a connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.wire.poller import Poller
from protocols.wire.proxy import MAX_HEADER, SIGNATURE, Prologue, ProxyFault, ProxyProtocol, header_size, parse
from router.model.ends import Ends
from router.model.metrics import Metrics
from tests.support.fakes import FakeHost


def v2(command: int = 0x21, family: int = 0x11, body: bytes = b"\xc0\0\2\1\xc0\0\2\2\x9c\x40\x01\xbb") -> bytes:
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2) + body


V6 = bytes(15) + b"\1" + b"\x20\1\x0d\xb8" + bytes(11) + b"\2" + b"\x9c\x40\x01\xbb"
NAMED = (("192.0.2.1", 40000), ("192.0.2.2", 443))
GOOD: list[tuple[bytes, Any]] = [
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n", NAMED),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", (("0.0.0.0", 0), ("255.255.255.255", 65535))),
    (b"PROXY TCP6 ::1 2001:db8::2 40000 443\r\n", (("::1", 40000), ("2001:db8::2", 443))),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 40000 443\r\n", NAMED),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (v2(), NAMED),
    (v2(family=0x21, body=V6), (("::1", 40000), ("2001:db8::2", 443))),
    (v2(body=v2()[16:] + b"\x03\0\4abcd" + b"\4\0\x10" + bytes(16)), NAMED),  # with TLVs
    (v2(command=0x20), None),
    (v2(command=0x20, family=0, body=b""), None),
    (v2(family=0, body=b""), None),
    (v2(family=0x31, body=bytes(216)), None),
]
BAD = [
    b"PROXY TCP4 192.0.2.1 192.0.2.2 40000\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443 1\r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 40000 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 65536\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 040 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +40 443\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 40000 443\r\n",
    b"PROXY TCP4 ::1 ::2 40000 443\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 40000 443\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 40000 443\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.\xe92 40000 443\r\n",
    v2(command=0x11),
    v2(command=0x22),
    v2(family=0x12),
    v2(family=0x41),
    v2(body=b"\xc0\0\2\1"),
    v2(family=0x21),
]
NONE = [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", b"proxy ", b"PROXY TCP4" + b"1" * 97,
        SIGNATURE + b"\x21\x11\xff\xff", b"\r\n\r\n\0\r\nQUIT\r"]  # fmt: skip


@pytest.mark.parametrize(("header", "named"), GOOD)
def test_what_headers_say(header: bytes, named: Any) -> None:
    assert header_size(header) == len(header)
    ends = parse(header)
    assert (ends and (ends.client, ends.server)) == named


@pytest.mark.parametrize("header", BAD)
def test_malformed_headers(header: bytes) -> None:
    assert header_size(header) == len(header)
    with pytest.raises(ProxyFault):
        parse(header)


@pytest.mark.parametrize("data", NONE)
def test_no_headers(data: bytes) -> None:
    with pytest.raises(ProxyFault):
        header_size(data)


@given(st.sampled_from([header for header, _ in GOOD]), st.binary(max_size=40))
def test_the_size_is_known_with_the_last_byte_and_not_before(header: bytes, rest: bytes) -> None:
    assert [header_size(header[:at]) for at in range(len(header))] == [None] * len(header)
    assert header_size(header + rest) == len(header)


@given(st.sampled_from([b"", SIGNATURE, b"PROXY "]), st.binary(max_size=300))
def test_whatever_comes_is_a_header_or_a_fault(first: bytes, rest: bytes) -> None:
    data = first + rest
    try:
        size = header_size(data)
        if size is not None:
            parse(data[:size])
    except ProxyFault:
        pass


class Rig:
    """A connection whose header is awaited."""

    def __init__(self, patience: float = 10.0) -> None:
        self.host = FakeHost()
        self.metrics = Metrics()
        self.poller = Poller(self.host.crashed)
        self.ours, self.peer = socket.socketpair()
        self.ours.setblocking(False)
        self.done: list[Ends | None] = []
        self.own = Ends(("198.51.100.1", 1), ("198.51.100.2", 2))
        self.proxy = ProxyProtocol(self.host, self.poller, self.metrics, "here")  # type: ignore[arg-type]
        self.prologue = self.proxy.await_header(self.ours, self.own, patience, self._named)

    def _named(self, prologue: Prologue, ends: Ends | None) -> None:
        assert prologue is self.prologue
        self.done.append(ends)

    def close(self) -> None:
        self.peer.close()
        self.poller.close()
        self.ours.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


@pytest.mark.parametrize(("header", "named"), GOOD)
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_exactly_the_header_is_taken(rig: Rig, header: bytes, named: Any, step: int) -> None:
    data, at = header + b"\r\nrest", 0
    while not rig.done:
        rig.peer.send(data[at : at + step])
        at += step
        assert rig.poller.turn() == 1
        assert rig.done or rig.poller.turn() == 0  # what is incomplete does not keep the worker busy
    rig.peer.send(data[at:])
    assert rig.ours.recv(100) == b"\r\nrest"
    assert [(ends.client, ends.server) for ends in rig.done if ends] == [named or (rig.own.client, rig.own.server)]
    assert len(rig.poller) == 0
    assert not any(rig.host.timers._buckets.values())


@pytest.mark.parametrize("data", [*BAD, *NONE])
def test_anything_else_is_closed_counted_and_told_of(rig: Rig, data: bytes) -> None:
    rig.peer.send(data)
    rig.poller.turn()
    assert rig.done == [None]
    assert rig.ours.fileno() == -1
    assert rig.metrics.flat()["proxy_protocol/refused"] == 1
    (event,) = rig.host.events.recent
    assert (event.name, event.fields["peer"], event.fields["times"]) == ("proxy_protocol_refused", "198.51.100.1:1", 1)


def test_a_client_that_goes_and_one_that_says_nothing(rig: Rig) -> None:
    rig.peer.send(b"PROXY")
    rig.poller.turn()
    rig.peer.shutdown(socket.SHUT_WR)
    rig.poller.turn()
    assert rig.done == [None]
    late = Rig()
    late.host.pass_time(9.5)
    late.peer.send(b"PROXY TCP4 ")
    late.poller.turn()
    assert late.done == []
    late.host.pass_time(1)
    assert late.done == [None]
    assert late.host.events.recent[0].fields["why"] == "no complete header in time"
    late.close()


def test_events_are_rare_and_say_how_many(rig: Rig) -> None:
    for _ in range(5):
        rig.proxy.refused(rig.own, "why")
    rig.host.pass_time(11)
    rig.proxy.refused(rig.own, "why")
    assert [event.fields["times"] for event in rig.host.events.recent] == [1, 5]


def test_the_largest_header_is_a_page() -> None:
    body = v2()[16:] + b"\4" + (MAX_HEADER - 31).to_bytes(2) + bytes(MAX_HEADER - 31)
    assert header_size(v2(body=body)) == MAX_HEADER
    with pytest.raises(ProxyFault, match="more than 4096"):
        header_size(v2(body=body + b"\0"))
