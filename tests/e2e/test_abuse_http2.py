"""Attacks on an HTTP/2 listener over real sockets: each costs the attacker its connection and nobody else anything."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import hpack
import pytest
import trio
from hyperframe.frame import DataFrame, HeadersFrame

from tests.support import h2peer
from tests.support.attacker import CALM, GET, NO_ERROR, POST, PROTOCOL, Attacker, attack, frame, headers

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
LARGE = [*GET[:2], (b":path", b"/large"), GET[3]]
ECHO = [*GET[:2], (b":path", b"/echo"), GET[3]]
OPENED = headers(1, POST, end=False)


@attrs.define
class Rig:
    """A router, its backend's connections, and a bystander's connection, open since before the attack."""

    worker: Any
    peers: list[h2peer.Peer]
    bystander: h2peer.Peer

    @property
    def port(self) -> int:
        port: int = self.worker.addresses[0][2]
        return port

    def counted(self, kind: str) -> int:
        values = self.worker.metrics.flat()
        (value,) = [value for name, value in values.items() if name.endswith(f"/abuse/{kind}")]
        return int(value)

    def counts(self) -> dict[str, int]:
        """Every kind of abuse that was counted."""
        values = self.worker.metrics.flat()
        return {name.rpartition("/")[2]: int(value) for name, value in values.items() if "/abuse/" in name and value}

    def events(self, kind: str) -> list[Any]:
        return [event for event in self.worker.host.events.recent if event.fields.get("kind") == kind]

    async def still_serves(self) -> None:
        with trio.fail_after(3):
            message = await self.bystander.request("/echo")
        assert (message.get(b":status"), message.body) == (b"200", b"hello")


def answer(message: h2peer.Message) -> Any:
    path = message.get(b":path")
    if path == b"/echo":
        return [(b":status", b"200")], b"hello", []
    if path == b"/large":
        return [(b":status", b"200")], b"x" * 16000, []
    return None


@asynccontextmanager
async def rig(start: Any, listen: Any, abuse: str = "", server: str = "") -> AsyncIterator[Rig]:
    listener, port = await listen()
    text = f"""
routers:
- protocol: h2
  label: test
  dtab: /svc => /$/inet/127.0.0.1/{port}
  servers: [{{port: 0, abuse: {{{abuse}}}, {server}}}]
"""
    peers: list[h2peer.Peer] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(h2peer.serve, listener, answer, peers)
        async with start(text) as worker:
            stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
            made = Rig(worker, peers, h2peer.Peer(stream, client=True))
            nursery.start_soon(made.bystander.run)
            await made.still_serves()
            yield made
            await made.still_serves()
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def costs_the_connection(made: Rig, attacker: Attacker, kind: str) -> None:
    assert await attacker.goaway() == CALM
    assert made.counts() == {kind: 1}
    (event,) = made.events(kind)
    assert event.name == "client_abuse"
    assert event.fields["peer"].startswith("127.0.0.1:")


async def test_rapid_reset(start: Any, listen: Any) -> None:
    async with rig(start, listen, "maxPrematureResets: 50", "maxConcurrentStreamsPerConnection: 50") as made:
        async with attack(made.port) as attacker:
            await attacker.greet()

            def burst(at: int) -> bytes:
                first = at * 40 + 1
                return b"".join(headers(one) + frame(RST, 0, one, b"\0\0\0\x08") for one in range(first, first + 40, 2))

            await attacker.flood(burst, 200)
            await costs_the_connection(made, attacker, "rapid_reset")
        with trio.fail_after(3):
            while any(message.reset is None for message in made.peers[0].messages.values() if not message.done.is_set()):
                await trio.sleep(0.001)  # the backend hears of every call that was cancelled
        assert len(made.peers[0].messages) < 250


BREAKS: dict[str, Callable[[int], bytes]] = {
    "WINDOW_UPDATE of 0": lambda one: headers(one) + frame(WINDOW, 0, one, b"\0\0\0\0"),
    "window overflow": lambda one: headers(one) + frame(WINDOW, 0, one, b"\x7f\xff\xff\xff"),
    "DATA on a half-closed stream": lambda one: headers(one) + frame(DATA, 0, one, b"x"),
    "HEADERS on a half-closed stream": lambda one: headers(one) + headers(one),
    "PRIORITY of a wrong length": lambda one: headers(one) + frame(PRIORITY, 0, one, b"\0\0\0\0"),
    "a stream that depends on itself": lambda one: headers(one) + frame(PRIORITY, 0, one, struct.pack(">LB", one, 1)),
    "DATA beyond content-length": lambda one: (
        headers(one, [*POST, (b"content-length", b"1")], end=False) + frame(DATA, 0, one, b"xx")
    ),
    "malformed requests": lambda one: headers(one, [*GET, (b"connection", b"close")]),
}


@pytest.mark.parametrize("way", BREAKS)
async def test_made_you_reset(start: Any, listen: Any, way: str) -> None:
    async with rig(start, listen, "maxStreamFaults: 20") as made, attack(made.port) as attacker:
        await attacker.greet()
        await attacker.flood(lambda at: BREAKS[way](2 * at + 1), 500)
        await costs_the_connection(made, attacker, "made_reset")
        assert made.worker.host.crashes == 0


FLOODS: dict[str, tuple[str, bytes]] = {
    "PING": ("ping", frame(PING, 0, 0, b"attacked")),
    "PING acknowledgements": ("ping", frame(PING, 1, 0, b"attacked")),
    "SETTINGS": ("settings", frame(SETTINGS, 0, 0)),
    "SETTINGS acknowledgements": ("settings", frame(SETTINGS, 1, 0)),
    "windows that change for all streams": ("settings", frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\x01\0\x04\0\0\0\x02" * 500)),
    "table sizes": ("settings", frame(SETTINGS, 0, 0, b"\0\x01\0\0\0\0\0\x01\0\0\x10\0" * 500)),
    "PRIORITY": ("priority", frame(PRIORITY, 0, 7, b"\0\0\0\x01\x05")),
    "empty DATA": ("empty", frame(DATA, 0, 1)),
    "DATA of padding": ("empty", frame(DATA, 8, 1, b"\x00")),
    "WINDOW_UPDATE of the connection": ("window_update", frame(WINDOW, 0, 0, b"\0\0\0\x01")),
    "WINDOW_UPDATE of a stream": ("window_update", frame(WINDOW, 0, 1, b"\0\0\0\x01")),
    "RST_STREAM": ("stray", frame(RST, 0, 1, b"\0\0\0\x08")),
    "unknown frames": ("unknown", frame(0xBE, 0, 0, b"x")),
}


@pytest.mark.parametrize("way", FLOODS)
async def test_floods(start: Any, listen: Any, way: str) -> None:
    kind, one = FLOODS[way]
    async with rig(start, listen, "maxIdleWork: 1000") as made, attack(made.port) as attacker:
        await attacker.greet()
        await attacker.send(OPENED)
        times = max(1, 20000 // len(one))
        await attacker.flood(lambda at: one * times, 100)
        await costs_the_connection(made, attacker, kind)


@pytest.mark.parametrize("piece", [b"", b"\x00" * 1000], ids=["empty", "full"])
async def test_continuation_flood(start: Any, listen: Any, piece: bytes) -> None:
    async with rig(start, listen) as made, attack(made.port) as attacker:
        await attacker.greet()
        await attacker.send(frame(HEADERS, 0, 1, b""))
        await attacker.flood(lambda at: frame(CONTINUATION, 0, 1, piece) * 10, 500)
        await costs_the_connection(made, attacker, "continuation")


async def test_a_header_bomb(start: Any, listen: Any) -> None:
    """An entry of 4,000 bytes, named again and again: 1,000 bytes that stand for 4 MB."""
    async with rig(start, listen, "maxStreamFaults: 20") as made, attack(made.port) as attacker:
        await attacker.greet()
        entry = hpack.Encoder().encode([(b"x", b"y" * 3900)], huffman=False)
        start_block = hpack.Encoder().encode(GET[:3], huffman=False)
        await attacker.send(headers(1, block=entry))
        await attacker.flood(lambda at: headers(2 * at + 3, block=start_block + b"\xbe" * 1000), 500)
        assert await attacker.goaway() == CALM
        assert set(made.counts()) <= {"header_list", "made_reset"}


async def test_too_many_fields_and_too_large_ones_cost_the_stream(start: Any, listen: Any) -> None:
    async with rig(start, listen, "maxHeaderFields: 20") as made, attack(made.port) as attacker:
        await attacker.greet()
        await attacker.send(headers(1, [*GET, *[(b"x-%d" % at, b"") for at in range(20)]]))
        await attacker.send(headers(3, [*GET, *[(b"x-%d" % at, b"") for at in range(10)]]))
        decoder = hpack.Decoder()
        first = dict(decoder.decode((await attacker.until(HeadersFrame, 1)).data))
        assert first[":status"] == "431"
        assert made.counts() == {}


async def test_streams_beyond_the_limit(start: Any, listen: Any) -> None:
    """Refusing costs little; who goes on for ever is stopped."""
    rigged = rig(start, listen, "maxIdleWork: 1000", "maxConcurrentStreamsPerConnection: 2")
    async with rigged as made, attack(made.port) as attacker:
        await attacker.greet()
        await attacker.flood(lambda at: b"".join(headers(40 * at + 2 * one + 1) for one in range(20)), 2000)
        await costs_the_connection(made, attacker, "refused")


async def test_data_dribble(start: Any, listen: Any) -> None:
    """Windows that open byte by byte make us send frames of one byte."""
    async with rig(start, listen, "maxIdleWork: 1000") as made, attack(made.port) as attacker:
        await attacker.greet(b"\0\x04\0\0\0\0")
        await attacker.send(headers(1, LARGE))
        await attacker.flood(lambda at: frame(WINDOW, 0, 1, b"\0\0\0\x01"), 10000)
        assert await attacker.goaway() == CALM
        assert made.counts() in ({"tiny_window": 1}, {"window_update": 1})


async def test_zero_window_hoarding(start: Any, listen: Any) -> None:
    """Responses that their client never takes are not held for ever; one that is taken is not touched."""
    async with rig(start, listen, "stallTimeoutMs: 80") as made, attack(made.port) as attacker:
        await attacker.greet(b"\0\x04\0\0\0\0")
        await attacker.send(b"".join(headers(one, LARGE) for one in range(1, 41, 2)))
        assert await attacker.goaway() == CALM
        assert made.counts().keys() == {"stalled"}
        assert len(made.events("stalled")) == 1
        with trio.fail_after(3):
            while any(not message.done.is_set() for message in made.peers[0].messages.values()):
                await trio.sleep(0.001)


async def test_one_stalled_stream_among_others_costs_the_stream(start: Any, listen: Any) -> None:
    async with rig(start, listen, "stallTimeoutMs: 80") as made, attack(made.port) as attacker:
        await attacker.greet(b"\0\x04\0\0\0\0")
        await attacker.send(headers(1, LARGE) + headers(3))
        assert await attacker.reset(1) == CALM
        assert made.counts() == {"stalled": 1}
        assert not attacker.over.is_set()


@pytest.mark.parametrize("sent", [b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
async def test_a_preface_that_does_not_come(start: Any, listen: Any, sent: bytes) -> None:
    async with rig(start, listen, "headTimeoutMs: 60") as made, attack(made.port) as attacker:
        await attacker.send(sent)
        await costs_the_connection(made, attacker, "head")


async def test_header_blocks_that_dribble(start: Any, listen: Any) -> None:
    whole = frame(HEADERS, 1, 1, b"\x82") + frame(CONTINUATION, 0, 1, b"\x86") * 100
    async with rig(start, listen, "headTimeoutMs: 60") as made, attack(made.port) as attacker:
        await attacker.greet()
        async with trio.open_nursery() as nursery:

            async def dribble() -> None:
                for byte in whole:
                    await attacker.send(bytes((byte,)))
                    await trio.sleep(0.005)

            nursery.start_soon(dribble)
            await costs_the_connection(made, attacker, "head")
            nursery.cancel_scope.cancel()


async def test_a_body_that_dribbles_costs_the_connection(start: Any, listen: Any) -> None:
    async with rig(start, listen, "bodyTimeoutMs: 80, minBytesPerSec: 1000") as made, attack(made.port) as attacker:
        await attacker.greet()
        await attacker.send(OPENED)
        async with trio.open_nursery() as nursery:

            async def dribble() -> None:
                while True:
                    await attacker.send(frame(DATA, 0, 1, b"x"))
                    await trio.sleep(0.01)

            nursery.start_soon(dribble)
            await costs_the_connection(made, attacker, "body")
            nursery.cancel_scope.cancel()


async def test_bodies_of_grpc_may_take_their_time(start: Any, listen: Any) -> None:
    async with rig(start, listen, "bodyTimeoutMs: 20") as made, attack(made.port) as attacker:
        await attacker.greet()
        await attacker.send(headers(1, [*POST, (b"content-type", b"application/grpc")], end=False))
        await trio.sleep(0.06)
        assert not attacker.over.is_set()
        assert made.counts() == {}


async def test_a_connection_that_asks_for_nothing_is_closed_without_reproach(start: Any, listen: Any) -> None:
    async with rig(start, listen, "firstRequestTimeoutMs: 60") as made, attack(made.port) as attacker:
        await attacker.greet()
        assert await attacker.goaway() == NO_ERROR
        assert made.counts() == {"idle": 1}
        assert not made.events("idle")


async def test_connections_above_the_limit_are_told_so(start: Any, listen: Any) -> None:
    async with rig(start, listen, "maxConnections: 2") as made:
        async with attack(made.port) as first, attack(made.port) as second:
            await second.greet()
            assert await second.goaway() == NO_ERROR
            assert made.counts() == {"connections": 1}
            assert not first.over.is_set()
        with trio.fail_after(3):
            while sum(server.connections for server in made.worker.servers) > 1:
                await trio.sleep(0.001)
        async with attack(made.port) as third:
            await third.greet()
            await third.send(headers(1, ECHO))
            await third.until(DataFrame, 1)


UNCLEAR = [
    [*POST, (b"content-length", b"5"), (b"content-length", b"6")],
    [*POST, (b"content-length", b"-1")],
    [*POST, (b"content-length", b"1, 1")],
    [*POST, (b"transfer-encoding", b"chunked")],
    [*POST, (b"host", b"other")],
    [*POST, (b"host", b"web"), (b"host", b"other")],
    [*POST, (b"x", b"a\r\ninjected: b")],
    [*POST, (b"x", b"a\0b")],
    [*POST, (b"x\r\ny", b"a")],
    [*POST, (b"x: y", b"a")],
    [(b":method", b"GET / HTTP/1.1\r\nx"), *POST[1:]],
    [*POST[:2], (b":path", b"/a b\r\n"), POST[3]],
    [*POST[:3], (b":authority", b"a@b")],
    [*POST[:3], (b":authority", b"a\r\nb")],
]


async def test_requests_that_would_be_read_in_two_ways(start: Any, listen: Any) -> None:
    """They cost their stream, and never reach the backend."""
    async with rig(start, listen) as made, attack(made.port) as attacker:
        await attacker.greet()
        for at, fields in enumerate(UNCLEAR):
            before = len(made.peers[0].messages)
            stream = 4 * at + 1
            await attacker.send(headers(stream, fields, end=False) + headers(stream + 2, ECHO))
            assert await attacker.reset(stream) == PROTOCOL, fields
            await attacker.until(DataFrame, stream + 2)
            assert len(made.peers[0].messages) == before + 1, fields
        assert not attacker.over.is_set()


async def test_a_body_that_is_shorter_than_declared(start: Any, listen: Any) -> None:
    async with rig(start, listen) as made, attack(made.port) as attacker:
        await attacker.greet()
        await attacker.send(headers(1, [*POST, (b"content-length", b"5")], end=False) + frame(DATA, 1, 1, b"xxx"))
        assert await attacker.reset(1) == PROTOCOL
        with trio.fail_after(3):
            while not any(message.reset is not None for message in made.peers[0].messages.values()):
                await trio.sleep(0.001)
