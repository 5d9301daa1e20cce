"""An HTTP/1.1 server that does what a script says, byte by byte; the counterpart of `backend2`.

The script is run for each request whose head has come; when it returns and the connection is still open, the next request is
awaited. `Request.rest` reads the body, by length or by chunks, as far as the script wants it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from interop.negative.backend2 import Backend, Gone


@dataclass(frozen=True)
class Script1:
    """What the server does with each request."""

    run: Callable[[Request], Awaitable[None]]


@dataclass
class Record1:
    """What one cell did to the server."""

    connections: list[Connection1] = field(default_factory=list)
    streams: list[Request] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Request:
    """One request, and the connection it came on. `turn`: 0 for the first request of its connection."""

    def __init__(self, conn: Connection1, head: bytes) -> None:
        self.conn = conn
        self.attempt = len(conn.record.streams)
        self.turn = conn.requests
        line, *lines = head.decode("latin-1").split("\r\n")
        self.line = line
        self.fields = [(name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines)]
        self.received = 0
        self.sent = 0
        self.ended = not (self.get("transfer-encoding") or int(self.get("content-length") or 0))
        self.trailers: list[str] = []

    def get(self, name: str) -> str | None:
        """The first value of a field."""
        return next((value for key, value in self.fields if key == name), None)

    async def rest(self) -> None:
        """Read the body to its end. Raises `Gone`."""
        if self.ended:
            return
        if self.get("transfer-encoding"):
            while size := int((await self.conn.line()).split(b";")[0], 16):
                await self.conn.exactly(size + 2)
                self.received += size
            while line := await self.conn.line():
                self.trailers.append(line.decode("latin-1"))
        else:
            await self.some(int(self.get("content-length") or 0))
        self.ended = True

    async def some(self, size: int) -> None:
        """Read `size` bytes of a body without chunks."""
        while size:
            piece = await self.conn.exactly(min(size, 65_536))
            self.received += len(piece)
            size -= len(piece)

    async def send(self, data: bytes, *, step: int = 0, pause: float = 0.0) -> None:
        """Send; with `step`, in pieces of so many bytes with a pause behind each."""
        for at in range(0, len(data), step or max(len(data), 1)):
            await self.conn.raw(data[at : at + step] if step else data)
            self.sent += min(step or len(data), len(data) - at)
            if pause:
                await trio.sleep(pause)

    async def answer(self, body: bytes = b"hello", fields: str = "") -> None:
        """A whole response with a length."""
        await self.send(f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def close(self) -> None:
        await self.conn.close()
        raise Gone


class Connection1:
    """One connection of the proxy."""

    def __init__(self, socket: trio.SocketStream, script: Script1, record: Record1) -> None:
        self.socket = socket
        self.script = script
        self.record = record
        self.requests = 0
        self.over = False  # the other side has closed
        self._buffer = bytearray()

    async def serve(self) -> None:
        """Until either side closes."""
        try:
            while True:
                head = await self._head()
                request = Request(self, head)
                self.requests += 1
                self.record.streams.append(request)
                await self.script.run(request)
                if not request.ended:
                    await request.rest()
        except Gone:
            pass
        except Exception as error:  # noqa: BLE001 - a script that breaks fails its cell
            self.record.errors.append(f"script: {type(error).__name__}: {error}")
        finally:
            await trio.aclose_forcefully(self.socket)

    async def raw(self, data: bytes) -> None:
        try:
            await self.socket.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.over = True
            raise Gone from error

    async def _more(self) -> None:
        try:
            data = await self.socket.receive_some(262_144)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self.over = True
            raise Gone
        self._buffer += data

    async def _head(self) -> bytes:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._more()
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        return head

    async def line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    async def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def until_closed(self) -> None:
        """Wait for the other side to close."""
        with suppress(Gone):
            while True:
                await self._more()

    async def close(self) -> None:
        """End our half, and wait for the other's for at most a second."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError), trio.move_on_after(1):
            await self.socket.send_eof()
            await self.until_closed()
        await trio.aclose_forcefully(self.socket)


class Backend1(Backend):
    """The HTTP/1.1 listener."""

    def connection(self, socket: trio.SocketStream, script: Script1) -> Connection1:  # type: ignore[override]
        return Connection1(socket, script, self.record)  # type: ignore[arg-type]
