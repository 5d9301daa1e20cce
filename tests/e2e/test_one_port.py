"""One port, several protocols: each client is known by its first bytes, or asks for another protocol by Upgrade."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing

from protocols.wire import detect
from tests.e2e.conftest import port_of
from tests.support import h1, h2peer

OK = [(b":status", b"200"), (b"content-type", b"text/plain")]
UPGRADE = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")]


def yaml(protocol: str, port: int, client: str = "") -> str:
    return f"""
routers:
- protocol: {protocol}
  label: test
  identifier: {{kind: io.l5d.header.token}}
  dtab: /svc => /$/inet/127.0.0.1/{port}
  client: {{protocol: {client or protocol}}}
  servers: [{{port: 0}}]
"""


def seen(request: Any, body: bytes) -> Any:
    return 200, [], b"\n".join([b"%b=%b" % field for field in request.headers]) + b"\n" + body


def seen_h2(message: Any) -> Any:
    return OK, b"\n".join([b"%b=%b" % field for field in message.headers]) + b"\n" + message.body, []


@pytest.mark.parametrize("protocol", ["http", "h2", "grpc"])
@pytest.mark.parametrize("client", ["http", "h2"])
async def test_every_router_serves_both(start: Any, listen: Any, nursery: trio.Nursery, protocol: str, client: str) -> None:
    listener, port = await listen()
    nursery.start_soon(*(h1.serve, listener, seen) if client == "http" else (h2peer.serve, listener, seen_h2))
    async with start(yaml(protocol, port, client)) as worker:
        old = h1.Client(await trio.open_tcp_stream("127.0.0.1", port_of(worker)))
        for body in (b"", b"hello"):
            status, _, answer = await old.request("POST", "/", "web", body=body)
            assert (status, answer.rpartition(b"\n")[-1]) == (200, body)
        peer = h2peer.Peer(await trio.open_tcp_stream("127.0.0.1", port_of(worker)), client=True)
        nursery.start_soon(peer.run)
        for body in (b"", b"hello"):
            message = await peer.request("/", "web", body=body)
            assert (message.get(b":status"), message.body.rpartition(b"\n")[-1]) == (b"200", body)
        flat = worker.metrics.flat()
        scope = f"rt/test/server/127.0.0.1/{port_of(worker)}"
        assert (flat[f"{scope}/connects"], flat[f"{scope}/connections"], flat[f"{scope}/requests"]) == (2, 2, 4)
        for stream in (old.stream, peer.stream):
            await stream.aclose()
        with trio.fail_after(2):
            while worker.servers[0].connections:
                await trio.lowlevel.checkpoint()


async def test_grpc_gets_its_answers_from_an_http_router(start: Any, nursery: trio.Nursery) -> None:
    async with start(yaml("http", 1)) as worker:
        peer = h2peer.Peer(await trio.open_tcp_stream("127.0.0.1", port_of(worker)), client=True)
        nursery.start_soon(peer.run)
        message = await peer.request("/a.B/C", "web", [(b"content-type", b"application/grpc")], b"\0\0\0\0\0")
        assert (message.get(b":status"), message.get(b"grpc-status")) == (b"200", b"14")
        await peer.stream.aclose()


async def test_first_bytes_in_pieces(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml("http", port)) as worker:
        preface = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        preface.initiate_connection()
        for data, answer in (
            (b"PRI", b""),  # nothing yet: it may still become either
            (preface.data_to_send(), b"\0\0"),
            (b"PRIX / HTTP/1.1\r\nhost: web\r\n\r\n", b"HTTP/1.1 200 "),
            (b"\r\nGET / HTTP/1.1\r\nhost: web\r\n\r\n", b"HTTP/1.1 200 "),
            (b"PRI * HTTP/1.1\r\nhost: web\r\n\r\n", b"HTTP/1.1 400 "),
            (b"\0\1\2\3\r\n\r\n", b"HTTP/1.1 400 "),
        ):
            stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
            for at in range(len(data)):
                try:
                    await stream.send_all(data[at : at + 1])
                except trio.BrokenResourceError:
                    break
            got = b""
            with trio.move_on_after(0.05 if not answer else 5):
                while len(got) < len(answer) or not answer:
                    got += await stream.receive_some()
            assert got.startswith(answer), data
            await stream.aclose()


async def test_what_stays_undecided_is_the_routers_own(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml("http", port)) as worker:
        worker.servers[0].servers[0].patience = 0.02
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        await stream.send_all(b"PR")
        with trio.fail_after(2):
            while not worker.servers[0].servers[0].connections:
                await trio.lowlevel.checkpoint()
            await stream.send_all(b"OBE / HTTP/1.1\r\nhost: web\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await stream.aclose()


class Upgraded:
    """A client that asks for h2c, and then speaks it by the h2 library."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.conn = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        settings = self.conn.initiate_upgrade_connection()
        assert settings is not None
        self.settings = settings.decode()
        self.events: list[Any] = []

    async def ask(self, *more: tuple[str, str], body: bytes = b"") -> bytes:
        """The head of the answer to the request."""
        fields = [*UPGRADE, ("http2-settings", self.settings), ("host", "web"), *more]
        head = "".join([f"{name}: {value}\r\n" for name, value in fields])
        await self.stream.send_all(b"POST /up HTTP/1.1\r\n" + head.encode() + b"\r\n" + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.stream.receive_some()
        head_, _, rest = data.partition(b"\r\n\r\n")
        self.events += self.conn.receive_data(rest) if head_.startswith(b"HTTP/1.1 101") else []
        return head_

    async def until(self, stream_id: int) -> bytes:
        """The body of a stream."""
        await self.stream.send_all(self.conn.data_to_send())
        while not any(isinstance(event, h2.events.StreamEnded) and event.stream_id == stream_id for event in self.events):
            self.events += self.conn.receive_data(await self.stream.receive_some())
        data = [event for event in self.events if isinstance(event, h2.events.DataReceived)]
        return b"".join([event.data for event in data if event.stream_id == stream_id])


@pytest.mark.parametrize("protocol", ["http", "h2"])
async def test_upgrade_to_h2c(start: Any, listen: Any, nursery: trio.Nursery, protocol: str) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml(protocol, port, "http")) as worker:
        client = Upgraded(await trio.open_tcp_stream("127.0.0.1", port_of(worker)))
        with trio.fail_after(5):
            head = await client.ask(("content-length", "0"))
            assert head.lower().splitlines()[1:] == [b"connection: upgrade", b"upgrade: h2c"]
            body = await client.until(1)
            assert b"host=web" in body
            assert not any(line.startswith((b"upgrade", b"http2-settings", b"connection")) for line in body.splitlines())
            client.conn.send_headers(
                3, [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"web")]
            )
            client.conn.end_stream(3)
            assert b"host=web" in await client.until(3)
        flat = worker.metrics.flat()
        assert flat["rt/test/service/svc/web/success"] == 2
        assert worker.servers[0].connections == 1
        await client.stream.aclose()


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ([("content-length", "5")], b"hello"),  # may be ignored, and is
        ([("transfer-encoding", "chunked")], b"0\r\n\r\n"),
        ([("http2-settings", "AAMAAABk")], b""),  # a second one
    ],
)
async def test_upgrade_is_ignored(start: Any, listen: Any, nursery: trio.Nursery, fields: Any, body: bytes) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml("http", port)) as worker:
        client = Upgraded(await trio.open_tcp_stream("127.0.0.1", port_of(worker)))
        assert (await client.ask(*fields, body=body)).startswith(b"HTTP/1.1 200 ")
        await client.stream.aclose()


@pytest.mark.parametrize(
    "fields",
    [
        [("connection", "Upgrade"), ("upgrade", "h2c"), ("http2-settings", "")],
        [*UPGRADE, ("http2-settings", "!!")],
        UPGRADE,
        [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2"), ("http2-settings", "")],
    ],
)
async def test_what_is_no_upgrade_to_h2c(start: Any, listen: Any, nursery: trio.Nursery, fields: Any) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml("http", port)) as worker:
        client = h1.Client(await trio.open_tcp_stream("127.0.0.1", port_of(worker)))
        assert (await client.request("GET", "/", "web", fields))[0] == 200
        await client.stream.aclose()


async def test_settings_of_an_upgrade_that_cannot_be(start: Any) -> None:
    async with start(yaml("http", 1)) as worker:
        client = Upgraded(await trio.open_tcp_stream("127.0.0.1", port_of(worker)))
        client.settings = urlsafe_b64encode(b"\0\4\xff\xff\xff\xff").decode()  # a window of 4 GiB
        assert (await client.ask()).startswith(b"HTTP/1.1 101")
        with trio.fail_after(2):
            while not any(isinstance(event, h2.events.ConnectionTerminated) for event in client.events):
                client.events += client.conn.receive_data(await client.stream.receive_some())
        assert client.events[-1].error_code == 3
        await client.stream.aclose()


@pytest.mark.parametrize("protocol", ["http", "h2"])
async def test_a_first_request_that_is_under_way_while_the_listener_drains(
    start: Any, listen: Any, nursery: trio.Nursery, protocol: str
) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml(protocol, port, "http")) as worker:
        old = h1.Client(await trio.open_tcp_stream("127.0.0.1", port_of(worker)))
        new = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        await trio.testing.wait_all_tasks_blocked(0.002)
        assert worker.servers[0].connections == 2
        worker.servers[0].drain()
        status, headers, _ = await old.request("GET", "/", "web")
        assert (status, headers[b"connection"]) == (200, b"close")
        asking = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        asking.initiate_connection()
        asking.send_headers(1, [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"web")], True)
        await new.send_all(asking.data_to_send())
        got = b""  # the h2 library would refuse what comes after a GOAWAY
        with trio.fail_after(5):
            while b"host=web" not in got:
                got += await new.receive_some()
        assert b"drain" in got
        for stream in (old.stream, new):
            await stream.aclose()


async def test_silence_while_the_listener_drains(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "LAST_CALL", 0.02)
    async with start(yaml("http", 1)) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        await trio.testing.wait_all_tasks_blocked(0.002)
        with trio.fail_after(2):
            await worker.drain(1.0)
            assert await stream.receive_some() == b""
        await stream.aclose()
