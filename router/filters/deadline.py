"""Deadlines that come with a request or belong to the router, and what the endpoint is told of them.

Theory of operation

1. Every limit of the whole exchange tightens one deadline (:meth:`Exchange.tighten`), so that the strictest wins: the client's
   (``l5d-ctx-deadline``; gRPC's own header is read by :mod:`protocols.grpc.deadline`), the logical name's (``route``) and the
   router's (both by :mod:`router.filters.timeout`). Each counts from the first byte of the request's head; the cause of the
   one that won goes with the failure.
2. ``l5d-ctx-deadline`` is ``<timestamp> <deadline>`` in nanoseconds of the epoch. Of several the earliest deadline holds. What
   cannot be read is ignored and counted.
3. Absolute times presume clocks that agree. A deadline that had passed when its request came is believed, and the request
   refused, only within a budget (a fifth of the requests with deadlines, and one a second); beyond it the header is ignored,
   since a clock that is off must not take a whole service down (Finagle's DeadlineFilter has a guard of that kind).
4. An attempt is not begun without time left. Endpoints are told the deadline; those that speak gRPC by ``grpc-timeout``, and by
   this header only when the client used it.
"""

from __future__ import annotations

import re
from math import inf

import attrs

from router.filters.budget import Budget, BudgetConfig
from router.model.exchange import Exchange, deadline_failure
from router.model.failure import Failure
from router.model.metrics import Counter, Metrics
from router.model.service import Conducting, Service

CTX_DEADLINE = b"l5d-ctx-deadline"
TELL_EVERY = 10.0  # seconds between two events about the same cause
SKEW = BudgetConfig(min_retries_per_sec=1, percent_can_retry=0.2, ttl_secs=10)
_read = re.compile(rb"([0-9]{1,19}) ([0-9]{1,19})").fullmatch


@attrs.frozen
class DeadlineConfig:
    """``status``: what HTTP clients get when time is out; 503
    is Linkerd's, and resets the streams of HTTP/2, as Linkerd does; 504 is answered as a status on both."""

    status: int = 503


def deadline_in(deadlines: Deadlines, next_service: Service) -> Service:
    """Tighten by the client's header."""

    def deadline_service(exchange: Exchange) -> Conducting:
        if exchange.request.get(CTX_DEADLINE) is not None:
            deadlines.read(exchange)
        return next_service(exchange)

    return deadline_service


class Deadlines:
    """What the exchanges of one server share; ``missed`` is told of each that had no time left."""

    def __init__(self, config: DeadlineConfig, metrics: Metrics) -> None:
        self._status = config.status if config.status != 503 else None
        self._metrics = metrics.scope("deadline")
        self._malformed = self._metrics.counter("malformed")
        self._skewed = self._metrics.counter("skewed")
        self._causes: dict[str, Counter] = {}
        self._told: dict[str, tuple[float, int]] = {}
        self._budget: Budget | None = None

    def read(self, exchange: Exchange) -> None:
        """Tighten the exchange by its header."""
        values = exchange.request.get_all(CTX_DEADLINE)
        pairs = [match for match in map(_read, values) if match is not None]
        self._malformed.value += len(values) - len(pairs)
        if not pairs:
            _forget(exchange)
            return
        now = exchange.now()  # before the time of day: what passes between the two is not given away
        left = (min(int(match[2]) for match in pairs) - exchange.host.wall_ns()) / 1e9
        budget = self._budget
        if budget is None:
            budget = self._budget = Budget(SKEW, exchange.now)
        budget.deposit(now)
        if left > 0:
            exchange.tighten(now + left, "client")
        elif budget.withdraw():
            raise deadline_failure("client", 0.0)
        else:
            self._skewed.value += 1
            _forget(exchange)

    def missed(self, exchange: Exchange, failure: Failure) -> None:
        """Count which deadlines were missed, and tell now and then; sets the status of the answer."""
        failure.status = self._status
        cause = failure.cause
        counter = self._causes.get(cause)
        if counter is None:
            counter = self._causes[cause] = self._metrics.counter(cause)
        counter.value += 1
        now = exchange.now()
        told, before = self._told.get(cause, (-inf, 0))
        if now - told >= TELL_EVERY:
            self._told[cause] = (now, counter.value)
            path = exchange.path.show() if exchange.path is not None else "?"
            exchange.host.events.warn("deadline_exceeded", cause=cause, path=path, times=counter.value - before)


def _forget(exchange: Exchange) -> None:
    """Nobody is told what we do not believe."""
    head = exchange.request
    exchange.request = head.with_fields(tuple([field for field in head.fields if field[0] != CTX_DEADLINE]))
    exchange.request.shared = False


def deadline_out(next_service: Service) -> Service:
    """Begin nothing that has no time left, and tell the endpoint how much there is."""

    def deadline_out_service(exchange: Exchange) -> Conducting:
        if exchange.deadline != inf:
            left = exchange.deadline - exchange.host.timers.now()
            if left <= 0:
                raise deadline_failure(exchange.deadline_cause, exchange.deadline - exchange.received_at)
            head = exchange.request
            if not head.grpc or head.get(CTX_DEADLINE) is not None:
                wall = exchange.host.wall_ns()
                left = exchange.deadline - exchange.now()  # behind the time of day: what passes between them is not given away
                fields = [field for field in head.fields if field[0] != CTX_DEADLINE]
                fields.append((CTX_DEADLINE, b"%d %d" % (wall, wall + int(left * 1e6) * 1000)))
                exchange.request = head.with_fields(tuple(fields))
                exchange.request.shared = False
        return next_service(exchange)

    return deadline_out_service
