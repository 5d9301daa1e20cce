"""Sending a request again: for certain where it never arrived, by policy where its classifier says so.

Theory of operation

1. ``requeue`` (client stack) repeats what was provably not processed: a connection that could not be opened, a stream that was
   refused, or one above the last id of a GOAWAY. Once for nothing, on another endpoint if there is one (gRFC A6's
   transparent retry); after that from the client's requeue budget, while there are endpoints that were not tried.
2. ``retry`` (path stack) repeats what the classifier calls RETRYABLE, while nothing of a response has gone to the client, the
   request's body is still in its replay buffer, the budget has a retry left, the endpoint did not push back, and the
   next attempt can be over before the deadline. Attempts run one after the other: one has ended completely, its
   stream reset and its loads returned, before the next begins.
3. A response commits the exchange when its head comes, except where the classifier ``holds`` it (:mod:`router.filters.hold`).
4. The wait before a retry is what the endpoint asked for (``grpc-retry-pushback-ms``, ``Retry-After``), else the back-off's. A
   negative or malformed pushback means no (gRFC A6), and so does a wait that is too long to be held for.
5. Bounds: ``max_retries`` retries an exchange whatever the budget; ``MAX_REQUEUES``; ``request_bytes`` of request and
   ``response_bytes`` of response kept per exchange.

Linkerd 1.x has the same two layers. It requeues from the budget only, replays no refused streams, and bounds the retries of
one request by the whole budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

import attrs

from router.filters.attempts import numbered
from router.filters.budget import Budget
from router.filters.hold import Held, Holding
from router.filters.pushback import asked_wait
from router.model.backoff import Backoff
from router.model.body import Sink
from router.model.exchange import Exchange
from router.model.failure import Failure, Kind
from router.model.headers import RequestHead, ResponseHead
from router.model.metrics import Counter, Metrics
from router.model.service import Service
from router.model.strand import Waiter
from router.model.verdict import RETRYABLE, SUCCESS, Classifier

MAX_REQUEUES = 25
_NEVER_SENT = frozenset((Kind.CONNECT, Kind.RESET))
_LEARN = 0.05  # weight of the newest exchange in the typical time to a response


@attrs.frozen
class RetryPolicy:
    """``backoff``: waits between attempts, in seconds. ``patience``: seconds for which a response is held at most."""

    backoff: Backoff
    max_retries: int = 24
    request_bytes: int = 16383
    response_bytes: int = 16383
    patience: float = 0.1


def requeue(budget: Budget, metrics: Metrics, endpoints: Callable[[], int], next_service: Service) -> Service:
    """Repeat what never arrived. ``endpoints``: how many there are."""
    scope = metrics.scope("retries")
    scope.gauge("budget", lambda: budget.balance)
    requeues, exhausted = scope.counter("requeues"), scope.counter("budget_exhausted")
    limited, cannot = scope.counter("request_limit"), scope.counter("cannot_retry")

    def again(exchange: Exchange, failure: Failure, done: int) -> bool:
        if not failure.retryable or failure.rejected or failure.kind not in _NEVER_SENT or exchange.reply.started:
            return False
        if not _replayable(exchange):
            cannot.value += 1
        elif done >= MAX_REQUEUES or (done and len(exchange.tried) + 1 >= endpoints()):
            limited.value += 1
        elif done and not budget.withdraw():
            exhausted.value += 1
        else:
            requeues.value += 1
            return True
        return False

    async def requeue_service(exchange: Exchange) -> None:
        budget.deposit(exchange.received_at)
        request = exchange.request
        edits = len(exchange.edits or ())
        done = 0
        while True:
            try:
                return await next_service(exchange)
            except Failure as failure:
                if not again(exchange, failure, done):
                    raise
            done += 1
            exchange.renew(request, edits)

    return requeue_service


def retry(policy: RetryPolicy, budget: Budget, classify: Classifier, metrics: Metrics, next_service: Service) -> Service:
    """Repeat what the classifier calls RETRYABLE."""
    shared = _Retries(policy, budget, classify, metrics)
    observe, gate, room = shared.per_request.add, shared.gate, policy.request_bytes

    async def retry_service(exchange: Exchange) -> None:
        budget.deposit(exchange.received_at)
        body = exchange.body
        if body is not None:
            body.keep(room)
        exchange.gate = gate
        request = exchange.request
        edits = exchange.edits
        kept = 0 if edits is None else len(edits)
        failure: Failure | None = None
        try:
            await next_service(exchange)
        except Failure as error:
            failure = error
        held = exchange.held
        if failure is None and held is not None and (exchange.judged or exchange.verdict) is SUCCESS:
            held.release()
        elif failure is not None or held is not None:
            try:
                failure = await shared.decide(exchange, failure, request, kept, next_service)
            finally:
                shared.drop(exchange)
        observe(exchange.retries)
        if failure is not None:
            raise failure
        if exchange.deadline != inf and exchange.judged is SUCCESS:  # how long that takes is worth knowing
            shared.typical += (exchange.responded_at - exchange.received_at - shared.typical) * _LEARN

    return retry_service


class _Retries:
    """What the exchanges of one logical name share."""

    def __init__(self, policy: RetryPolicy, budget: Budget, classify: Classifier, metrics: Metrics) -> None:
        self._policy = policy
        self._budget = budget
        self._holds = classify.holds
        scope = metrics.scope("retries")
        scope.gauge("budget", lambda: budget.balance)
        self.per_request = scope.stat("per_request")
        self._total, self._exhausted = scope.counter("total"), scope.counter("budget_exhausted")
        self._limited, self._no_time = scope.counter("request_limit"), scope.counter("deadline")
        self._malformed = scope.counter("malformed")
        self._pushed, self._too_long = scope.counter("pushback"), scope.counter("request_stream_too_long")
        self._counters = scope.counter("response_stream_too_long"), scope.counter("classification_timeout")
        self._holding: Holding | None = None
        self.typical = 0.0  # seconds to a good response

    async def decide(
        self, exchange: Exchange, failure: Failure | None, request: RequestHead, edits: int, next_service: Service
    ) -> Failure | None:
        """After an attempt that was not simply good: attempt until one is, or must be the last; returns how that failed."""
        waits = self._policy.backoff()
        while failure is not None or exchange.held is not None:
            if exchange.failure is None:
                exchange.failure = failure
            wait = self.wait(exchange, waits)
            if wait is None:
                if failure is not None or exchange.verdict is not SUCCESS:
                    self._budget.revoke(exchange.received_at)
                if failure is None:
                    exchange.held.release()
                return failure
            self.drop(exchange)
            exchange.stop_waiting()
            if wait > 0:
                await _sleep(exchange, wait)
            exchange.retries += 1
            exchange.renew(numbered(request, exchange.retries, self._malformed), edits)
            failure = None
            try:
                await next_service(exchange)
            except Failure as error:
                failure = error
        return None

    def gate(self, exchange: Exchange, head: ResponseHead, end: bool) -> Sink:
        """See :data:`router.model.exchange.Gate`."""
        body = exchange.body
        if self._holds(exchange, head, end):
            may = (body is None or (body.replay is not None and not body.replay.spoiled)) and self._budget.allows()
            if may and exchange.retries < self._policy.max_retries:
                holding = self._holding
                if holding is None:  # the first exchange brings the clock
                    policy = self._policy
                    holding = self._holding = Holding(exchange.host, policy.response_bytes, policy.patience, *self._counters)
                exchange.held = held = Held(exchange, head, end, holding)
                return held
            refused = self._why_not(exchange)
            if refused is not None:
                refused.value += 1
        if body is not None:
            body.replay = None
        return exchange.reply.start(head, end)

    def wait(self, exchange: Exchange, waits: Iterator[float]) -> float | None:
        """How long to wait before another attempt, in seconds; None where there must not be one."""
        if exchange.reply.started or exchange.verdict is not RETRYABLE:
            return None
        refused = self._why_not(exchange)
        if refused is not None:
            refused.value += 1
            return None
        asked = asked_wait(exchange, self._malformed)
        wait = next(waits) if asked is None else asked
        if wait < 0:
            self._pushed.value += 1
            return None
        if exchange.now() + wait + self.typical >= exchange.deadline:
            self._no_time.value += 1
            return None
        if not self._budget.withdraw():
            self._exhausted.value += 1
            return None
        self._total.value += 1
        return wait

    def _why_not(self, exchange: Exchange) -> Counter | None:
        """What counts the reason why there can be no further attempt."""
        if not _replayable(exchange):
            return self._too_long
        if exchange.retries >= self._policy.max_retries:
            return self._limited
        return None if self._budget.allows() else self._exhausted

    def drop(self, exchange: Exchange) -> None:
        """What is held is worth nothing."""
        held, exchange.held = exchange.held, None
        if held is not None:
            held.drop()


def _replayable(exchange: Exchange) -> bool:
    body = exchange.body
    return body is None or (body.replay is not None and not body.replay.spoiled)


async def _sleep(exchange: Exchange, seconds: float) -> None:
    waiter: Waiter[None] = Waiter()
    timer = exchange.host.timers.after(seconds, waiter.wake)
    try:
        await waiter
    finally:
        timer.cancel()
