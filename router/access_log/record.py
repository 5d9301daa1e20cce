"""What a record says of an exchange that is over. Times in milliseconds, deadlines too.

``route`` are the dentries that led to the client, the first one first, each with the line where it was written (null: in the
request's own dtab). ``attempts`` are those that reached the choice of an endpoint, in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from router.model.exchange import Attempt, Exchange, Routed
from router.model.told import grpc_status_of, status_of
from router.tracing.forms import trace_id_of


class Routing(Protocol):
    """Knows the way that an exchange has gone; answers differ when ``interpreter.dtab`` is another one."""

    interpreter: Any

    def of(self, path: Any, local: Any, bound: Any) -> Routed:
        """The way of those with a name, a dtab of their own, and what that was bound to (see :class:`Exchange`)."""
        ...


Render = Callable[[Exchange, float, int], str]
"""Makes a line of an exchange that was over at that time of the host's clock, and of day (nanoseconds of the epoch)."""


class Form(Protocol):
    """How records are written: what is needed of an exchange is taken as it is closed, lines are made of that later."""

    def keeper(self, room: Room) -> Callable[[Exchange], None]:
        """What takes exchanges that are being closed, and puts what :meth:`line` needs into the room."""
        ...

    def line(self, taken: Any, now: float, wall: int, /) -> str:
        """As :data:`Render`, of what was taken."""
        ...


Line = Callable[[Any, float, int], str]


class Room(Protocol):
    """Where exchanges that are over wait for their lines. Whoever puts one into ``over``, with the time ``now()``, calls
    ``look`` where it is the first one, or there are ``full`` of them."""

    over: list[tuple[Line, Any, float]]
    now: Callable[[], float]
    full: int

    def look(self) -> None:
        """Make lines of them, now or before long."""


class Clock:
    """The time of day as text, made once a second."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._second = 0
        self._text = ""

    def second(self, seconds: float) -> str:
        """That second."""
        if int(seconds) != self._second:
            self._second = int(seconds)
            self._text = time.strftime(self._form, time.localtime(seconds))
        return self._text


def text(value: bytes | None) -> str | None:
    """A header's value, for people and JSON."""
    return None if value is None else value.decode("utf-8", "backslashreplace")


def trace_of(exchange: Exchange) -> str | None:
    """The trace's id, in hexadecimal: of the span that was made of it, or of the context that passed through."""
    trace = exchange.trace
    return trace_id_of(exchange.request) if trace is None else trace.context.trace_id


def values(exchange: Exchange, router: str, server: str, routes: Routing, clock: str, now: float) -> dict[str, Any]:
    """Every field of :data:`router.config.access_log.FIELDS`, in that order. ``clock``: the time of day as text; ``now``: the
    host's clock, when the exchange was over."""
    head, response, failure = exchange.request, exchange.response, exchange.failure
    received = exchange.received_at
    endpoint, attempts = exchange.endpoint, exchange.attempts or []
    limited = exchange.deadline != inf
    first_sent = attempts[0].began if attempts else None
    return {
        "time": clock, "router": router, "server": server, "peer": exchange.reply.peer,
        "method": text(head.method), "authority": text(head.authority), "path": text(head.path),
        "protocol": "HTTP/2" if head.version >= (2, 0) else f"HTTP/{head.version[0]}.{head.version[1]}", "grpc": head.grpc,
        **routes.of(exchange.path, exchange.local_dtab, exchange.bound).values(),
        "endpoint": None if endpoint is None else endpoint.show(),
        "attempts": [_attempt(attempt, received) for attempt in attempts], "retries": exchange.retries,
        "status": status_of(exchange), "grpc_status": grpc_status_of(exchange),
        "upstream_status": None if response is None else response.status,
        "request_bytes": 0 if exchange.body is None else exchange.body.pushed, "response_bytes": exchange.reply.sent,
        "deadline_ms": _ms(exchange.deadline - received) if limited else None,
        "left_ms": _ms(exchange.deadline - now) if limited else None,
        "sent_ms": None if first_sent is None else _ms(first_sent - received),
        "first_byte_ms": _ms(exchange.responded_at - received) if exchange.responded_at else None,
        "total_ms": _ms(now - received),
        "failure": None if failure is None else failure.why, "blame": None if failure is None else failure.blame.value,
        "trace": trace_of(exchange), "user_agent": text(head.get(b"user-agent")), "referer": text(head.get(b"referer")),
    }  # fmt: skip


def _attempt(attempt: Attempt, received: float) -> dict[str, Any]:
    return {
        "endpoint": attempt.endpoint,
        "outcome": attempt.outcome,
        "began_ms": _ms(attempt.began - received),
        "first_byte_ms": _ms(attempt.heard - received) if attempt.heard else None,
        "ended_ms": _ms(attempt.ended - received),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
