"""One HTTP/2 stream: the receiving half is a source, the sending half a sink (RFC 9113 §5).

Theory of operation

1. Stream states are two flags: ``recv_closed`` (the peer has ended or reset its half) and ``send_closed`` (we have).
   A stream is in ``connection.streams`` until both are set.
2. Sending: data goes out at once when nothing is queued, both windows allow it and the connection is not congested.
   Otherwise it is queued, in order, with the end behind it. What is queued was not accepted, hence not credited: the
   queue is bounded by the window that the *other* connection gave to its peer.
3. Receiving: credit comes back through :meth:`credit`. A WINDOW_UPDATE is due when what may be given back is at least
   what the peer has left: half a window while the bytes flow, at once when the peer is starved.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes

from protocols.http2 import frames
from protocols.http2.limits import TINY
from router.model.body import Chunk, Source
from router.model.failure import Failure
from router.model.headers import Fields

if TYPE_CHECKING:
    from protocols.http2.state import ConnectionState

# Up to this size header and payload are joined into one bytes object; above it copying costs more than another buffer.
_JOIN = 4096


class Stream(Source):
    """Both halves of a stream. Servers and clients add what their role has."""

    __slots__ = ("_end", "_queue", "_unacked", "conn", "expected", "granted", "id", "pumped", "recv_closed",
                 "recv_window", "send_closed", "send_window", "sent", "source")  # fmt: skip

    def __init__(self, conn: ConnectionState, stream_id: int) -> None:
        self.sink = None
        self.ended = False
        self.pushed = self.sent = 0
        self._held = None
        self._pending_end = None
        self.replay = None
        self.conn = conn
        self.id = stream_id
        self.recv_window = conn.local_window
        self.send_window = conn.peer_window
        self.recv_closed = False
        self.send_closed = False
        self.source: Source | None = None
        self.expected: int | None = None  # bytes that Content-Length still announces
        self.granted = 0  # bytes of credit that the peer got beyond its first window
        self.pumped = 0  # bytes that had to wait and were sent
        self._unacked = 0
        self._queue: deque[tuple[Chunk, int]] | None = None
        self._end: Fields | None = None  # trailers to send behind the queue

    # -- the sending half -----------------------------------------------------------------------------------

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Send ``chunk``, or queue it; credit ``size`` to the source when it is on its way."""
        conn = self.conn
        length = len(chunk)
        self.sent += length
        if (
            self._queue is None
            and length <= self.send_window
            and length <= conn.send_window
            and length <= conn.peer_frame
            and not conn.wire.congested
            and not self.send_closed
        ):
            self.send_window -= length
            conn.send_window -= length
            conn.sent_frames += 1
            frame = frames.pack_head(length >> 8, length & 0xFF, frames.DATA, 1 if end else 0, self.id)
            if length <= _JOIN:
                conn.wire.write(frame + chunk)
            else:
                conn.wire.write_pair(frame, chunk)
            source = self.source  # the end may release the exchange, and with it the source
            if end:
                self._sent_end()
            if source is not None and size:
                source.credit(size)
        elif not self.send_closed:
            self._enqueue(chunk, size, end)
        elif self.source is not None:
            self.source.credit(size)

    def end(self, trailers: Fields) -> None:
        """End this half, with trailers if there are any, behind what is queued."""
        if self.send_closed or self._end is not None:
            return
        if self._queue is not None:
            self._end = trailers
        else:
            self._write_end(trailers)

    def abort(self, failure: Failure) -> None:
        """Reset the stream: the peer must see that this half is incomplete."""
        if not self.send_closed:
            self.reset(failure.answer.h2)

    def _write_end(self, trailers: Fields) -> None:
        if trailers:
            self.conn.write_headers(self.id, trailers, end=True)
        else:
            self.conn.wire.write(frames.head(0, frames.DATA, frames.END_STREAM, self.id))
        self._sent_end()

    def _sent_end(self) -> None:
        self.send_closed = True
        if self.recv_closed:
            self.conn.forget(self)
        self.left()

    def _enqueue(self, chunk: Chunk, size: int, end: bool) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append((chunk, size))
        if end:
            self._end = ()
        self.pump()

    def pump(self) -> None:
        """Send what is queued as far as the windows allow; stay in ``connection.blocked`` while something is left."""
        conn = self.conn
        queue = self._queue
        if queue is None or self.send_closed:
            conn.blocked.pop(self.id, None)
            return
        while queue:
            chunk, size = queue[0]
            room = min(self.send_window, conn.send_window, conn.peer_frame)
            if len(chunk) > max(room, 0) and (room <= 0 or conn.wire.congested):
                break
            if conn.wire.congested and len(chunk):
                break
            if len(chunk) > room > 0:
                if room < TINY:
                    conn.cut_short()
                queue[0] = (memoryview(chunk)[room:], size)
                self._write_data(memoryview(chunk)[:room], end=False)
                continue
            queue.popleft()
            source = self.source
            self._write_data(chunk, end=not queue and self._end == ())
            if source is not None and size:
                source.credit(size)
        if queue:
            self._wait()
        else:
            self._queue = None
            conn.blocked.pop(self.id, None)
            if self._end is not None and not self.send_closed:
                self._write_end(self._end)

    def _wait(self) -> None:
        """Be asked again: by our own WINDOW_UPDATE, or, where that is not what we lack, by the connection."""
        if self.send_window > 0:
            self.conn.blocked[self.id] = self
        else:
            self.conn.blocked.pop(self.id, None)

    def _write_data(self, chunk: Chunk, *, end: bool) -> None:
        length = len(chunk)
        self.send_window -= length
        self.conn.send_window -= length
        self.conn.sent_frames += 1
        self.pumped += length
        self.conn.wire.write(frames.head(length, frames.DATA, 1 if end else 0, self.id))
        if length:
            self.conn.wire.write(chunk)
        if end:
            self._sent_end()

    def queued(self) -> bool:
        """Whether something waits for window or for the socket."""
        return self._queue is not None

    # -- the receiving half ---------------------------------------------------------------------------------

    def credit(self, size: int) -> None:
        """``size`` bytes were accepted on the other side: let the peer send as many more."""
        conn = self.conn
        unacked = conn.unacked + size  # conn.credit(size), for each frame
        if unacked >= conn.recv_window:
            conn.credit(size)
        else:
            conn.unacked = unacked
        if self.recv_closed:
            return
        unacked = self._unacked + size
        if unacked >= self.recv_window:
            conn.wire.write(frames.window_update(self.id, unacked))
            self.recv_window += unacked
            self.granted += unacked
            unacked = 0
        self._unacked = unacked

    @property
    def received(self) -> int:
        """Bytes that flow control counted so far."""
        return self.conn.local_window + self.granted - self.recv_window

    def stop(self, failure: Failure | None) -> None:
        """Nobody wants the rest."""
        if not self.recv_closed:
            self.reset(ErrorCodes.NO_ERROR if failure is None else failure.answer.h2)

    def unjoin(self) -> None:
        """See :meth:`Source.unjoin`; what was held and never read is credited to the connection."""
        if self._held:
            self.conn.credit(self.held())
        super().unjoin()

    # -- the end --------------------------------------------------------------------------------------------

    def reset(self, code: int) -> None:
        """Send RST_STREAM and forget the stream; frames of it that are under way will be ignored."""
        if self.recv_closed and self.send_closed:
            return
        self.conn.wire.write(frames.rst_stream(self.id, code))
        self.conn.remember_reset(self.id)
        self._drop()

    def _drop(self) -> None:
        self.recv_closed = True
        self.send_closed = True
        self.conn.forget(self)
        queue, self._queue = self._queue, None
        if queue and self.source is not None:
            for _, size in queue:
                self.source.credit(size)
        self.left()

    def was_reset(self, failure: Failure) -> None:
        """The peer reset the stream, or the connection died under it."""
        self._drop()
        self.broken(failure)

    # -- for the roles --------------------------------------------------------------------------------------

    def left(self) -> None:
        """The sending half has ended and everything of it was written."""

    def broken(self, failure: Failure) -> None:
        """The stream ended before its time."""
        raise NotImplementedError
