"""Attacks on an HTTP/1.1 listener over real sockets, and backends that try to split what is sent to clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import hpack
import pytest
import trio

from tests.support import h1
from tests.support.attacker import Attacker, attack, frame

HOST = b"host: web\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
HIDDEN = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


@attrs.define
class Rig:
    """A router, what its backend saw, and a bystander's connection, open since before the attack."""

    worker: Any
    requests: list[h11.Request]
    bystander: h1.Client

    @property
    def port(self) -> int:
        port: int = self.worker.addresses[0][2]
        return port

    @property
    def paths(self) -> list[bytes]:
        return [request.target for request in self.requests if request.target != b"/bystander"]

    def counts(self) -> dict[str, int]:
        values = self.worker.metrics.flat()
        return {name.rpartition("/")[2]: int(value) for name, value in values.items() if "/abuse/" in name and value}

    async def still_serves(self) -> None:
        with trio.fail_after(3):
            status, _, body = await self.bystander.request("GET", "/bystander", "web")
        assert (status, body) == (200, b"hello")


@asynccontextmanager
async def rig(start: Any, listen: Any, abuse: str = "", server: str = "") -> AsyncIterator[Rig]:
    listener, port = await listen()
    text = f"""
routers:
- protocol: http
  label: test
  dtab: /svc => /$/inet/127.0.0.1/{port}
  servers: [{{port: 0, abuse: {{{abuse}}}, {server}}}]
"""
    requests: list[h11.Request] = []

    def answer(request: h11.Request, body: bytes) -> Any:
        requests.append(request)
        return 200, [], b"x" * 16_000_000 if request.target == b"/large" else b"hello"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(h1.serve, listener, answer)
        async with start(text) as worker:
            stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
            async with stream:
                made = Rig(worker, requests, h1.Client(stream))
                await made.still_serves()
                yield made
                await made.still_serves()
        nursery.cancel_scope.cancel()


SMUGGLED = {
    "CL.TE": b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE.CL": b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "TE twice": b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "TE listed": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "TE chunked twice": b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "TE quoted": b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE unknown": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE vertical tab": b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE empty": b"transfer-encoding:\r\n\r\n0\r\n\r\n",
    "TE folded": b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "TE with space before colon": b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "TE with tab before colon": b"transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "TE behind a leading space": b" transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE behind a NUL": b"x: a\0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE behind a bare CR": b"x: a\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE behind a bare LF": b"x: a\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE gzip": b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE underscore": b"transfer-encoding: chun ked\r\n\r\n0\r\n\r\n",
    "CL twice": b"content-length: 0\r\ncontent-length: 40\r\n\r\n",
    "CL listed": b"content-length: 0, 40\r\n\r\n",
    "CL plus": b"content-length: +0\r\n\r\n",
    "CL minus": b"content-length: -1\r\n\r\n",
    "CL hex": b"content-length: 0x0\r\n\r\n",
    "CL underscore": b"content-length: 1_0\r\n\r\n0123456789",
    "CL beyond 64 bits": b"content-length: 18446744073709551616\r\n\r\n",
    "CL spaces": b"content-length: 1 0\r\n\r\n",
    "CL empty": b"content-length:\r\n\r\n",
    "CL in another script": b"content-length: \xd9\xa0\r\n\r\n",
    "CL named by Connection": b"connection: content-length\r\ncontent-length: 0\r\n\r\n",
    "lines that end in LF": b"content-length: 0\n\n",
    "chunk size overflow": b"transfer-encoding: chunked\r\n\r\n10000000000000000\r\n",
    "chunk size negative": b"transfer-encoding: chunked\r\n\r\n-1\r\n",
    "chunk size with 0x": b"transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "chunk size with space": b"transfer-encoding: chunked\r\n\r\n0 \r\n\r\n",
    "chunk size empty": b"transfer-encoding: chunked\r\n\r\n\r\n",
    "chunk ends in LF": b"transfer-encoding: chunked\r\n\r\n0\n\n",
    "chunk longer than its size": b"transfer-encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
    "chunk ends in two bytes of another kind": b"transfer-encoding: chunked\r\n\r\n1\r\nxYZ0\r\n\r\n",
    "chunk extension with LF": b"transfer-encoding: chunked\r\n\r\n0;a\nb\r\n\r\n",
    "chunk extension with CR": b"transfer-encoding: chunked\r\n\r\n0;a\rb\r\n\r\n",
    "chunk extension of 300 bytes": b"transfer-encoding: chunked\r\n\r\n0;" + b"a" * 300 + b"\r\n\r\n",
    "trailer with LF": b"transfer-encoding: chunked\r\n\r\n0\r\na: b\n\r\n\r\n",
    "trailer folded": b"transfer-encoding: chunked\r\n\r\n0\r\na: b\r\n c\r\n\r\n",
}


async def test_what_can_be_read_in_two_ways_ends_the_connection(start: Any, listen: Any) -> None:
    async with rig(start, listen) as made:
        for way, rest in SMUGGLED.items():
            async with attack(made.port) as attacker:
                await attacker.send(POST + rest + HIDDEN)
                seen = await attacker.end()
            assert seen.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), way
            assert seen.count(b"HTTP/1.1 ") == 1, way
            assert b"connection: close\r\n" in seen, way
            assert b"/smuggled" not in made.paths, way


UNCLEAR = [
    b"GET  / HTTP/1.1\r\n" + HOST,
    b"GET / HTTP/1.1 \r\n" + HOST,
    b"GET /\x0b HTTP/1.1\r\n" + HOST,
    b"GET / x HTTP/1.1\r\n" + HOST,
    b"GET /\r\n" + HOST,
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Host: other\r\n",
    b"GET / HTTP/1.1\r\nhost: user@web\r\n",
    b"GET / HTTP/1.1\r\nhost: web/x\r\n",
    b"GET / HTTP/1.1\r\nhost: web, other\r\n",
    b"GET http://user@other/ HTTP/1.1\r\n" + HOST,
    b"GET http:///x HTTP/1.1\r\n" + HOST,
    b"GET //\\evil@x:y HTTP/1.1\r\nhost: a b\r\n",
    b"GET other HTTP/1.1\r\n" + HOST,
    b"GET / HTTP/1.1\r\n" + HOST + b"x\0: y\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b": y\r\n",
    b"GET / HTTP/1.0\r\n" + HOST + b"transfer-encoding: chunked\r\n",
]


async def test_heads_of_which_nobody_knows_the_meaning(start: Any, listen: Any) -> None:
    async with rig(start, listen) as made:
        for head in UNCLEAR:
            async with attack(made.port) as attacker:
                await attacker.send(head + b"\r\n" + HIDDEN)
                assert (await attacker.end()).startswith(b"HTTP/1.1 400 "), head
            assert made.paths == [], head


async def test_the_target_names_the_host_and_not_the_host_field(start: Any, listen: Any) -> None:
    """RFC 9112 §3.2.2: the endpoint gets one name, and it is the one by which the request was routed."""
    async with rig(start, listen) as made, attack(made.port) as attacker:
        await attacker.send(b"GET http://other/x HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
        assert (await attacker.end()).startswith(b"HTTP/1.1 200 ")
        (request,) = [one for one in made.requests if one.target == b"/x"]
        fields = dict(request.headers)
        assert fields[b"host"] == b"other"
        assert fields[b"l5d-dst-service"] == b"/svc/other"


async def test_trailers_that_would_be_headers_are_dropped(start: Any, listen: Any) -> None:
    """What decides about framing or routing stands in heads only."""
    received: list[bytes] = []
    listener, port = await listen()

    async def backend(stream: trio.SocketStream) -> None:
        data = b""
        while not data.endswith(b"\r\n\r\n") or data.count(b"\r\n\r\n") < 2:
            data += await stream.receive_some(65536)
        received.append(data)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await stream.aclose()

    text = f"routers: [{{protocol: http, label: test, dtab: /svc => /$/inet/127.0.0.1/{port}, servers: [{{port: 0}}]}}]"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, backend, [listener])
        async with start(text) as worker, attack(worker.addresses[0][2]) as attacker:
            await attacker.send(
                POST + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\n"
                b"Content-Length: 3\r\nhost: evil\r\nTransfer-Encoding: chunked\r\nl5d-dtab: /svc => /evil\r\n"
                b"l5d-ctx-dtab: /a => /b\r\nauthorization: x\r\nx-sum: 1\r\n\r\n"
            )
            assert (await attacker.end()).startswith(b"HTTP/1.1 200 ")
        nursery.cancel_scope.cancel()
    (data,) = received
    assert data.endswith(b"\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n")


async def test_header_limits(start: Any, listen: Any) -> None:
    async with rig(start, listen, "maxHeaderFields: 20", "maxHeadersKB: 1, maxInitialLineKB: 1") as made:
        for head, status in (
            (GET[:-2] + b"".join(b"x%d: y\r\n" % at for at in range(20)), b"431"),
            (GET[:-2] + b"x: " + b"y" * 1100 + b"\r\n", b"431"),
            (b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\n" + HOST, b"414"),
        ):
            async with attack(made.port) as attacker:
                await attacker.send(head + b"\r\n")
                assert (await attacker.end()).startswith(b"HTTP/1.1 " + status)
        assert made.paths == []


async def test_chunk_extensions_without_end(start: Any, listen: Any) -> None:
    async with rig(start, listen) as made, attack(made.port) as attacker:
        await attacker.send(POST + b"transfer-encoding: chunked\r\n\r\n")
        await attacker.flood(lambda at: b"1;" + b"e" * 250 + b"\r\nx\r\n", 5000)
        assert (await attacker.end()).startswith(b"HTTP/1.1 400 ")


async def late(attacker: Attacker, made: Rig, kind: str, status: bytes = b"408") -> None:
    assert (await attacker.end()).startswith(b"HTTP/1.1 " + status)
    assert made.counts() == {kind: 1}
    (event,) = [event for event in made.worker.host.events.recent if event.name == "client_abuse"]
    assert event.fields["kind"] == kind


async def test_a_head_that_dribbles(start: Any, listen: Any) -> None:
    async with rig(start, listen, "headTimeoutMs: 60") as made, attack(made.port) as attacker:
        await attacker.send(GET[:-2])
        async with trio.open_nursery() as nursery:

            async def dribble() -> None:
                while True:
                    await attacker.send(b"x: y\r\n")
                    await trio.sleep(0.01)

            nursery.start_soon(dribble)
            await late(attacker, made, "head")
            nursery.cancel_scope.cancel()


async def test_a_body_that_dribbles(start: Any, listen: Any) -> None:
    async with rig(start, listen, "bodyTimeoutMs: 60, minBytesPerSec: 1000") as made, attack(made.port) as attacker:
        await attacker.send(POST + b"content-length: 100000\r\n\r\n")
        async with trio.open_nursery() as nursery:

            async def dribble() -> None:
                while True:
                    await attacker.send(b"x")
                    await trio.sleep(0.01)

            nursery.start_soon(dribble)
            await late(attacker, made, "body")
            nursery.cancel_scope.cancel()


async def test_an_answer_that_is_not_read(start: Any, listen: Any) -> None:
    async with rig(start, listen, "stallTimeoutMs: 80") as made:
        stream = await trio.open_tcp_stream("127.0.0.1", made.port)
        async with stream:
            await stream.send_all(GET.replace(b"/", b"/large", 1))
            with trio.fail_after(3):
                while made.counts() != {"stalled": 1}:
                    await trio.sleep(0.002)


async def test_pipelining_without_reading_is_held_back(start: Any, listen: Any) -> None:
    """What is not read is not produced either."""
    async with rig(start, listen) as made:
        stream = await trio.open_tcp_stream("127.0.0.1", made.port)
        async with stream:
            with trio.move_on_after(0.2):
                await stream.send_all(GET.replace(b"/", b"/large", 1) * 100)
                await trio.sleep(0.2)
            assert len(made.paths) < 10


async def test_a_connection_that_asks_for_nothing(start: Any, listen: Any) -> None:
    async with rig(start, listen, "firstRequestTimeoutMs: 60") as made, attack(made.port) as attacker:
        assert await attacker.end() == b""
        assert made.counts() == {"idle": 1}


async def test_connections_above_the_limit_get_an_answer(start: Any, listen: Any) -> None:
    async with rig(start, listen, "maxConnections: 2") as made, attack(made.port) as first, attack(made.port) as second:
        seen = await second.end()
        assert seen.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in seen
        assert made.counts() == {"connections": 1}
        await first.send(GET)
        with trio.fail_after(3):
            while b"hello" not in first.seen:
                await trio.sleep(0.001)


SPLIT = [
    b"x: a\nset-cookie: evil=1",
    b"x: a\rset-cookie: evil=1",
    b"x: a\0b",
    b"x y: a",
    b"x\x7f: a",
    b": a",
    b"x: a\r\n set-cookie: evil=1",
]


@pytest.mark.parametrize("line", SPLIT)
async def test_a_backend_that_splits_its_response(start: Any, listen: Any, line: bytes) -> None:
    listener, port = await listen()

    async def backend(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + line + b"\r\n\r\nok")

    text = f"routers: [{{protocol: http, label: test, dtab: /svc => /$/inet/127.0.0.1/{port}, servers: [{{port: 0}}]}}]"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, backend, [listener])
        async with start(text) as worker, attack(worker.addresses[0][2]) as attacker:
            await attacker.send(GET.replace(HOST, HOST + b"connection: close\r\n"))
            seen = await attacker.end()
        nursery.cancel_scope.cancel()
    assert seen.startswith(b"HTTP/1.1 502 ")
    assert b"\r\nset-cookie" not in seen


@pytest.mark.parametrize(
    "field", [(b"x", b"a\r\nset-cookie: evil=1"), (b"x", b"a\0"), (b"x\r\nset-cookie", b"1"), (b"x:y", b"1")]
)
async def test_a_backend_that_splits_over_http2(start: Any, listen: Any, field: tuple[bytes, bytes]) -> None:
    """HTTP/2 can carry line breaks; HTTP/1.1 must not get them."""
    listener, port = await listen()

    async def backend(stream: trio.SocketStream) -> None:
        block = hpack.Encoder().encode([(b":status", b"200"), field], huffman=False)
        data = await stream.receive_some(65536)
        await stream.send_all(frame(4, 0, 0))
        while b"\x01\x05\x00\x00\x00\x01" not in data:
            data += await stream.receive_some(65536)
        await stream.send_all(frame(1, 5, 1, block))
        await trio.sleep_forever()

    text = f"""
routers:
- protocol: http
  label: test
  dtab: /svc => /$/inet/127.0.0.1/{port}
  client: {{protocol: h2}}
  servers: [{{port: 0}}]
"""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, backend, [listener])
        async with start(text) as worker, attack(worker.addresses[0][2]) as attacker:
            await attacker.send(GET.replace(HOST, HOST + b"connection: close\r\n"))
            seen = await attacker.end()
        nursery.cancel_scope.cancel()
    assert seen.startswith(b"HTTP/1.1 502 ")
    assert b"\r\nset-cookie" not in seen


@pytest.mark.parametrize(
    "fields",
    [
        b"l5d-dtab: /svc => /$/inet/\xff\xfe%0d%0aset-cookie: x\r\n",
        b"l5d-dtab: /svc => /a%0d%0aset-cookie:%20evil\r\n",
        b"l5d-ctx-deadline: 1 1%0d%0aset-cookie: x\r\n",
        b"expect: 100-continue%0d%0aset-cookie: x\r\n",
    ],
)
async def test_what_the_router_says_itself_cannot_be_split(start: Any, listen: Any, fields: bytes) -> None:
    async with rig(start, listen) as made, attack(made.port) as attacker:
        await attacker.send(GET.replace(HOST, HOST + fields + b"connection: close\r\n"))
        seen = await attacker.end()
        conn = h11.Connection(h11.CLIENT)
        conn.send(h11.Request(method="GET", target="/", headers=[("host", "web")]))
        conn.send(h11.EndOfMessage())
        conn.receive_data(seen)
        response = conn.next_event()
        assert isinstance(response, h11.Response)
        assert b"set-cookie" not in dict(response.headers)
