"""A response that the client does not see yet, because its verdict may be that it is to be asked for again.

Theory of operation

1. A gate puts a :class:`Held` in the place of the reply's body. It keeps the head, up to ``room`` bytes of body, and the
   end. Bytes are credited as they are kept, so that no stream is stalled for want of window.
2. Whatever exceeds the room, or takes longer than ``patience`` seconds, lets the response go to the client; then it
   cannot be retried any more. A gRPC response also goes as soon as bytes of a message have come and the read that brought
   them did not bring the end: an answer that fails at once is one read, a stream must not wait for its second message.
3. Whoever conducts the exchange asks for the verdict when the response has ended, and lets it go or drops it.
"""

from __future__ import annotations

from typing import Any

import attrs

from router.model.body import Chunk, Source
from router.model.exchange import Exchange
from router.model.failure import Failure
from router.model.headers import Fields, ResponseHead
from router.model.metrics import Counter

# Seconds that the rest of a short gRPC answer may take behind its first bytes.
SAME_READ = 0.002


@attrs.frozen
class Limits:
    """``room``: bytes; ``patience``: seconds; and what counts the responses that went beyond."""

    room: int
    patience: float
    too_long: Counter
    too_late: Counter


class Held:
    """The sink of a response that is held back."""

    __slots__ = ("_chunks", "_ended", "_exchange", "_head", "_limits", "_room", "_timer", "_trailers", "source")

    def __init__(self, exchange: Exchange, head: ResponseHead, end: bool, limits: Limits) -> None:
        self.source: Source | None = None
        self._exchange = exchange
        self._head = head
        self._limits = limits
        self._room = limits.room
        self._chunks: list[bytes] = []
        self._trailers: Fields = ()
        self._ended = end
        self._timer: Any = None if end else exchange.host.timers.after(limits.patience, self._expire)

    # -- the sink -------------------------------------------------------------------------------------------

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Keep ``chunk``, or let everything go."""
        source = self.source
        if size and source is not None:
            source.credit(size)
        first = not self._chunks
        self._chunks.append(chunk if isinstance(chunk, bytes) else bytes(chunk))
        self._room -= len(chunk)
        if end:
            self._end(())
        elif self._room < 0:
            self._limits.too_long.value += 1
            self.release()
        elif first and self._exchange.request.grpc:
            self._timer.cancel()
            self._timer = self._exchange.host.timers.after(SAME_READ, self._expire)

    def end(self, trailers: Fields) -> None:
        """The end, with trailers if there are any."""
        self._end(trailers)

    def abort(self, failure: Failure) -> None:
        """The response broke off: its attempt fails, and what is held is worth nothing."""
        self.drop()

    def _end(self, trailers: Fields) -> None:
        self._ended = True
        self._trailers = trailers
        self.drop()

    def _expire(self, _: Any) -> None:
        self._limits.too_late.value += 1
        self.release()

    # -- the decision ---------------------------------------------------------------------------------------

    def drop(self) -> None:
        """Wait for nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def release(self) -> None:
        """Send what is held to the client; the rest follows on its own."""
        self.drop()
        exchange = self._exchange
        exchange.held = None
        if exchange.body is not None:
            exchange.body.replay = None
        chunks, last = self._chunks, len(self._chunks) - 1
        bare = self._ended and not chunks and not self._trailers
        out = exchange.reply.start(self._head, bare)
        for at, chunk in enumerate(chunks):
            out.data(chunk, 0, at == last and self._ended and not self._trailers)
        if self._trailers or (self._ended and not chunks and not bare):
            out.end(self._trailers)
        elif not self._ended and self.source is not None:
            source, self.source = self.source, None
            source.join(out)
