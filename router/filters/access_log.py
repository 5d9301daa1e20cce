"""A record of each exchange when it is over, of all of them or of a sample; an access log always has those that failed.

It is of the moment when the exchange is closed: its times end when the answer has left, and a client that went away before that
is seen. It may be written a little later, several at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random

import attrs

from router.model.exchange import Exchange
from router.model.service import Conducting, Service
from router.model.verdict import SUCCESS

Record = Callable[[Exchange], None]


@attrs.frozen
class AccessLog:
    """``keep`` takes an exchange that is over; ``sample``: which share of what succeeds is recorded."""

    keep: Record
    sample: float = 1.0


def access_log(log: AccessLog | None, next_service: Service) -> Service:
    """Record to ``log``; None: no layer."""
    if log is None:
        return next_service
    keep, sample = log.keep, log.sample

    def record_some(exchange: Exchange) -> None:
        if random() < sample or exchange.verdict is not SUCCESS:
            keep(exchange)

    record = keep if sample >= 1.0 else record_some

    def access_log_service(exchange: Exchange) -> Conducting:
        if exchange.record is None:
            exchange.attempts, exchange.record = [], record
        else:
            _add(exchange, record)
        return next_service(exchange)

    return access_log_service


def recent_requests(logs: tuple[AccessLog, ...], next_service: Service) -> Service:
    """Record to each of ``logs`` a sample that is drawn when exchanges come, whatever becomes of them; none: no layer."""
    for log in logs:
        next_service = _sampled(log, next_service)
    return next_service


def _sampled(log: AccessLog, next_service: Service) -> Service:
    keep, sample = log.keep, log.sample

    def recent_requests_service(exchange: Exchange) -> Conducting:
        if random() < sample:
            _add(exchange, keep)
        return next_service(exchange)

    return recent_requests_service


def _add(exchange: Exchange, record: Record) -> None:
    before = exchange.record
    if before is None:
        exchange.attempts = []
        exchange.record = record
    else:
        exchange.record = _both(before, record)


def _both(one: Record, other: Record) -> Record:
    def both(exchange: Exchange) -> None:
        try:
            one(exchange)
        finally:
            other(exchange)

    return both
