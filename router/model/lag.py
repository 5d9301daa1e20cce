"""How late the worker's loop is: what a response that has arrived waits before anybody looks at it.

A timer every ``EVERY`` seconds notes how late it runs, whatever held the loop up (a turn of many frames, a large table, the
garbage collector). Its moments have nothing to do with traffic, so that their mean is what an event that comes at any
moment has to wait. Twenty timers a second cost a worker less than a thousandth of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router.model.metrics import Metrics
from router.model.timers import TICK, Timer, Timers

EVERY = 0.05
GRAIN = 2 * TICK  # timers and the kernel round up: so much is no lag
STALL = 0.5  # so late, an operator should know
LEARN = 0.1  # weight of the newest measurement


class LoopLag:
    """``mean``: seconds, over about the last half second; ``latest``: of the last measurement.
    ``stalled`` is told of those of ``STALL`` seconds and more."""

    __slots__ = ("_due", "_stalled", "_timer", "_timers", "latest", "mean")

    def __init__(self, timers: Timers, stalled: Callable[[float], None] = lambda seconds: None) -> None:
        self._timers = timers
        self._stalled = stalled
        self._timer: Timer | None = None
        self._due = 0.0
        self.mean = self.latest = 0.0

    def start(self, metrics: Metrics) -> None:
        """Measure from now on; gauge ``loop_lag_ms``."""
        metrics.gauge("loop_lag_ms", lambda: self.mean * 1000, merge="max")
        self._again()

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self) -> None:
        self._due = self._timers.now() + EVERY
        self._timer = self._timers.at(self._due, self._measure)

    def _measure(self, _: Any) -> None:
        self.latest = max(0.0, self._timers.now() - self._due - GRAIN)
        self.mean += (self.latest - self.mean) * LEARN
        if self.latest >= STALL:
            self._stalled(self.latest)
        self._again()

    def overdue(self, now: float) -> float:
        """How late the next measurement is already: a stall that nobody has measured yet; 0 or less if it is not."""
        return now - self._due - GRAIN if self._timer is not None else 0.0
