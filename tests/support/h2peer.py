"""A backend and a client for HTTP/2, on the h2 library and trio, both independent of what is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trio

Headers = list[tuple[bytes, bytes]]


@attrs.define
class Message:
    """A request or response as it arrived."""

    headers: Headers = attrs.field(factory=list)
    body: bytes = b""
    trailers: Headers = attrs.field(factory=list)
    reset: int | None = None
    done: trio.Event = attrs.field(factory=trio.Event)

    def get(self, name: bytes) -> bytes | None:
        return dict(self.headers + self.trailers).get(name)


Answer = tuple[Headers, bytes, Headers]
Handler = Callable[[Message], "Answer | None"]


class Peer:
    """One connection, either role. The handler of a server returns (headers, body, trailers), or None to stay silent."""

    def __init__(self, stream: trio.SocketStream, *, client: bool, handler: Handler | None = None) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(client_side=client, header_encoding=None)
        self.conn = h2.connection.H2Connection(config)
        self.handler = handler
        self.messages: dict[int, Message] = {}
        self.events: list[Any] = []
        self._sending = trio.Lock()
        self.conn.initiate_connection()

    async def flush(self) -> None:
        async with self._sending:
            data = self.conn.data_to_send()
            if data:
                await self.stream.send_all(data)

    async def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            await self.flush()
            while data := await self.stream.receive_some(65536):
                for event in self.conn.receive_data(data):
                    await self._event(event)
                await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError):
            pass
        finally:
            for message in self.messages.values():
                message.done.set()

    async def _event(self, event: Any) -> None:
        self.events.append(event)
        stream_id = getattr(event, "stream_id", None)
        message = self.messages.setdefault(stream_id, Message()) if stream_id else Message()
        if isinstance(event, h2.events.RequestReceived | h2.events.ResponseReceived):
            message.headers = list(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            message.body += event.data
            self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            message.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            message.reset = int(event.error_code)
            message.done.set()
        elif isinstance(event, h2.events.StreamEnded):
            message.done.set()
            if self.handler is not None:
                answer = self.handler(message)
                if answer is not None:
                    await self.answer(event.stream_id, *answer)

    async def answer(self, stream_id: int, headers: Headers, body: bytes = b"", trailers: Headers | None = None) -> None:
        """Send a response."""
        self.conn.send_headers(stream_id, headers, end_stream=not body and not trailers)
        if body:
            self.conn.send_data(stream_id, body, end_stream=not trailers)
        if trailers:
            self.conn.send_headers(stream_id, trailers, end_stream=True)
        await self.flush()

    async def start(self, headers: Headers, *, end: bool) -> int:
        """Begin a request; returns its stream id."""
        stream_id = self.conn.get_next_available_stream_id()
        self.messages[stream_id] = Message()
        self.conn.send_headers(stream_id, headers, end_stream=end)
        await self.flush()
        return stream_id

    async def request(self, path: str, authority: str = "web", headers: Headers | None = None, body: bytes = b"") -> Message:
        """Make a request and wait for its answer."""
        method = b"POST" if body else b"GET"
        pseudo = [(b":method", method), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", authority.encode())]
        stream_id = await self.start([*pseudo, *(headers or [])], end=not body)
        if body:
            try:
                self.conn.send_data(stream_id, body, end_stream=True)
            except h2.exceptions.ProtocolError:
                pass  # answered, and closed, before we got to send the body
            await self.flush()
        message = self.messages[stream_id]
        await message.done.wait()
        return message


async def serve(listener: trio.SocketListener, handler: Handler, peers: list[Peer] | None = None) -> None:
    """Answer every request by ``handler``; connections are appended to ``peers``."""

    async def connection(stream: trio.SocketStream) -> None:
        peer = Peer(stream, client=False, handler=handler)
        if peers is not None:
            peers.append(peer)
        await peer.run()

    await trio.serve_listeners(connection, [listener])
