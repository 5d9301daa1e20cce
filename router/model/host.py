"""What a worker gives to the strands that run in it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from router.model.events import Events
from router.model.lag import LoopLag
from router.model.strand import Strand, Waiter
from router.model.timers import Timers
from router.model.turn import Turn


def loop_clock() -> Callable[[], float]:
    """A clock that goes like that of the running trio loop. Where that is the system's it is asked directly: reading the clock
    takes a tenth of the time then, and an exchange reads it ten times."""
    clock = trio.lowlevel.current_clock()
    return time.perf_counter if type(clock).__name__ == "SystemClock" else clock.current_time


class Host:
    """Nursery, clock, timers, turns, events and loop lag of one worker, and the place where bugs are reported.

    ``crashed`` logs and counts; tests replace ``on_crash`` to make a bug fail the test. ``wall_ns``: the time of day, in
    nanoseconds of the epoch, for what is agreed on with other machines.
    """

    __slots__ = ("crashes", "events", "lag", "nursery", "on_crash", "timers", "turn", "wall_ns")

    def __init__(self, nursery: trio.Nursery, now: Callable[[], float] = trio.current_time) -> None:
        self.nursery = nursery
        self.crashes = 0
        self.events = Events()
        self.on_crash: Callable[[Exception], None] = self._tell_crash
        self.timers = Timers(now, self.crashed)
        self.turn = Turn()
        self.lag = LoopLag(self.timers, self._tell_stall)
        self.wall_ns: Callable[[], int] = time.time_ns

    def crashed(self, error: Exception) -> None:
        """Report a bug that ended a strand or a callback; the others go on."""
        self.crashes += 1
        self.on_crash(error)

    def _tell_stall(self, seconds: float) -> None:
        self.events.warn("loop_stalled", for_ms=round(seconds * 1000))

    def _tell_crash(self, error: Exception) -> None:
        self.events.fail("exchange_crashed", error=error)

    def start(self, coro: Any) -> Strand:
        """Make a strand of ``coro`` and run it to its first park."""
        strand = Strand(self, coro)
        strand.start()
        return strand

    def spawn(
        self,
        fn: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        scope: trio.CancelScope,
        waiter: Waiter[Any],
    ) -> None:
        """Run ``fn(*args)`` as a task; its end wakes ``waiter`` (see :func:`router.model.strand.in_trio`)."""
        self.nursery.start_soon(self._run_for, fn, args, scope, waiter)

    async def _run_for(
        self,
        fn: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        scope: trio.CancelScope,
        waiter: Waiter[Any],
    ) -> None:
        value: Any = None
        try:
            with scope:
                value = await fn(*args)
        except Exception as error:  # noqa: BLE001 - delivered to the strand that asked
            waiter.throw(error)
        else:
            waiter.wake(value)
