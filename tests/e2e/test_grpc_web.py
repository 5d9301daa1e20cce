"""gRPC-Web clients over HTTP/1.1 and HTTP/2 in front of a gRPC backend."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
import trio
import trio.testing

from tests.e2e.conftest import port_of
from tests.support import h1, h2peer

MESSAGE = b"\0\0\0\0\3abc"
GRPC = [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"x-a", b"b")]
STATUS = [(b"grpc-status", b"0")]
FRAME = b"\x80\0\0\0&grpc-status:0\r\nl5d-success-class:1.0\r\n"
WEB = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")]
TEXT = [("content-type", "application/grpc-web-text"), ("x-grpc-web", "1"), ("accept", "application/grpc-web-text")]


def yaml(protocol: str, port: int, web: str = "{}", more: str = "") -> str:
    return f"""
routers:
- protocol: {protocol}
  label: test
  identifier: {{kind: io.l5d.header.token}}
  dtab: /svc => /$/inet/127.0.0.1/{port}
  client: {{protocol: grpc}}
  servers: [{{port: 0, grpcWeb: {web}{more}}}]
"""


class Answer:
    """One answer over either protocol."""

    def __init__(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


async def call(
    nursery: trio.Nursery, version: str, port: int, headers: list[tuple[str, str]], body: bytes = b"", method: str = "POST"
) -> Answer:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        if version == "1.1":
            return Answer(*await h1.Client(stream).request(method, "/a.B/C", "web", headers, body))
        peer = h2peer.Peer(stream, client=True)
        nursery.start_soon(peer.run)
        message = await peer.request("/a.B/C", "web", [(name.encode(), value.encode()) for name, value in headers], body)
        assert not message.trailers
        return Answer(int(message.get(b":status") or 0), dict(message.headers), message.body)
    finally:
        await stream.aclose()


def echo(message: h2peer.Message) -> Any:
    """Fails where something arrives that is not gRPC; else sends the body back."""
    wanted = {(b"content-type", b"application/grpc"), (b"content-type", b"application/grpc+proto")} & set(message.headers)
    names = {name for name, _ in message.headers}
    good = wanted and (b"te", b"trailers") in message.headers and not names & {b"content-length", b"x-grpc-web"}
    return GRPC, message.body, STATUS if good else [(b"grpc-status", b"13")]


@pytest.mark.parametrize("protocol", ["http", "h2", "grpc"])
@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_unary_calls(start: Any, listen: Any, nursery: trio.Nursery, protocol: str, version: str) -> None:
    listener, port = await listen()
    nursery.start_soon(h2peer.serve, listener, echo)
    async with start(yaml(protocol, port)) as worker:
        made = await call(nursery, version, port_of(worker), WEB, MESSAGE)
        assert (made.status, made.headers[b"x-a"], made.body) == (200, b"b", MESSAGE + FRAME)
        assert made.headers[b"content-type"] == b"application/grpc-web"
        made = await call(nursery, version, port_of(worker), TEXT, b64encode(MESSAGE) + b64encode(MESSAGE))
        assert made.body == b64encode(MESSAGE * 2) + b64encode(FRAME)
        assert made.headers[b"content-type"] == b"application/grpc-web-text"
        flat, scope = worker.metrics.flat(), f"rt/test/server/127.0.0.1/{port_of(worker)}"
        assert (flat[f"{scope}/grpc_web/requests"], flat[f"{scope}/requests"], flat[f"{scope}/success"]) == (2, 2, 2)


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_errors(start: Any, nursery: trio.Nursery, version: str) -> None:
    async with start(yaml("http", 1)) as worker:
        made = await call(nursery, version, port_of(worker), WEB, MESSAGE)
        assert (made.status, made.headers[b"grpc-status"], made.body) == (200, b"14", b"")
        assert made.headers[b"content-type"] == b"application/grpc-web"
        made = await call(nursery, version, port_of(worker), TEXT, b"*" * 8)
        assert made.headers[b"grpc-status"] in (b"13", b"14")  # it may fail to connect before it is read
    async with start(yaml("grpc", 1, more=", clearContext: true")) as worker:
        made = await call(nursery, version, port_of(worker), WEB, MESSAGE)
        assert made.headers[b"grpc-status"] == b"14"
        assert b"grpc-message" not in made.headers


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_deadlines_hold(start: Any, listen: Any, nursery: trio.Nursery, version: str) -> None:
    listener, port = await listen()
    nursery.start_soon(h2peer.serve, listener, lambda message: None)
    async with start(yaml("http", port)) as worker:
        made = await call(nursery, version, port_of(worker), [*WEB, ("grpc-timeout", "20m")], MESSAGE)
        assert made.headers[b"grpc-status"] == b"4"


async def test_base64_that_is_none_costs_the_call(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h2peer.serve, listener, echo)
    async with start(yaml("http", port)) as worker:
        for version in ("1.1", "2"):
            made = await call(nursery, version, port_of(worker), TEXT, b"AAAA*AAA")
            assert (made.headers[b"grpc-status"], made.headers[b"content-type"]) == (b"13", b"application/grpc-web-text")


@pytest.mark.parametrize("text", [False, True])
async def test_a_stream_arrives_as_it_is_sent_and_waits_for_its_reader(
    start: Any, listen: Any, nursery: trio.Nursery, text: bool
) -> None:
    listener, port = await listen()
    peers: list[h2peer.Peer] = []
    nursery.start_soon(h2peer.serve, listener, lambda message: None, peers)
    async with start(yaml("http", port)) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        kind = b"application/grpc-web-text" if text else b"application/grpc-web"
        head = b"POST /a.B/C HTTP/1.1\r\nhost: web\r\ncontent-type: %b\r\ncontent-length: 0\r\n\r\n" % kind
        await stream.send_all(head)
        with trio.fail_after(5):
            while not (peers and peers[0].messages.get(1) and peers[0].messages[1].done.is_set()):
                await trio.lowlevel.checkpoint()
            backend = peers[0]
            backend.conn.send_headers(1, GRPC)
            seen = b""
            for at in range(3):  # nothing of a message waits for the next one
                backend.conn.send_data(1, MESSAGE)
                await backend.flush()
                wanted = (b64encode(MESSAGE) if text else MESSAGE) + b"\r\n"
                while seen.count(wanted) <= at:
                    seen += await stream.receive_some()
            sent = 0
            while sent < 20_000_000:  # the client reads no more: the backend's window closes, whatever it would send
                room = min(backend.conn.local_flow_control_window(1), 16384)
                if room <= 0:
                    before = room
                    await trio.testing.wait_all_tasks_blocked(0.02)
                    if backend.conn.local_flow_control_window(1) == before:
                        break
                    continue
                backend.conn.send_data(1, bytes(room))
                sent += room
                await backend.flush()
            assert sent < 20_000_000
            await stream.aclose()
            while worker.metrics.flat()[f"rt/test/server/127.0.0.1/{port_of(worker)}/pending"]:
                await trio.lowlevel.checkpoint()


async def test_browsers_are_told_what_they_may(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h2peer.serve, listener, echo)
    web = "{allowOrigins: ['https://app.example.com'], exposeHeaders: [x-a]}"
    async with start(yaml("grpc", port, web)) as worker:
        origin = ("origin", "https://app.example.com")
        asks = [("access-control-request-method", "POST"), ("access-control-request-headers", "content-type,x-grpc-web")]
        made = await call(nursery, "1.1", port_of(worker), [origin, *asks], b"", "OPTIONS")
        assert made.status == 204
        assert made.headers[b"access-control-allow-origin"] == b"https://app.example.com"
        for version in ("1.1", "2"):
            made = await call(nursery, version, port_of(worker), [origin, *WEB], MESSAGE)
            assert made.headers[b"access-control-allow-origin"] == b"https://app.example.com"
            assert b"x-a" in made.headers[b"access-control-expose-headers"]
            assert made.body == MESSAGE + FRAME
        flat = worker.metrics.flat()
        assert flat[f"rt/test/server/127.0.0.1/{port_of(worker)}/grpc_web/preflights"] == 1


async def test_without_the_key_grpc_web_is_the_endpoint_s_business(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h2peer.serve, listener, lambda message: (GRPC, b"".join(dict(message.headers).values()), []))
    async with start(yaml("h2", port).replace("grpcWeb: {}", "")) as worker:
        made = await call(nursery, "2", port_of(worker), WEB, MESSAGE)
        assert b"application/grpc-web+proto" in made.body
