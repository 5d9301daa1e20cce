"""Time limits: of the whole request (``totalTimeoutMs``), and of one attempt (``requestAttemptTimeoutMs``)."""

from __future__ import annotations

from typing import Any

from router.model.exchange import Exchange, deadline_failure
from router.model.service import Service


def total_timeout(seconds: float | None, next_service: Service) -> Service:
    """End the exchange ``seconds`` after the first byte of its head, retries included. None: no limit, no layer."""
    if seconds is None:
        return next_service
    limit = seconds

    async def total_timeout_service(exchange: Exchange) -> None:
        exchange.tighten(exchange.received_at + limit, "route")
        await next_service(exchange)

    return total_timeout_service


def attempt_timeout(seconds: float | None, next_service: Service) -> Service:
    """End an attempt that has no response head after ``seconds``. None: no limit, no layer."""
    if seconds is None:
        return next_service
    limit = seconds

    def expire(exchange: Exchange) -> None:
        if exchange.response is None and exchange.strand is not None:
            exchange.strand.cancel(deadline_failure("attempt", limit))

    async def attempt_timeout_service(exchange: Exchange) -> None:
        timer: Any = exchange.host.timers.after(limit, expire, exchange)
        try:
            await next_service(exchange)
        finally:
            timer.cancel()

    return attempt_timeout_service
