"""One timer wheel per worker.

Theory of operation

1. Time is cut into ticks of ``TICK`` seconds; a bucket holds the timers of one tick, and a heap the ticks that have
   a bucket. Adding and cancelling cost a dict operation each, however many timers there are.
2. A timer never fires early and at most one tick plus the loop's own lag late.
3. One trio task (:meth:`Timers.run`) sleeps until the first bucket that is not empty. Buckets emptied by cancelling
   are dropped when they come to the top, so that a worker with many short exchanges under long deadlines wakes
   up a few times a second and not once per exchange.
4. Callbacks run synchronously in that task. One that raises is reported to ``crashed`` and does not disturb the others.

Bound: one timer per exchange and attempt, hence bounded by the concurrency limits.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import Any

import trio

TICK = 0.001


class Timer:
    """A handle on a pending callback."""

    __slots__ = ("_bucket", "arg", "callback", "when")

    def __init__(self, when: float, callback: Callable[[Any], None], arg: Any, bucket: dict[int, Timer]) -> None:
        self.when = when
        self.callback = callback
        self.arg = arg
        self._bucket = bucket

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run already."""
        self._bucket.pop(id(self), None)


class Timers:
    """The wheel. ``now()`` is the worker's clock in seconds, trio's clock while a trio loop runs."""

    __slots__ = ("_buckets", "_heap", "_scope", "crashed", "now")

    def __init__(self, now: Callable[[], float], crashed: Callable[[Exception], None]) -> None:
        self.now = now
        self.crashed = crashed
        self._buckets: dict[int, dict[int, Timer]] = {}
        self._heap: list[int] = []
        self._scope: trio.CancelScope | None = None

    def at(self, when: float, callback: Callable[[Any], None], arg: Any = None) -> Timer:
        """Call ``callback(arg)`` once the clock has reached ``when``."""
        tick = int(when / TICK) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._heap, tick)
            scope = self._scope
            if scope is not None and tick * TICK < scope.deadline:
                scope.deadline = tick * TICK
        timer = Timer(when, callback, arg, bucket)
        bucket[id(timer)] = timer
        return timer

    def after(self, seconds: float, callback: Callable[[Any], None], arg: Any = None) -> Timer:
        """Call ``callback(arg)`` in ``seconds`` from now."""
        return self.at(self.now() + seconds, callback, arg)

    def pending(self) -> int:
        """How many timers are set."""
        return sum(len(bucket) for bucket in self._buckets.values())

    def expire(self) -> None:
        """Run what is due. Called by :meth:`run`; tests with a clock of their own call it themselves."""
        now = self.now()
        heap = self._heap
        while heap and heap[0] * TICK <= now:  # the same product as in _next, or rounding would make it wait for ever
            bucket = self._buckets.pop(heapq.heappop(heap))
            while bucket:
                self._fire(bucket.pop(next(iter(bucket))))

    def _fire(self, timer: Timer) -> None:
        try:
            timer.callback(timer.arg)
        except Exception as error:  # noqa: BLE001 - one callback's bug must not stop the wheel
            self.crashed(error)

    def _next(self) -> float:
        heap = self._heap
        while heap:
            tick = heap[0]
            if self._buckets[tick]:
                return tick * TICK
            del self._buckets[heapq.heappop(heap)]
        return inf

    async def run(self) -> None:
        """Serve the wheel until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._next()) as scope:
                self._scope = scope
                await trio.sleep_forever()
            self._scope = None
            self.expire()
