"""The layers of tracing: of a server, which reads contexts and makes server spans, and of a client, which tells endpoints.

They are ordinary functions that return the next service's coroutine where there is no trace: such requests pay for no frame.
"""

from __future__ import annotations

from collections.abc import Coroutine
from random import random
from typing import Any

from dtab import Path
from router.model.exchange import Exchange
from router.model.failure import Failure
from router.model.metrics import Metrics
from router.model.service import Service
from router.model.trace import Trace, TraceContext
from router.tracing.spans import Way
from router.tracing.tracing import Tracing


def trace_in(tracing: Tracing | None, metrics: Metrics, next_service: Service) -> Service:
    """Have requests traced that are to be; None: no layer, and contexts pass through as they are."""
    if tracing is None:
        return next_service
    malformed = metrics.scope("trace").counter("malformed")
    owner, rate = tracing, tracing.rate

    def trace_service(exchange: Exchange) -> Coroutine[Any, Any, None]:
        known = exchange.request.forwarded
        drawn = known is not None and known[0] is owner
        if drawn and random() >= rate:  # what nearly every request comes to, written out
            exchange.request = known[1][0]  # type: ignore[index]
            return next_service(exchange)
        trace = owner.trace(exchange, malformed, drawn)
        if trace is None:
            return next_service(exchange)
        exchange.trace = trace
        return next_service(exchange) if trace.spans is None else recorded(exchange, trace)

    async def recorded(exchange: Exchange, trace: Trace) -> None:
        try:
            await next_service(exchange)
        except Failure as failure:
            if exchange.failure is None:
                exchange.failure = failure
            raise
        finally:
            trace.spans.server(exchange, trace)

    return trace_service


def trace_out(tracing: Tracing | None, service: Path, client: Path, residual: Path, next_service: Service) -> Service:
    """Tell the endpoint of each attempt its span; None: no layer."""
    if tracing is None:
        return next_service
    way = Way.of(service, client, residual)

    def trace_attempt_service(exchange: Exchange) -> Coroutine[Any, Any, None]:
        trace = exchange.trace
        if trace is None:
            return next_service(exchange)
        context = trace.context.child()
        exchange.request = trace.carrier.put(exchange.request, context)
        return next_service(exchange) if trace.spans is None else recorded(exchange, trace, context)

    async def recorded(exchange: Exchange, trace: Trace, context: TraceContext) -> None:
        began, number = exchange.now(), trace.attempts
        trace.attempts += 1
        try:
            await next_service(exchange)
        except Failure as failure:
            if exchange.failure is None:
                exchange.failure = failure
            raise
        finally:
            trace.spans.attempt(exchange, trace, context, way, began, number)

    return trace_attempt_service
