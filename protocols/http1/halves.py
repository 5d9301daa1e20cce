"""The two halves of an HTTP/1.1 message in flight: a source that pauses the socket, a sink that frames.

Credit is what pauses and resumes: a source whose bytes are not accepted stops reading above ``HIGH`` bytes; a sink whose
socket is congested holds credit back until the socket drains.
"""

from __future__ import annotations

from collections.abc import Callable

from protocols.http1 import render
from protocols.wire.connection import Connection as Wire
from router.model.body import Chunk, Source
from router.model.failure import Failure
from router.model.headers import Fields

HIGH = 65536


class Http1Source(Source):
    """The body that comes in on a connection."""

    __slots__ = ("_first", "_outstanding", "_paused", "moved", "on_stop", "wire")

    def __init__(self, wire: Wire, first: Callable[[], None], on_stop: Callable[[Failure | None], None]) -> None:
        super().__init__()
        self.wire = wire
        self.on_stop = on_stop
        self._first: Callable[[], None] | None = first
        self._outstanding = 0
        self.moved = 0  # bytes that came
        self._paused = False

    def join(self, sink: object) -> None:
        """See :class:`Source`; the first time the body is wanted, whoever waits for 100 (Continue) gets it."""
        first, self._first = self._first, None
        if first is not None and not self.ended:
            first()
        super().join(sink)  # type: ignore[arg-type]

    def push(self, chunk: Chunk, size: int, end: bool) -> None:
        self._outstanding += size
        self.moved += size
        super().push(chunk, size, end)
        if self._outstanding > HIGH and not self._paused:
            self._paused = True
            self.wire.pause()

    @property
    def awaited(self) -> bool:
        """Whether somebody wants the body, and more of it could come."""
        return not self.ended and not self._paused and self._first is None

    def credit(self, size: int) -> None:
        self._outstanding -= size
        if self._paused and self._outstanding <= HIGH // 2:
            self._paused = False
            self.wire.resume()

    def stop(self, failure: Failure | None) -> None:
        self.on_stop(failure)


class Http1Sink:
    """A body that goes out: by length, chunked, or until the connection closes."""

    __slots__ = ("_credit", "chunked", "ended", "sent", "source", "wire")

    def __init__(self, wire: Wire, *, chunked: bool) -> None:
        self.wire = wire
        self.chunked = chunked
        self.ended = False
        self.sent = 0
        self.source: Source | None = None
        self._credit = 0

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Send bytes; hold their credit while the socket is congested."""
        wire = self.wire
        self.sent += len(chunk)
        if len(chunk) and not self.ended:
            if self.chunked:
                wire.write(render.chunk_start(len(chunk)))
                wire.write(chunk)
                wire.write(b"\r\n")
            else:
                wire.write(chunk)
        self._credit += size
        if not wire.congested:
            self.release_credit()
        if end:
            self.end(())

    def release_credit(self) -> None:
        """The socket takes data: give back what was held."""
        size, self._credit = self._credit, 0
        if size and self.source is not None:
            self.source.credit(size)

    def end(self, trailers: Fields) -> None:
        """The end of the body."""
        if not self.ended:
            self.ended = True
            if self.chunked:
                self.wire.write(render.last_chunk(trailers))
            self.on_ended()

    def abort(self, failure: Failure) -> None:
        """End the connection within the message: the peer sees that it is incomplete."""
        if not self.ended:
            self.ended = True
            self.wire.close()
            self.on_ended()

    def on_ended(self) -> None:
        """For the roles."""
