"""A backend and a client for HTTP/1.1, on h11 and trio, both independent of what is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h11
import trio

Handler = Callable[[h11.Request, bytes], "tuple[int, list[tuple[bytes, bytes]], bytes]"]


async def serve(listener: trio.SocketListener, handler: Handler) -> None:
    """Answer every request with what ``handler(request, body)`` returns."""
    await trio.serve_listeners(lambda stream: _connection(stream, handler), [listener])


async def _connection(stream: trio.SocketStream, handler: Handler) -> None:
    conn = h11.Connection(h11.SERVER)
    try:
        while True:
            request = await _next(conn, stream)
            if not isinstance(request, h11.Request):
                return
            body = b""
            while isinstance(event := await _next(conn, stream), h11.Data):
                body += event.data
            status, headers, answer = handler(request, body)
            framing = (
                [] if any(name == b"transfer-encoding" for name, _ in headers) else [(b"content-length", b"%d" % len(answer))]
            )
            await stream.send_all(conn.send(h11.Response(status_code=status, headers=[*headers, *framing])) or b"")
            await stream.send_all((conn.send(h11.Data(data=answer)) or b"") + (conn.send(h11.EndOfMessage()) or b""))
            if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
                return
            conn.start_next_cycle()
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
        return


async def _next(conn: h11.Connection, stream: trio.SocketStream) -> Any:
    while True:
        event = conn.next_event()
        if event is not h11.NEED_DATA:
            return event
        conn.receive_data(await stream.receive_some(65536))


class Client:
    """A keep-alive client of one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.conn = h11.Connection(h11.CLIENT)

    async def request(
        self, method: str, target: str, host: str, headers: list[tuple[str, str]] | None = None, body: bytes = b""
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """(status, headers, body) of the answer."""
        framing = [("content-length", str(len(body)))] if body else []
        await self.stream.send_all(
            self.conn.send(h11.Request(method=method, target=target, headers=[("host", host), *(headers or []), *framing]))
            or b""
        )
        if body:
            await self.stream.send_all(self.conn.send(h11.Data(data=body)) or b"")
        await self.stream.send_all(self.conn.send(h11.EndOfMessage()) or b"")
        response = await _next(self.conn, self.stream)
        while isinstance(response, h11.InformationalResponse):
            response = await _next(self.conn, self.stream)
        assert isinstance(response, h11.Response), response
        answer = b""
        while isinstance(event := await _next(self.conn, self.stream), h11.Data):
            answer += event.data
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE:
            self.conn.start_next_cycle()
        return response.status_code, dict(response.headers), answer
