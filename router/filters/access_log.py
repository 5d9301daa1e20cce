"""A record of each exchange when it is over, of all of them or of a sample; those that failed are always recorded."""

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
