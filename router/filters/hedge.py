"""Hedging: a second attempt while the first is still silent; the first good answer wins (gRFC A6, Finagle's backup requests).

Theory of operation

1. The first attempt is conducted as if there were no hedge; a timer is all that it costs. When the timer fires and no response
   has begun, a second exchange is made with the same request on a strand of its own, paid for by the retry budget.
2. The first response head that its classifier does not hold for a retry wins. The loser is cancelled at once: its stream is
   reset, its load returned. A response that is not good enough loses too, as long as the other attempt is under way.
3. When the second wins, the first attempt is thrown :class:`Lost`; the strand of the exchange then waits for the end of the
   second, whose response goes straight to the client's reply, and whose outcome becomes the exchange's.
4. What is hedged: requests without a body, and those whose body has ended within the replay buffer, whatever their method: who
   configures hedging says that his calls may be made twice.
5. Bounds: two attempts at a time; the last ``WINDOW`` latencies for the percentile.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import Any

import attrs

from router.filters.attempts import numbered
from router.filters.budget import Budget
from router.model.body import Chunk, FixedSource, Sink, Source
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, ResponseHead
from router.model.metrics import Metrics
from router.model.service import Service
from router.model.strand import Strand, Waiter
from router.model.verdict import SUCCESS

WINDOW = 1000
LEAST = 20  # latencies that must be known before a percentile means anything


class Lost(Failure):
    """The end of an attempt whose rival was better; nobody's fault."""

    def __init__(self) -> None:
        super().__init__(Kind.RESET, "another attempt was better", Blame.CLIENT)


@attrs.frozen
class HedgePolicy:
    """``delay``: seconds until the second attempt; or, where it is None, the ``percentile`` (0..100) of recent latencies."""

    delay: float | None = None
    percentile: float = 95.0


class Latencies:
    """The last ``WINDOW`` latencies, in seconds, in order of time and of size."""

    __slots__ = ("_recent", "_sorted")

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """Record one; the oldest makes room."""
        if len(self._recent) == WINDOW:
            self._sorted.remove(self._recent.popleft())
        self._recent.append(seconds)
        insort(self._sorted, seconds)

    def percentile(self, percent: float) -> float | None:
        """That percentile; None while too little is known."""
        if len(self._sorted) < LEAST:
            return None
        return self._sorted[min(len(self._sorted) - 1, int(len(self._sorted) * percent / 100))]


def hedge(policy: HedgePolicy | None, budget: Budget, metrics: Metrics, next_service: Service) -> Service:
    """Hedge by ``policy``; None: no layer."""
    if policy is None:
        return next_service
    scope = metrics.scope("hedges")
    shared = _Hedges(policy, budget, scope, next_service)
    latencies = shared.latencies

    async def hedge_service(exchange: Exchange) -> None:
        delay = policy.delay if policy.delay is not None else latencies.percentile(policy.percentile)
        if delay is None:
            await next_service(exchange)
        else:
            await _Race(shared, exchange).run(delay)
        if exchange.verdict is SUCCESS:
            latencies.add(exchange.responded_at - exchange.received_at)

    return hedge_service


class _Hedges:
    """What the exchanges of one logical name share."""

    def __init__(self, policy: HedgePolicy, budget: Budget, metrics: Metrics, next_service: Service) -> None:
        self.policy = policy
        self.budget = budget
        self.next_service = next_service
        self.latencies = Latencies()
        self.sent, self.won = metrics.counter("sent"), metrics.counter("won")
        self.exhausted, self.malformed = metrics.counter("budget_exhausted"), metrics.counter("malformed")


class _Race:
    """The attempts of one exchange."""

    __slots__ = ("_edits", "_exchange", "_first_is_over", "_gate", "_over", "_request", "_second", "_shared", "_strand")

    def __init__(self, shared: _Hedges, exchange: Exchange) -> None:
        self._shared = shared
        self._exchange = exchange
        self._request = exchange.request
        self._edits = list(exchange.edits or ())
        self._gate = exchange.gate
        self._first_is_over = False
        self._second: Exchange | None = None
        self._strand: Strand | None = None
        self._over: Waiter[Failure | None] = Waiter()

    async def run(self, delay: float) -> None:
        """Conduct the exchange with one attempt, or two."""
        exchange = self._exchange
        exchange.gate = self._first_responds
        timer = exchange.host.timers.after(delay, self._start)
        failure: Failure | None = None
        try:
            try:
                await self._shared.next_service(exchange)
            except Failure as error:
                failure = error
            self._first_is_over = True
            if self._second is not None and failure is not None and self._second_decides(failure):
                exchange.forget()
                failure = await self._over
                exchange.adopt(self._second)
        finally:
            timer.cancel()
            exchange.gate = self._gate
            self._cancel(self._strand)
        if failure is not None:
            raise failure

    def _second_decides(self, failure: Failure) -> bool:
        """Whether it is the second attempt on which the exchange depends, now that the first has failed."""
        if isinstance(failure, Lost):
            return True
        exchange = self._exchange
        return failure.blame is not Blame.CLIENT and not exchange.reply.started and exchange.now() < exchange.deadline

    # -- the second attempt ---------------------------------------------------------------------------------

    def _start(self, _: Any) -> None:
        exchange, shared = self._exchange, self._shared
        if exchange.response is not None or not _repeatable(exchange):
            return
        if not shared.budget.withdraw():
            shared.exhausted.value += 1
            return
        shared.sent.value += 1
        request = numbered(self._request, 1, shared.malformed)
        second = self._second = exchange.twin(request, self._edits, _body_again(exchange))
        second.gate = self._second_responds
        self._strand = second.strand = Strand(exchange.host, self._conduct(second))
        self._strand.start()

    async def _conduct(self, second: Exchange) -> None:
        failure: Failure | None = None
        try:
            await self._shared.next_service(second)
        except Failure as error:
            failure = error
        finally:
            second.close()
        self._over.wake(failure)

    def _cancel(self, strand: Strand | None) -> None:
        if strand is not None:
            strand.cancel(Lost())

    # -- responses ------------------------------------------------------------------------------------------

    def _first_responds(self, exchange: Exchange, head: ResponseHead, end: bool) -> Sink:
        return self._responds(exchange, head, end, None if self._over.woken else self._strand)

    def _second_responds(self, second: Exchange, head: ResponseHead, end: bool) -> Sink:
        return self._responds(second, head, end, None if self._first_is_over else self._exchange.strand)

    def _responds(self, attempt: Exchange, head: ResponseHead, end: bool, rival: Strand | None) -> Sink:
        """``attempt`` has a response. It wins over its ``rival``, if any, unless it is a failure that may be retried."""
        if rival is not None and attempt.classify.holds(attempt, head, end):
            self._cancel(attempt.strand)
            return _Nowhere()
        if attempt is self._second:
            self._shared.won.value += 1
        gate = self._gate
        sink = attempt.reply.start(head, end) if gate is None else gate(attempt, head, end)
        self._cancel(rival)
        return sink


class _Nowhere:
    """The sink of a response that nobody will see."""

    def __init__(self) -> None:
        self.source: Source | None = None

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Drop ``chunk``, credited."""
        if size and self.source is not None:
            self.source.credit(size)

    def end(self, trailers: Fields) -> None:
        """Drop the end."""

    def abort(self, failure: Failure) -> None:
        """Drop the failure."""


def _repeatable(exchange: Exchange) -> bool:
    body = exchange.body
    if body is None:
        return True
    replay = body.replay
    return replay is not None and not replay.spoiled and replay.end is not None


def _body_again(exchange: Exchange) -> Source | None:
    body = exchange.body
    if body is None or body.replay is None:
        return None
    return FixedSource(b"".join(body.replay.chunks), body.replay.end or ())
