"""Connections that end because nobody uses them, or because of their age.

Theory of operation

1. Nothing is noted per exchange. A connection counts the exchanges that it has begun; a timer of its own looks ``LOOKS`` times
   within the idle time whether it is busy or has begun any since the last look. So it ends between one and ``1 + 1 / LOOKS``
   idle times after its last exchange.
2. A lifetime varies by ``JITTER`` to either side, so that connections opened together do not end together (gRFC A9).
3. How a connection ends without losing an exchange is its own business (``drain``), and so is whether it ends at all: one
   that stays is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random as system_random
from typing import Any, Protocol

import attrs

from router.model.metrics import Metrics
from router.model.timers import Timer, Timers

LOOKS = 4
JITTER = 0.1


@attrs.frozen
class SessionLimits:
    """Seconds without an exchange, and seconds of life; None: for ever."""

    idle: float | None = None
    life: float | None = None


NO_LIMITS = SessionLimits()


class Mortal(Protocol):
    """A connection that can expire. ``active``: exchanges under way; ``begun``: a figure that each new exchange raises."""

    draining: bool
    closed: bool

    @property
    def active(self) -> int: ...

    @property
    def begun(self) -> int: ...


End = Callable[[str], None]
"""The connection has expired: ``idle`` or ``lifetime``."""


class Expiry:
    """The limits of one connection. ``end`` drains it, or leaves it until the next look."""

    __slots__ = ("_begun", "_connection", "_end", "_idle", "_life_timer", "_look_timer", "_since", "_timers")

    def __init__(
        self,
        timers: Timers,
        limits: SessionLimits,
        connection: Mortal,
        end: End,
        random: Callable[[], float] = system_random,
    ) -> None:
        self._timers = timers
        self._connection = connection
        self._end = end
        self._idle = limits.idle
        self._begun = connection.begun
        self._since = timers.now()
        self._look_timer: Timer | None = None
        self._life_timer: Timer | None = None
        if limits.life is not None:
            self._life_timer = timers.after(limits.life * (1 - JITTER + 2 * JITTER * random()), self._aged)
        if self._idle is not None:
            self._look_timer = timers.after(self._idle / LOOKS, self._look)

    def _aged(self, _: Any) -> None:
        self._expire("lifetime")

    def _look(self, _: Any) -> None:
        assert self._idle is not None
        connection, now = self._connection, self._timers.now()
        if connection.active:
            self._begun, self._since = -1, now  # whatever it has begun when it is idle again will be news
        elif connection.begun != self._begun:
            self._begun, self._since = connection.begun, now
        elif now - self._since >= self._idle:
            self._expire("idle")
            if connection.draining or connection.closed:
                return
        left = self._since + self._idle - now
        step = self._idle / LOOKS
        self._look_timer = self._timers.after(min(step, left) if left > 0 else step, self._look)

    def _expire(self, why: str) -> None:
        self._end(why)
        if self._connection.draining or self._connection.closed:
            self.close()

    def close(self) -> None:
        """The connection has ended: let go of the timers."""
        for timer in (self._look_timer, self._life_timer):
            if timer is not None:
                timer.cancel()
        self._look_timer = self._life_timer = None


class Expiries:
    """Makes the expiries of a listener's connections, and counts them: ``expired/idle``, ``expired/lifetime``."""

    __slots__ = ("_counters", "_limits", "_timers")

    def __init__(self, timers: Timers, limits: SessionLimits, metrics: Metrics) -> None:
        self._timers = timers
        self._limits = limits
        scope = metrics.scope("expired")
        self._counters = {"idle": scope.counter("idle"), "lifetime": scope.counter("lifetime")}

    def watch(self, connection: Mortal, end: End) -> Expiry | None:
        """Limit a new connection; None where there are no limits."""
        return self._watch(self._limits, connection, end)

    def watch_idle(self, tunnel: Mortal, end: End) -> Expiry | None:
        """Limit the idleness of a tunnel that is not all of its connection."""
        return self._watch(SessionLimits(idle=self._limits.idle), tunnel, end)

    def _watch(self, limits: SessionLimits, connection: Mortal, end: End) -> Expiry | None:
        if limits == NO_LIMITS:
            return None

        def expire(why: str) -> None:
            self._counters[why].value += 1
            end(why)

        return Expiry(self._timers, limits, connection, expire)
