"""Simulated time around real code: a clock, events, a host for strands, and trio for what insists on it.

Theory of operation

1. Time is a number. Events are a heap of (time, callback); between them nothing happens, so nothing is waited for. The router's
   wheel (:class:`router.model.timers.Timers`) is turned by hand at each of its ticks: its timers ring as late as in production.
2. Strands need no scheduler, so an exchange costs its own code and two or three events. trio's autojump clock would run the
   same simulation, but pays for a turn of its loop and a wake-up of the wheel's task at every step of time: 70 µs a step when
   measured, against 2 µs here.
3. Pools open connections in tasks. Those run in a real trio loop whose clock is the simulation's: new tasks are started one at
   a time and run until all are blocked; so are those that an event has woken, and those whose deadlines have passed at a tick.
4. Everything random follows the seed: the world draws from ``rng``, the router from the module ``random``, which is seeded for
   the time of the simulation and restored afterwards.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from typing import Any, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from router.model.host import Host
from router.model.timers import TICK

T = TypeVar("T")
NOON = 1_700_000_000_000_000_000  # when the simulation begins, in nanoseconds of the epoch


class World:
    """One simulation; ``bugs``: what strands and callbacks crashed with."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.time = 0.0
        self.rng = random.Random(seed)
        self.bugs: list[Exception] = []
        self.tasks = _Tasks()
        self.host = Host(self.tasks, self.now)  # type: ignore[arg-type]
        self.host.on_crash = self.bugs.append
        self.host.wall_ns = lambda: NOON + int(self.time * 1e9)
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0
        self._tick = 0

    def now(self) -> float:
        """Seconds since the beginning."""
        return self.time

    def at(self, when: float, callback: Callable[[Any], None], arg: Any = None) -> None:
        """Call ``callback(arg)`` at that time, exactly."""
        self._count += 1
        heappush(self._events, (when, self._count, callback, arg))

    def after(self, seconds: float, callback: Callable[[Any], None], arg: Any = None) -> None:
        """Call ``callback(arg)`` in ``seconds``."""
        self.at(self.time + seconds, callback, arg)

    async def sleep(self, seconds: float) -> None:
        """For trio tasks: wait for an event of the simulation."""
        event = trio.Event()
        self.after(seconds, self._ring, event)
        await event.wait()

    def _ring(self, event: trio.Event) -> None:
        event.set()
        self.tasks.stirred = self.tasks.rung = True

    async def advance(self, until: float) -> None:
        """Let time pass."""
        events, timers, tasks = self._events, self.host.timers, self.tasks
        while self.time < until:
            self._tick += 1
            edge = self._tick * TICK
            while events and events[0][0] <= edge:
                self.time, _, callback, arg = heappop(events)
                callback(arg)
                if tasks.stirred:
                    await tasks.settle()
            self.time = edge
            timers.expire()
            if tasks.alive and trio.lowlevel.current_statistics().seconds_to_next_deadline <= 0:
                tasks.stirred = tasks.rung = True
            if tasks.stirred:
                await tasks.settle()


class _Tasks:
    """Stands for the host's nursery."""

    def __init__(self) -> None:
        self.nursery: Any = None
        self.stirred = self.rung = False  # something is to be run; a task that waited is among it
        self.alive = 0
        self._new: list[tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]] = []

    def start_soon(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._new.append((fn, args))
        self.alive += 1
        self.stirred = True

    async def settle(self) -> None:
        """Run the tasks until all wait."""
        while self.rung or self._new:
            if not self.rung:
                self.nursery.start_soon(self._run, *self._new.pop(0))
            self.rung = False
            await wait_all_tasks_blocked()
        self.stirred = False

    async def _run(self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        finally:
            self.alive -= 1


class _Clock(trio.abc.Clock):
    """trio's view of simulated time: it never passes while trio waits."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self._world.time

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0 if deadline <= self._world.time else 1e6


def play(seed: int, script: Callable[[World], Awaitable[T]]) -> T:
    """Run ``script``, which builds things and calls :meth:`World.advance`, in a world of its own.

    Bugs in strands, callbacks and tasks are raised.
    """
    world = World(seed)

    async def main() -> T:
        async with trio.open_nursery() as nursery:
            world.tasks.nursery = nursery
            result = await script(world)
            nursery.cancel_scope.cancel()
        return result

    state, thresholds = random.getstate(), gc.get_threshold()
    random.seed(seed)
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    try:
        result = trio.run(main, clock=_Clock(world))
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        random.setstate(state)
    if world.bugs:
        raise world.bugs[0]
    return result
