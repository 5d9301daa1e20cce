"""A response that the client does not see yet, because its verdict may be that it is to be asked for again.

Theory of operation

1. A gate puts a :class:`Held` in the place of the reply's body. It keeps the head, up to ``room`` bytes of body, and the
   end. Bytes are credited as they are kept, so that no stream is stalled for want of window.
2. Whatever exceeds the room, or takes longer than ``patience`` seconds, lets the response go to the client; then it
   cannot be retried any more. A gRPC response also goes as soon as bytes of a message have come and neither the read that
   brought them nor the ``BRIEF`` time behind it brought the end: an answer that fails at once is one read, a stream must not
   wait for its second message. That read is over at the end of the turn, and so is nearly every response: only one that is
   not waits in a lane.
3. Whoever conducts the exchange asks for the verdict when the response has ended, and lets it go or drops it.
"""

from __future__ import annotations

from router.model.body import Chunk, Sink, Source
from router.model.exchange import Exchange
from router.model.failure import Failure
from router.model.headers import Fields, ResponseHead
from router.model.host import Host
from router.model.metrics import Counter
from router.model.timers import Lane

BRIEF = 0.002  # seconds


class Holding:
    """What the responses of one logical name have in common: ``room`` in bytes, ``patience`` in seconds, and the counters of
    those that went beyond."""

    __slots__ = ("brief", "patient", "room", "too_late", "too_long", "turn")

    def __init__(self, host: Host, room: int, patience: float, too_long: Counter, too_late: Counter) -> None:
        self.room = room
        self.too_long, self.too_late = too_long, too_late
        self.patient: Lane[Held] = Lane(host.timers, patience, Held.expire)
        self.brief: Lane[Held] = Lane(host.timers, BRIEF, Held.expire)
        self.turn = host.turn


class Held:
    """The sink of a response that is held back."""

    __slots__ = ("_chunks", "_exchange", "_head", "_holding", "_lane", "_room", "_trailers", "source", "waits")

    def __init__(self, exchange: Exchange, head: ResponseHead, end: bool, holding: Holding) -> None:
        self.source: Source | None = None
        self._exchange = exchange
        self._head = head
        self._holding = holding
        self._room = holding.room
        self._chunks: list[bytes] = []
        self._trailers: Fields | None = () if end else None  # None: it has not ended
        self.waits = not end
        self._lane: Lane[Held] | None = None  # where it waits
        if end:
            return
        if not exchange.request.grpc:
            self._wait(holding.patient)
            return
        turn = holding.turn
        if turn.running:
            turn.late.append(self)
        else:
            turn.add(self)

    # -- the sink -------------------------------------------------------------------------------------------

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Keep ``chunk``, or let everything go."""
        if size and self.source is not None:
            self.source.credit(size)
        self._chunks.append(chunk if chunk.__class__ is bytes else bytes(chunk))
        self._room -= len(chunk)
        if end:
            self.end(())
        elif self._room < 0:
            self._holding.too_long.value += 1
            self.release()
        elif self._lane is self._holding.patient and self._exchange.request.grpc:
            self._lane = None
            del self._holding.patient.waiting[self]
            self._holding.turn.add(self)

    def end(self, trailers: Fields) -> None:
        """The end, with trailers if there are any."""
        self._trailers = trailers
        self.waits = False
        if self._lane is not None:
            self._lane.waiting.pop(self, None)

    def abort(self, failure: Failure) -> None:
        """The response broke off: its attempt fails, and what is held is worth nothing."""
        self.drop()

    def look(self) -> None:
        """The read that brought the head, or the first bytes of a message, is over."""
        if self.waits:
            self._wait(self._holding.brief if self._chunks else self._holding.patient)

    def _wait(self, lane: Lane[Held]) -> None:
        self._lane = lane
        lane.add(self)

    def expire(self) -> None:
        """It took too long."""
        self._holding.too_late.value += 1
        self.release()

    # -- the decision ---------------------------------------------------------------------------------------

    def drop(self) -> None:
        """Wait for nothing more."""
        self.waits = False
        if self._lane is not None:
            self._lane.waiting.pop(self, None)

    def release(self) -> None:
        """Send what is held to the client; the rest follows on its own."""
        if self.waits:
            self.drop()
        exchange, chunks, trailers = self._exchange, self._chunks, self._trailers
        exchange.held = None
        if exchange.body is not None:
            exchange.body.replay = None
        if not chunks and trailers == ():
            exchange.reply.start(self._head, True)
            return
        out = exchange.reply.start(self._head, False)
        last = None if trailers or trailers is None else chunks.pop()
        for chunk in chunks:
            out.data(chunk, 0, False)
        if trailers:
            out.end(trailers)
        elif last is not None:
            out.data(last, 0, True)
        else:
            self._commit(out)

    def _commit(self, out: Sink) -> None:
        """What comes from now on goes to ``out``."""
        source, self.source = self.source, None
        if source is not None:
            source.join(out)
