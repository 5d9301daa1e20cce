"""A response that the client does not see yet, because its verdict may be that it is to be asked for again.

Theory of operation

1. A gate puts a :class:`Held` in the place of the reply's body. It keeps the head, up to ``room`` bytes of body, and the
   end. Bytes are credited as they are kept, so that no stream is stalled for want of window.
2. Whatever exceeds the room, or takes longer than ``patience`` seconds, lets the response go to the client; then it
   cannot be retried any more. A gRPC response also goes as soon as bytes of a message have come and the read that brought
   them did not bring the end: an answer that fails at once is one read, a stream must not wait for its second message. That
   read is over at the next look of a sweep, which nearly every response has ended before: only what has not waits longer.
3. Whoever conducts the exchange asks for the verdict when the response has ended, and lets it go or drops it.
"""

from __future__ import annotations

from router.model.body import Chunk, Sink, Source
from router.model.exchange import Exchange
from router.model.failure import Failure
from router.model.headers import Fields, ResponseHead
from router.model.metrics import Counter
from router.model.timers import Lane, Sweep, Timers

# Seconds, or up to twice as many, that the rest of a short gRPC answer may take behind its first bytes.
SAME_READ = 0.002


class Holding:
    """What the responses of one logical name have in common: ``room`` in bytes, ``patience`` in seconds, and the counters of
    those that went beyond."""

    __slots__ = ("patient", "room", "same_read", "too_late", "too_long")

    def __init__(self, timers: Timers, room: int, patience: float, too_long: Counter, too_late: Counter) -> None:
        self.room = room
        self.too_long, self.too_late = too_long, too_late
        self.patient: Lane[Held] = Lane(timers, patience, Held.expire)
        self.same_read: Sweep[Held] = Sweep(timers, SAME_READ, Held.look)


class Held:
    """The sink of a response that is held back."""

    __slots__ = ("_chunks", "_ended", "_exchange", "_head", "_holding", "_room", "_trailers", "source", "waits")

    def __init__(self, exchange: Exchange, head: ResponseHead, end: bool, holding: Holding) -> None:
        self.source: Source | None = None
        self._exchange = exchange
        self._head = head
        self._holding = holding
        self._room = holding.room
        self._chunks: list[bytes] = []
        self._trailers: Fields = ()
        self._ended = end
        self.waits = not end
        if exchange.request.grpc:
            if not end:
                sweep = holding.same_read
                if sweep.runs:
                    sweep.newer.append(self)
                else:
                    sweep.add(self)
        elif not end:
            holding.patient.add(self)

    # -- the sink -------------------------------------------------------------------------------------------

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Keep ``chunk``, or let everything go."""
        source = self.source
        if size and source is not None:
            source.credit(size)
        self._chunks.append(chunk if isinstance(chunk, bytes) else bytes(chunk))
        self._room -= len(chunk)
        if end:
            self.end(())
        elif self._room < 0:
            self._holding.too_long.value += 1
            self.release()
        elif self in self._holding.patient.waiting and self._exchange.request.grpc:
            del self._holding.patient.waiting[self]
            self._holding.same_read.add(self)

    def end(self, trailers: Fields) -> None:
        """The end, with trailers if there are any."""
        self._ended = True
        self._trailers = trailers
        if self.waits:  # written out: this is how nearly every one ends
            self.waits = False
            self._holding.patient.waiting.pop(self, None)

    def abort(self, failure: Failure) -> None:
        """The response broke off: its attempt fails, and what is held is worth nothing."""
        self.drop()

    def look(self) -> None:
        """The read that brought the head, or the first bytes of a message, is over."""
        if not self.waits:
            return
        if self._chunks:
            self.expire()
        else:
            self._holding.patient.add(self)

    def expire(self) -> None:
        """It took too long."""
        self._holding.too_late.value += 1
        self.release()

    # -- the decision ---------------------------------------------------------------------------------------

    def drop(self) -> None:
        """Wait for nothing more."""
        if self.waits:
            self.waits = False
            self._holding.patient.waiting.pop(self, None)

    def release(self) -> None:
        """Send what is held to the client; the rest follows on its own."""
        if self.waits:
            self.drop()
        exchange = self._exchange
        exchange.held = None
        if exchange.body is not None:
            exchange.body.replay = None
        chunks, trailers = self._chunks, self._trailers
        if not self._ended:
            self._commit(exchange.reply.start(self._head, False))
        elif trailers or chunks:
            out = exchange.reply.start(self._head, False)
            last = 0 if trailers else len(chunks)
            for at, chunk in enumerate(chunks, 1):
                out.data(chunk, 0, at == last)
            if trailers:
                out.end(trailers)
        else:
            exchange.reply.start(self._head, True)

    def _commit(self, out: Sink) -> None:
        """The response goes on: from now on to ``out``."""
        for chunk in self._chunks:
            out.data(chunk, 0, False)
        source, self.source = self.source, None
        if source is not None:
            source.join(out)
