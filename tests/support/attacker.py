"""A client that sends whatever it likes: raw bytes over a real socket, and what came back until the end."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import hpack
import trio
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/p"), (b":authority", b"web")]
POST = [(b":method", b"POST"), *GET[1:]]
CALM, NO_ERROR, PROTOCOL = 11, 0, 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame, however wrong."""
    size = len(payload)
    return struct.pack(">HBBBL", size >> 8, size & 0xFF, kind, flags, stream) + payload


def headers(stream: int, fields: Any = GET, *, end: bool = True, block: bytes | None = None) -> bytes:
    """A complete HEADERS frame; without dynamic table, so that it can be repeated."""
    if block is None:
        block = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields], huffman=False)
    return HeadersFrame(stream, block, flags=["END_HEADERS", *(["END_STREAM"] if end else [])]).serialize()


class Attacker:
    """One connection. ``seen`` fills up in the background; ``over`` is set at its end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.seen = b""
        self.over = trio.Event()

    async def listen(self) -> None:
        """Read to the end."""
        try:
            while data := await self.stream.receive_some(65536):
                self.seen += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.over.set()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def greet(self, settings: bytes = b"") -> None:
        """The preface and SETTINGS."""
        await self.send(PREFACE + frame(4, 0, 0, settings))

    async def flood(self, pieces: Callable[[int], bytes], most: int) -> int:
        """Send until the router has had enough, at most ``most`` pieces; returns how many were sent."""
        for at in range(most):
            try:
                await self.send(pieces(at))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return at
            if self.over.is_set():
                return at
        return most

    async def end(self, seconds: float = 3) -> bytes:
        """Wait for the router to close; returns what it said."""
        with trio.fail_after(seconds):
            await self.over.wait()
        return self.seen

    def frames(self) -> list[Frame]:
        """What came, as far as it is complete."""
        data, found = self.seen, []
        while len(data) >= 9:
            made, length = Frame.parse_frame_header(memoryview(data[:9]))
            if len(data) < 9 + length:
                break
            made.parse_body(memoryview(data[9 : 9 + length]))
            data = data[9 + length :]
            found.append(made)
        return found

    async def goaway(self, seconds: float = 3) -> int:
        """The code of the GOAWAY that ended the connection."""
        await self.end(seconds)
        return [int(made.error_code) for made in self.frames() if isinstance(made, GoAwayFrame)][-1]

    async def until(self, kind: type[Frame], stream: int = 0) -> Any:
        """The first such frame of a stream."""
        with trio.fail_after(3):
            while True:
                for made in self.frames():
                    if isinstance(made, kind) and made.stream_id == stream:
                        return made
                await trio.sleep(0.001)

    async def reset(self, stream: int) -> int:
        """The code with which a stream was reset."""
        return int((await self.until(RstStreamFrame, stream)).error_code)


@asynccontextmanager
async def attack(port: int) -> AsyncIterator[Attacker]:
    """A connection to the router."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    attacker = Attacker(stream)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attacker.listen)
            yield attacker
            nursery.cancel_scope.cancel()
    finally:
        stream.socket.close()
