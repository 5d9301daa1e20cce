"""One timer wheel per worker.

Theory of operation

1. Time is cut into ticks of ``TICK`` seconds; a bucket holds what is due in one tick, and a heap the ticks that have
   a bucket. Adding and cancelling cost a dict operation each, however many there are. Exchanges are put into the wheel
   themselves (:meth:`Timers.put`); what has no ``expire`` of its own gets a :class:`Timer`.
2. Nothing fires early, and nothing more than one tick plus the loop's own lag late.
3. A :class:`Lane` is for waits that all take the same time: they end in the order in which they began, so that an ordered dict
   and one timer for its head are enough. It is for what happens with every exchange and is nearly always taken back.
4. One trio task (:meth:`Timers.run`) sleeps until the first bucket that is not empty. Buckets emptied by cancelling
   are dropped when they come to the top, so that a worker with many short exchanges under long deadlines wakes
   up a few times a second and not once per exchange.
5. Callbacks run synchronously in that task. One that raises is reported to ``crashed`` and does not disturb the others.

Bound: a few entries per exchange and attempt, hence bounded by the concurrency limits.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import trio

TICK = 0.001
T = TypeVar("T")


class Timed(Protocol):
    """What can be put into the wheel."""

    def expire(self) -> None:
        """Its time has come."""


Bucket: TypeAlias = "dict[Any, Any]"  # by who waits in it


def take(bucket: Bucket, timed: Timed) -> None:
    """Take ``timed`` out, if it is there. A dict that is emptied piece by piece keeps its memory, and a bucket's time may be
    far off."""
    bucket.pop(timed, None)
    if not bucket:
        bucket.clear()


class Timer:
    """A handle on a pending callback."""

    __slots__ = ("_bucket", "arg", "callback", "when")

    def __init__(self, when: float, callback: Callable[[Any], None], arg: Any) -> None:
        self.when = when
        self.callback = callback
        self.arg = arg
        self._bucket: Bucket

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run already."""
        take(self._bucket, self)

    def expire(self) -> None:
        """Call back."""
        self.callback(self.arg)


class Timers:
    """The wheel. ``now()`` is the worker's clock in seconds; it goes at the speed of the trio loop's."""

    __slots__ = ("_buckets", "_heap", "_offset", "_scope", "_wake", "crashed", "now")

    def __init__(self, now: Callable[[], float], crashed: Callable[[Exception], None]) -> None:
        self.now = now
        self.crashed = crashed
        self._buckets: dict[int, Bucket] = {}
        self._heap: list[int] = []
        self._scope: trio.CancelScope | None = None
        self._wake: float = inf  # the tick in which the loop is going to look next
        self._offset = 0.0  # what the trio loop's clock is ahead of ours

    def put(self, when: float, timed: Timed) -> Bucket:
        """Have ``timed.expire()`` called once the clock has reached ``when``, unless it is taken (:func:`take`) from
        the returned bucket."""
        tick = int(when / TICK) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._new_bucket(tick)
        bucket[timed] = None
        return bucket

    def _new_bucket(self, tick: int) -> Bucket:
        bucket: Bucket = {}
        self._buckets[tick] = bucket
        heapq.heappush(self._heap, tick)
        if tick < self._wake:
            self._wake = tick
            if self._scope is not None:
                self._scope.deadline = tick * TICK + self._offset
        return bucket

    def at(self, when: float, callback: Callable[[Any], None], arg: Any = None) -> Timer:
        """Call ``callback(arg)`` once the clock has reached ``when``."""
        timer = Timer(when, callback, arg)
        timer._bucket = self.put(when, timer)
        return timer

    def after(self, seconds: float, callback: Callable[[Any], None], arg: Any = None) -> Timer:
        """Call ``callback(arg)`` in ``seconds`` from now."""
        return self.at(self.now() + seconds, callback, arg)

    def pending(self) -> int:
        """How many wait for their time; lanes count for those in them."""
        timed = [one for bucket in self._buckets.values() for one in bucket]
        return sum(len(one.waiting) if isinstance(one, Lane) else 1 for one in timed)

    def expire(self) -> None:
        """Run what is due. Called by :meth:`run`; tests with a clock of their own call it themselves."""
        now = self.now()
        heap = self._heap
        while heap and heap[0] * TICK <= now:  # the same product as in run, or rounding would make it wait for ever
            bucket = self._buckets.pop(heapq.heappop(heap))
            while bucket:
                timed = next(iter(bucket))
                del bucket[timed]
                self._fire(timed)

    def _fire(self, timed: Timed) -> None:
        try:
            timed.expire()
        except Exception as error:  # noqa: BLE001 - one callback's bug must not stop the wheel
            self.crashed(error)

    def _next(self) -> float:
        """The first tick with something in it."""
        heap = self._heap
        while heap:
            tick = heap[0]
            if self._buckets[tick]:
                return tick
            del self._buckets[heapq.heappop(heap)]
        return inf

    async def run(self) -> None:
        """Serve the wheel until cancelled."""
        self._offset = trio.current_time() - self.now()
        while True:
            self._wake = self._next()
            with trio.CancelScope(deadline=self._wake * TICK + self._offset) as scope:
                self._scope = scope
                await trio.sleep_forever()
            self._scope = None
            self.expire()


class Lane(Generic[T]):
    """Waits of ``seconds`` each. ``waiting``: who waits, and until when; whoever is popped from it waits no more. ``last``:
    when the latest of them began; while the lane ``runs`` those that begin later may be put there without :meth:`add`.

    ``expired`` is called with each whose time has come.
    """

    __slots__ = ("_expired", "_seconds", "_timers", "last", "runs", "waiting")

    def __init__(self, timers: Timers, seconds: float, expired: Callable[[T], None]) -> None:
        self._timers = timers
        self._seconds = seconds
        self._expired = expired
        self.runs = False
        self.last = -inf
        self.waiting: dict[T, float] = {}

    def add(self, who: T, began: float | None = None) -> bool:
        """Let ``who``, who does not wait yet, wait from now on, or since ``began``. False if that would end before another wait
        that is here already: it is for the wheel then."""
        if began is None:
            began = self._timers.now()
        elif began < self.last:
            return False
        self.last = began
        self.waiting[who] = due = began + self._seconds
        if not self.runs:
            self.runs = True
            self._timers.put(due, self)
        return True

    def expire(self) -> None:
        """The time of the first has come, or would have."""
        now, waiting = self._timers.now(), self.waiting
        while waiting:
            who = next(iter(waiting))
            if waiting[who] > now:
                self._timers.put(waiting[who], self)
                return
            del waiting[who]
            self._tell(who)
        self.runs = False

    def _tell(self, who: T) -> None:
        try:
            self._expired(who)
        except Exception as error:  # noqa: BLE001 - one callback's bug must not stop the others
            self._timers.crashed(error)
