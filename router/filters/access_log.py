"""A record of each exchange when it is over, of all of them or of a sample; an access log always has those that failed."""

from __future__ import annotations

from collections.abc import Callable
from random import random

import attrs

from router.model.exchange import Exchange
from router.model.service import Service
from router.model.verdict import SUCCESS


@attrs.frozen
class AccessLog:
    """``render`` makes a line of an exchange, ``write`` takes it; ``sample``: which share of what succeeds is recorded."""

    render: Callable[[Exchange], str]
    write: Callable[[str], None]
    sample: float = 1.0


def access_log(log: AccessLog | None, next_service: Service) -> Service:
    """Record to ``log``; None: no layer."""
    if log is None:
        return next_service
    render, write, sample = log.render, log.write, log.sample

    async def access_log_service(exchange: Exchange) -> None:
        exchange.attempts = []
        try:
            await next_service(exchange)
        finally:
            if sample >= 1.0 or random() < sample or exchange.verdict is not SUCCESS:
                write(render(exchange))

    return access_log_service


def recent_requests(logs: tuple[AccessLog, ...], next_service: Service) -> Service:
    """Record to each of ``logs`` a sample that is drawn when exchanges come, whatever becomes of them; none: no layer."""
    for log in logs:
        next_service = _sampled(log, next_service)
    return next_service


def _sampled(log: AccessLog, next_service: Service) -> Service:
    render, write, sample = log.render, log.write, log.sample

    async def recent_requests_service(exchange: Exchange) -> None:
        if random() >= sample:
            await next_service(exchange)
            return
        if exchange.attempts is None:
            exchange.attempts = []
        try:
            await next_service(exchange)
        finally:
            write(render(exchange))

    return recent_requests_service
