"""What all limits have in common: how they refuse.

A refusal is an OVERLOADED failure that is ``rejected`` and ``retryable``: nothing was sent, it says nothing about any endpoint,
and no policy of ours sends it again. It tells its client when to come back: after ``FIRST`` seconds when shedding has just
begun, and the later the longer it lasts (a tenth of that time, at most ``LAST``), each time with jitter, so that those who
were refused together do not return together. Refusals are counted by cause and by class. Two events tell of a phase of
shedding: its first refusal, and its end, which is ``QUIET`` seconds without one; hence at most one phase in that time.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import random as system_random
from typing import Any

from router.filters.priority import CLASSES
from router.model.failure import Blame, Failure, Kind
from router.model.host import Host
from router.model.metrics import Metrics

CAUSES = ("limit", "queue_full", "evicted", "deadline")
QUIET = 10.0
FIRST, LAST, GROWTH = 0.05, 5.0, 0.1


class Shedding:
    """The refusals of one limit. ``where``: whose limit, for answers and events. ``status``: what HTTP/2 clients get instead of
    REFUSED_STREAM, or None."""

    __slots__ = ("_by_cause", "_by_class", "_host", "_last", "_random", "_refused", "_status", "_where", "since")

    def __init__(
        self, host: Host, metrics: Metrics, where: str, status: int | None, random: Callable[[], float] = system_random
    ) -> None:
        self._host = host
        self._where = where
        self._status = status
        self._random = random
        scope = metrics.scope("shed")
        self._by_class = [scope.scope("class").counter(name) for name in CLASSES]
        self._by_cause = {cause: scope.counter(cause) for cause in CAUSES}
        self._refused = 0
        self._last = 0.0
        self.since = inf  # when the present phase of shedding began

    @property
    def total(self) -> int:
        """How many were refused."""
        return sum(counter.value for counter in self._by_class)

    def refuse(self, cause: str, rank: int, state: str) -> Failure:
        """Make the failure of one refusal. ``state``: what the limit looks like, for people."""
        self._by_class[rank].value += 1
        self._by_cause[cause].value += 1
        now = self._last = self._host.timers.now()
        self._refused += 1
        if self.since == inf:
            self._begin(now, cause, state)
        why = f"{self._where}: too many requests ({state})"
        failure = Failure(Kind.OVERLOADED, why, Blame.ROUTER, retryable=True, rejected=True, cause=cause)
        failure.status = self._status
        failure.retry_after = min(LAST, FIRST + GROWTH * (now - self.since)) * (0.5 + self._random())
        return failure

    def _begin(self, now: float, cause: str, state: str) -> None:
        self.since, self._refused = now, 1
        self._host.events.warn("shedding_started", limit=self._where, cause=cause, state=state)
        self._host.timers.after(QUIET, self._look)

    def _look(self, _: Any) -> None:
        until = self._last + QUIET
        if self._host.timers.now() < until:
            self._host.timers.at(until, self._look)
            return
        lasted = round(self._last - self.since, 3)
        self.since = inf
        self._host.events.emit("shedding_ended", limit=self._where, refused=self._refused, lasted_s=lasted)
