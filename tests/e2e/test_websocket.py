"""WebSockets through the router, over HTTP/1.1 and HTTP/2 on either side: opened, refused, ended, limited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.utilities import generate_accept_token

from tests.e2e.conftest import port_of
from tests.support import h2peer

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ASK = (
    b"GET /chat?x=1 HTTP/1.1\r\nhost: web\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n"
    b"sec-websocket-version: 13\r\n"
)
EXTENDED = [
    (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/chat?x=1"),
    (b":authority", b"web"), (b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat"),
]  # fmt: skip


def yaml(port: int, client: str = "http", *, router: str = "http", server: str = "") -> str:
    return f"""
routers:
- protocol: {router}
  label: test
  identifier: {{kind: io.l5d.header.token}}
  dtab: /svc => /$/inet/127.0.0.1/{port}
  client: {{protocol: {client}}}
  servers: [{{port: 0, {server}}}]
"""


class Pipe:
    """One end of a tunnel, whatever carries it: bytes out, bytes in (b"" at the end), and the end of what goes out."""

    def __init__(self, stream: trio.SocketStream, head: bytes = b"", rest: bytes = b"") -> None:
        self.stream = stream
        self.head = head
        self._rest = rest

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest or bytes(await self.stream.receive_some(65536))

    async def finish(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await self.stream.aclose()


async def head_of(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """A head and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some(65536)
        assert more, data
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n", rest


class H2Pipe:
    """A stream of HTTP/2 as a :class:`Pipe`, on the h2 library."""

    def __init__(self, peer: h2peer.Peer, stream_id: int) -> None:
        self.peer = peer
        self.id = stream_id
        self._taken = 0

    @property
    def message(self) -> h2peer.Message:
        return self.peer.messages[self.id]

    async def send(self, data: bytes) -> None:
        while data:
            room = min(self.peer.conn.local_flow_control_window(self.id), self.peer.conn.max_outbound_frame_size, len(data))
            if not room:
                await trio.sleep(0.001)
                continue
            self.peer.conn.send_data(self.id, data[:room])
            await self.peer.flush()
            data = data[room:]

    async def receive(self) -> bytes:
        while len(self.message.body) == self._taken and not self.message.done.is_set():
            await trio.sleep(0.001)
        data = self.message.body[self._taken :]
        self._taken += len(data)
        return data

    async def finish(self) -> None:
        self.peer.conn.end_stream(self.id)
        await self.peer.flush()

    async def aclose(self) -> None:
        await self.peer.stream.aclose()


class Backends:
    """A backend that opens every tunnel it is asked for and hands it to the test."""

    def __init__(self) -> None:
        self.send, self.opened = trio.open_memory_channel[Any](10)
        self.peers: list[h2peer.Peer] = []
        self.connections = 0

    async def http1(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        head, rest = await head_of(stream)
        lines = dict([line.lower().split(b": ", 1) for line in head.splitlines()[1:]])
        key = next(line for line in head.splitlines() if line.startswith(b"sec-websocket-key: ")).partition(b": ")[2]
        assert (lines[b"upgrade"], lines[b"connection"]) == (b"websocket", b"upgrade")
        token = generate_accept_token(key)
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nx-from: backend\r\n"
        await stream.send_all(answer + b"Sec-WebSocket-Accept: " + token + b"\r\n\r\nhi")
        await self.send.send(Pipe(stream, head, rest))
        await trio.sleep_forever()  # the stream is closed by the test

    async def http2(self, stream: trio.SocketStream) -> None:
        import h2.settings

        peer = h2peer.Peer(stream, client=False)
        peer.conn.update_settings({h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        self.peers.append(peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            while not any(message.headers for message in peer.messages.values()):
                await trio.sleep(0.001)
            (stream_id,) = peer.messages
            peer.conn.send_headers(stream_id, [(b":status", b"200"), (b"x-from", b"backend")])
            peer.conn.send_data(stream_id, b"hi")
            await peer.flush()
            await self.send.send(H2Pipe(peer, stream_id))


@asynccontextmanager
async def rig(start: Any, listen: Any, nursery: trio.Nursery, front: str, back: str, **keys: Any) -> AsyncIterator[Any]:
    """(open a tunnel from the front, the worker, the backends). Opening returns both ends."""
    backends = Backends()
    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, backends.http1 if back == "http" else backends.http2, [listener])
    async with start(yaml(port, back, **keys)) as worker:

        async def open_one() -> tuple[Any, Any]:
            stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
            if front == "http":
                await stream.send_all(ASK + b"sec-websocket-protocol: chat\r\nsec-websocket-key: " + KEY + b"\r\n\r\n")
                head, rest = await head_of(stream)
                client: Any = Pipe(stream, head, rest)
            else:
                peer = h2peer.Peer(stream, client=True)
                nursery.start_soon(peer.run)
                while peer.conn.remote_settings.enable_connect_protocol != 1:
                    await trio.sleep(0.001)
                client = H2Pipe(peer, await peer.start(EXTENDED, end=False))
                while not client.message.headers:
                    await trio.sleep(0.001)
            return client, await backends.opened.receive()

        with trio.fail_after(10):
            yield open_one, worker, backends
            while worker.metrics.flat()["rt/test/service/svc/web/pending"]:
                await trio.sleep(0.001)


FRONTS, BACKS = ["http", "h2"], ["http", "h2"]


async def everything(pipe: Any) -> bytes:
    data = b""
    while more := await pipe.receive():
        data += more
    return data


@pytest.mark.parametrize("back", BACKS)
@pytest.mark.parametrize("front", FRONTS)
async def test_opened_used_and_ended(start: Any, listen: Any, nursery: trio.Nursery, front: str, back: str) -> None:
    async with rig(start, listen, nursery, front, back) as (open_one, worker, _):
        client, endpoint = await open_one()
        if front == "http":
            assert client.head.startswith(b"HTTP/1.1 101 ")
            lines = dict([line.split(b": ", 1) for line in client.head.splitlines()[1:]])
            assert (lines[b"upgrade"], lines[b"connection"]) == (b"websocket", b"Upgrade")
            assert lines[b"sec-websocket-accept"] == generate_accept_token(KEY)
            assert (lines[b"x-from"], b"content-length" in lines, b"transfer-encoding" in lines) == (b"backend", False, False)
        else:
            head = client.message
            assert (head.get(b":status"), head.get(b"x-from")) == (b"200", b"backend")
            assert head.get(b"sec-websocket-accept") is None
        if back == "http":
            assert endpoint.head.startswith(b"GET /chat?x=1 HTTP/1.1\r\n")
            assert endpoint.head.count(b"sec-websocket-key: ") == 1
            assert b"sec-websocket-protocol: chat\r\n" in endpoint.head
        else:
            head = endpoint.message
            assert [head.get(name) for name in (b":method", b":protocol", b":path", b":authority")] == [
                b"CONNECT", b"websocket", b"/chat?x=1", b"web",
            ]  # fmt: skip
            assert (head.get(b"sec-websocket-version"), head.get(b"sec-websocket-protocol")) == (b"13", b"chat")
            assert head.get(b"sec-websocket-key") is None
        assert await client.receive() == b"hi"
        await client.send(b"GET / HTTP/1.1\r\n\r\n")  # nobody reads that as a request
        assert await endpoint.receive() == b"GET / HTTP/1.1\r\n\r\n"
        await client.finish()  # one direction; the other one goes on
        assert await endpoint.receive() == b""
        await endpoint.send(b"still here")
        assert await client.receive() == b"still here"
        scope = "rt/test/service/svc/web"
        assert worker.metrics.flat()[f"{scope}/pending"] == 1
        await endpoint.finish()
        assert await client.receive() == b""
        while worker.metrics.flat()[f"{scope}/pending"]:
            await trio.lowlevel.checkpoint()
        flat = worker.metrics.flat()
        assert (flat[f"{scope}/requests"], flat[f"{scope}/success"], flat[f"{scope}/status/101"]) == (1, 1, 1)
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("back", BACKS)
@pytest.mark.parametrize("front", FRONTS)
async def test_wsproto_talks_through_it(start: Any, listen: Any, nursery: trio.Nursery, front: str, back: str) -> None:
    async with rig(start, listen, nursery, front, back) as (open_one, _, _backends):
        client, endpoint = await open_one()
        assert await client.receive() == b"hi"
        one, other = Connection(ConnectionType.CLIENT), Connection(ConnectionType.SERVER)
        big = bytes(range(256)) * 4096  # 1 MiB
        nursery.start_soon(client.send, one.send(TextMessage("hällo")) + one.send(BytesMessage(big)))
        got: list[Any] = []
        while sum(len(event.data) for event in got if isinstance(event, BytesMessage)) < len(big):
            other.receive_data(await endpoint.receive())
            got += list(other.events())
        assert "".join([event.data for event in got if isinstance(event, TextMessage)]) == "hällo"
        assert b"".join([event.data for event in got if isinstance(event, BytesMessage)]) == big
        await endpoint.send(other.send(CloseConnection(1000, "bye")))
        one.receive_data(await client.receive())
        (close,) = one.events()
        assert isinstance(close, CloseConnection)
        assert (close.code, close.reason) == (1000, "bye")
        await client.finish()
        await endpoint.finish()
        assert await everything(endpoint) == b""
        assert await client.receive() == b""
        await client.aclose()
        await endpoint.aclose()
