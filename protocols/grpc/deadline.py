"""A stream's deadline, by ``grpc-timeout``: enforced here, and told on to the endpoint shrunken."""

from __future__ import annotations

from math import inf
from typing import Any

from protocols.grpc.timeout import parse_timeout, show_timeout
from router.model.exchange import Exchange, deadline_failure
from router.model.failure import CANCEL, Blame, Failure
from router.model.service import Service
from router.model.stack import Module

NAME = b"grpc-timeout"
_SLACK = 0.002  # seconds that an endpoint's clock may be ahead of ours


def deadline_in(params: Any, next_service: Service) -> Service:
    """Tighten the exchange by the client's timeout, counted from the arrival of the request."""

    malformed = params.metrics.scope("deadline").counter("malformed")

    async def grpc_deadline_service(exchange: Exchange) -> None:
        head = exchange.request
        if head.grpc:
            value = head.get(NAME)
            if value is not None:
                seconds = parse_timeout(value)
                if seconds is None:
                    malformed.value += 1  # and goes on as it is: whoever answers may insist on it
                elif seconds <= 0:
                    raise deadline_failure("client", 0.0)
                else:
                    exchange.tighten(exchange.received_at + seconds, "client")
        await next_service(exchange)

    return grpc_deadline_service


def deadline_out(params: Any, next_service: Service) -> Service:
    """Tell the endpoint how much is left."""

    async def grpc_deadline_out_service(exchange: Exchange) -> None:
        deadline = exchange.deadline
        if deadline != inf and exchange.request.grpc:
            head = exchange.request
            fields = [field for field in head.fields if field[0] != NAME]
            fields.append((NAME, show_timeout(deadline - exchange.now())))
            exchange.request = head.with_fields(tuple(fields))
            exchange.request.shared = False
        try:
            await next_service(exchange)
        except Failure as failure:
            if failure.code == CANCEL and failure.blame is Blame.UPSTREAM and exchange.now() >= deadline - _SLACK:
                # The endpoint's clock rang before ours (it was given less than there is, and our timers are no finer
                # than a tick): cancelling is how servers say so, and the client must not take it for its own doing.
                raise deadline_failure(exchange.deadline_cause, deadline - exchange.received_at) from failure
            raise

    return grpc_deadline_out_service


IN = Module("grpc_deadline", deadline_in, why="the clock starts at the first header; everything below may look at it")
OUT = Module("grpc_deadline_out", deadline_out, why="as late as possible: what is told must be what is left")
