"""Counters and latency of a server, a service (logical name) or a client (bound name), by Linkerd's names.

``requests``, ``success``, ``failures``, ``pending``, ``request_latency_ms``, ``status/200``, ``status/2XX``, and ``cancelled``
for exchanges that ended because of the client, which say nothing about who was to answer.
"""

from __future__ import annotations

from collections.abc import Callable

from router.filters.admission import Gate
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.metrics import Counter, Metrics
from router.model.service import Conducting, Service
from router.model.verdict import SUCCESS, Classifier

Missed = Callable[[Exchange, Failure], None]


def stats(
    metrics: Metrics,
    next_service: Service,
    gate: Gate | None = None,
    *,
    admitted: bool = False,
    missed: Missed | None = None,
) -> Service:
    """Count what passes through, judged by the exchange's own classifier: that of its logical name, once it has one.

    One coroutine serves what else there is to do when an exchange is over. ``gate``: what has entered by it gives its place
    back here (:func:`router.filters.admission.entrance`); ``admitted``: so does what has a place of its own
    (:func:`~router.filters.admission.admission`). ``missed`` is told of those whose deadline has passed.
    """
    requests, success = metrics.counter("requests"), metrics.counter("success")
    failures, cancelled = metrics.counter("failures"), metrics.counter("cancelled")
    pending, observe = metrics.gauge("pending"), metrics.stat("request_latency_ms").add
    statuses = _Statuses(metrics)

    async def stats_service(exchange: Exchange) -> None:
        pending.value += 1
        now = exchange.host.timers.now
        started = now()
        failure: Failure | None = None
        try:
            await next_service(exchange)
        except Failure as error:
            failure = error
            if exchange.failure is None:
                exchange.failure = error
            if missed is not None and error.kind is Kind.DEADLINE:
                missed(exchange, error)
            raise
        finally:
            if gate is not None:
                gate.leave()
            elif admitted and exchange.place is not None:
                exchange.place.leave()
            pending.value -= 1
            requests.value += 1
            observe((now() - started) * 1000.0)
            if (exchange.judged or exchange.verdict) is SUCCESS:
                success.value += 1
            elif failure is not None and failure.blame is Blame.CLIENT:
                cancelled.value += 1
            else:
                failures.value += 1
            response = exchange.response
            if response is not None:
                statuses[response.status].value += 1

    return stats_service


def classified(classify: Classifier, next_service: Service) -> Service:
    """Have the exchange judged by ``classify`` from here on."""

    def classified_service(exchange: Exchange) -> Conducting:
        exchange.classify = classify
        return next_service(exchange)

    return classified_service


class _Statuses(dict[int, Counter]):
    """The counter of a status, made when it first occurs; statuses have three digits, which bounds them. The counter of its
    class (``2XX``) is the sum of them, made when somebody looks."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics.scope("status")

    def __missing__(self, status: int) -> Counter:
        counter = self[status] = self._metrics.counter(str(status))
        first = status // 100
        self._metrics.total(f"{first}XX", lambda: sum(one.value for code, one in self.items() if code // 100 == first))
        return counter
