"""A stream's deadline, by ``grpc-timeout``: enforced here, and told on to the endpoint shrunken."""

from __future__ import annotations

from math import inf
from typing import Any

from protocols.grpc.timeout import coarse, parse_timeout, show_timeout
from router.model.exchange import Exchange, deadline_failure
from router.model.headers import RequestHead
from router.model.service import Conducting, Service
from router.model.stack import Module

NAME = b"grpc-timeout"


def deadline_in(params: Any, next_service: Service) -> Service:
    """Tighten the exchange by the client's timeout, counted from the arrival of the request."""

    malformed = params.metrics.scope("deadline").counter("malformed")

    def grpc_deadline_service(exchange: Exchange) -> Conducting:
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
        return next_service(exchange)

    return grpc_deadline_service


def deadline_out(params: Any, next_service: Service) -> Service:
    """Tell the endpoint how much is left."""

    def grpc_deadline_out_service(exchange: Exchange) -> Conducting:
        deadline = exchange.deadline
        if deadline != inf:
            head = exchange.request
            left = deadline - exchange.host.timers.now()
            cached = head.forwarded
            if cached is not None and cached[0] is NAME and cached[1][0] <= left < cached[1][1]:
                exchange.request = cached[1][2]
            elif head.grpc:
                exchange.request = _told(head, left)
        return next_service(exchange)

    return grpc_deadline_out_service


def _told(head: RequestHead, left: float) -> RequestHead:
    """The head with what is left. Of a router's limit that is the same for many requests: the last one is kept, and so is what
    it was put to, by heads that come again."""
    cached = head.forwarded
    if cached is not None and cached[0] is NAME:
        bare: RequestHead = cached[1][3]
    elif head.get(NAME) is None:
        bare = head
    else:
        bare = head.with_fields(tuple([field for field in head.fields if field[0] != NAME]))
    told = bare.branch((NAME, show_timeout(left)))
    if left < 1:
        told.shared = False  # timeouts of less than a second are told more exactly
    if head.shared:
        millis, step = coarse(left) if left >= 1 else (0, 0)
        head.forwarded = (NAME, (millis / 1000, (millis + step) / 1000, told, bare))
    return told


IN = Module("grpc_deadline", deadline_in, why="the clock starts at the first header; everything below may look at it")
OUT = Module("grpc_deadline_out", deadline_out, why="as late as possible: what is told must be what is left")
