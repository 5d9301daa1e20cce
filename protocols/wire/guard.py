"""Time and numbers that a client may take up, for every protocol: limits, their counters and events, one timer a connection.

Theory of operation

1. :class:`Guard` belongs to a listener. It counts every connection or stream that was ended for what its client did
   (``abuse/<kind>`` in the server's metrics) and tells of it as an event, at most once in ``TELL_EVERY`` seconds and kind.
2. Nothing is timed by a timer of its own. A connection has one coarse :class:`Watch` while there is something to watch;
   when it fires, the connection looks at its time stamps and says whether to go on. What is late is found at most a
   quarter of the shortest limit, and at most a few seconds, after its time. An idle connection that has made a
   request has no timer.
3. Slow is who moves fewer bytes than a rate over a whole span of time, although it could move them: :class:`Pace` compares
   totals from look to look, so that neither silence nor a byte now and then helps.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from protocols.wire.connection import Connection
from router.model.abuse import AbuseLimits
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.timers import Timer, Timers

TELL_EVERY = 10.0
MAX_REFUSING = 64
_PLACES = 64  # how many ways the looks of different connections are spread over a period


class Guard:
    """What the connections of one listener share: limits, counters by kind of abuse, and the clock."""

    __slots__ = ("_counters", "_host", "_told", "_where", "limits", "max_connections", "now", "period", "refusing", "timers")

    def __init__(self, limits: AbuseLimits, host: Host, metrics: Metrics, kinds: tuple[str, ...], where: str) -> None:
        self.limits = limits
        self.max_connections = limits.connections
        self.period = limits.period
        self.timers = host.timers
        self.now = host.timers.now
        self._host = host
        self._where = where
        scope = metrics.scope("abuse")
        self._counters = {kind: scope.counter(kind) for kind in kinds}
        self._told: dict[str, tuple[float, int]] = {}
        self.refusing = 0  # connections that are being told so

    def refuse(self, wire: Connection, answer: bytes) -> None:
        """There are too many connections: take this one off the kernel's queue, say so, close.

        Left in the queue, clients would wait without knowing for what, health checks and those who could go elsewhere
        included. Who cannot be told, because ``MAX_REFUSING`` are being told already, is just closed.
        """
        peer = wire.peer
        wire.start(Refused(self))
        if self.refusing > MAX_REFUSING:
            wire.abort()
        else:
            wire.write(answer)
            wire.close()
        self.abused("connections", peer, f"more than {self.max_connections} connections")

    def count(self, kind: str) -> None:
        """Count what is no attack by itself: a connection that nobody used."""
        self._counters[kind].value += 1

    def abused(self, kind: str, peer: str, why: str) -> None:
        """A connection or stream of ``peer`` was ended for its doing."""
        counter = self._counters[kind]
        counter.value += 1
        now = self.now()
        told, before = self._told.get(kind, (-inf, 0))
        if now - told >= TELL_EVERY:
            self._told[kind] = (now, counter.value)
            times = counter.value - before
            self._host.events.warn("client_abuse", kind=kind, server=self._where, peer=peer, why=why, times=times)


class Refused:
    """The protocol of a connection that was refused: hears nothing, and is over when its answer was sent."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        guard.refusing += 1

    def received(self, data: bytes) -> None:
        """Not wanted."""

    def eof(self) -> None:
        """Not wanted."""

    def writable(self) -> None:
        """Nothing follows."""

    def lost(self, why: str) -> None:
        """Make room for another one."""
        self._guard.refusing -= 1


class Watch:
    """The timer of one connection: calls ``look`` after each period for as long as that returns True (rule 2)."""

    __slots__ = ("_look", "_period", "_timers", "timer")

    def __init__(self, timers: Timers, period: float, look: Callable[[], bool]) -> None:
        self._timers = timers
        self._period = period
        self._look = look
        self.timer: Timer | None = None  # None: nobody is going to look

    def arm(self) -> None:
        """Look again, at this connection's place within a period from now."""
        now, period = self._timers.now(), self._period
        offset = period * ((id(self) >> 4) % _PLACES) / _PLACES
        self.timer = self._timers.at((now - offset) // period * period + period + offset, self._fire)

    def _fire(self, _: Any) -> None:
        self.timer = None
        if self._look():
            self.arm()

    def stop(self) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Pace:
    """Finds who moves less than ``rate`` bytes a second over ``milliseconds`` (0: nobody is slow); rule 3.

    At each look :meth:`begin`, then ask :meth:`slow` of everything that could move; what is not asked about is forgotten,
    hence at most as many marks as there are streams.
    """

    __slots__ = ("_before", "_marks", "_rate", "_span")

    def __init__(self, milliseconds: int, rate: int) -> None:
        self._span = milliseconds / 1000
        self._rate = rate
        self._before: dict[int, tuple[float, int]] = {}
        self._marks: dict[int, tuple[float, int]] = {}

    def begin(self) -> None:
        """A look begins."""
        self._before, self._marks = self._marks, {}

    def slow(self, key: int, total: int, now: float) -> bool:
        """Whether ``key``, which has moved ``total`` bytes by now, was too slow over the span that ends now."""
        since, before = mark = self._before.get(key, (now, total))
        if not self._span or now - since < self._span:
            self._marks[key] = mark
            return False
        self._marks[key] = (now, total)
        return total - before < self._rate * (now - since)
