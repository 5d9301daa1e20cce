"""Time limits: of the whole request (``totalTimeoutMs``), and of one attempt (``requestAttemptTimeoutMs``)."""

from __future__ import annotations

from math import inf

from router.model.exchange import Exchange, deadline_failure
from router.model.service import Conducting, Service
from router.model.timers import Lane


def total_timeout(seconds: float | None, most: float | None, next_service: Service) -> Service:
    """End the exchange ``seconds`` after the first byte of its head, retries included. ``most``: what the router allows at all;
    nothing waits before a name's own limit is known, so one clock serves both. None: no limit, no layer."""
    if seconds is None and most is None:
        return next_service
    route, router = inf if seconds is None else seconds, inf if most is None else most
    limit, cause = (route, "route") if route < router else (router, "router")

    lane: Lane[Exchange] | None = None

    def total_timeout_service(exchange: Exchange) -> Conducting:
        nonlocal lane
        if lane is None:  # the first exchange brings the clock
            lane = Lane(exchange.host.timers, limit, Exchange.expire)
        began = exchange.received_at
        deadline = began + limit
        if lane.runs and began >= lane.last and exchange.bucket is None and deadline < exchange.deadline:  # written out
            exchange.deadline, exchange.deadline_cause = deadline, cause
            lane.last = began
            lane.waiting[exchange] = deadline
            exchange.bucket = lane.waiting
        else:
            exchange.tighten(deadline, cause, lane)
        return next_service(exchange)

    return total_timeout_service


def attempt_timeout(seconds: float | None, next_service: Service) -> Service:
    """End an attempt that has no response head after ``seconds``. None: no limit, no layer."""
    if seconds is None:
        return next_service
    limit = seconds
    lane: Lane[Exchange] | None = None

    def expire(exchange: Exchange) -> None:
        if exchange.response is None and exchange.strand is not None:
            exchange.strand.cancel(deadline_failure("attempt", limit))

    def attempt_timeout_service(exchange: Exchange) -> Conducting:
        nonlocal lane
        if lane is None:  # the first exchange brings the clock
            lane = Lane(exchange.host.timers, limit, expire)
        if exchange.lane is not None:
            exchange.stop_waiting()
        lane.add(exchange)
        exchange.lane = lane.waiting
        return next_service(exchange)

    return attempt_timeout_service
