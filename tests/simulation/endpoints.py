"""Simulated endpoints: machines that work, queue, fail and vanish, and the sessions that lead to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from dtab import Endpoint
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import ResponseHead
from router.model.strand import Waiter
from tests.simulation.world import World

CONNECT_SECONDS = 0.001
FAIL_SECONDS = 0.001
OK, UNAVAILABLE = ResponseHead(200, length=0), ResponseHead(503, length=0)
OK.shared = UNAVAILABLE.shared = True


class Machine:
    """``workers`` calls at a time, each ``seconds()`` long; the others queue, and what its caller has given up is worked
    off all the same, as most servers do.

    ``slowness`` multiplies the work. ``failing``: the share of calls that is answered with 503 at once. ``silent``: accepts and
    never answers. ``arrivals``: when calls came.
    """

    def __init__(self, world: World, name: int, workers: int, seconds: Callable[[], float]) -> None:
        self.world = world
        self.endpoint = Endpoint(f"10.0.0.{name}", 80)
        self.workers = workers
        self.seconds = seconds
        self.slowness = 1.0
        self.failing = 0.0
        self.silent = False
        self.up = True
        self.connects = 0
        self.arrivals: list[float] = []
        self.sessions: dict[Session, None] = {}  # in order, so that a seed means one run
        self.busy = 0
        self.queue: deque[Waiter[ResponseHead]] = deque()
        self._life = 0

    def take(self, call: Waiter[ResponseHead]) -> None:
        """A call has arrived."""
        self.arrivals.append(self.world.time)
        if self.silent:
            return
        if self.failing and self.world.rng.random() < self.failing:
            self.world.after(FAIL_SECONDS, self._refuse, call)
        elif self.busy < self.workers:
            self._work(call)
        else:
            self.queue.append(call)

    def _refuse(self, call: Waiter[ResponseHead]) -> None:
        call.wake(UNAVAILABLE)

    def _work(self, call: Waiter[ResponseHead]) -> None:
        self.busy += 1
        self.world.after(self.seconds() * self.slowness, self._done, (call, self._life))

    def _done(self, what: tuple[Waiter[ResponseHead], int]) -> None:
        call, life = what
        if life != self._life:
            return
        self.busy -= 1
        if self.queue:
            self._work(self.queue.popleft())
        call.wake(OK)

    def stop(self) -> None:
        """Gone at once: connections break, new ones are refused."""
        self.up = False
        self._life += 1
        self.busy = 0
        self.queue.clear()
        for session in list(self.sessions):
            session.lost()

    def start(self) -> None:
        """Back again."""
        self.up = True


class Session:
    """A connection with room for ``streams`` exchanges at a time: a :class:`router.spi.Session`."""

    def __init__(self, machine: Machine, streams: int) -> None:
        self.machine = machine
        self.closed = self.draining = False
        self.changed: Callable[[Any], None] = lambda session: None
        self.begun = 0
        self._streams = streams
        self._running: dict[Waiter[ResponseHead], None] = {}
        machine.sessions[self] = None

    @property
    def free(self) -> int:
        """How many more exchanges it takes."""
        return 0 if self.closed or self.draining else self._streams - len(self._running)

    @property
    def active(self) -> int:
        """How many are under way."""
        return len(self._running)

    async def conduct(self, exchange: Exchange) -> None:
        """One exchange: ends with the machine's answer, or with the session."""
        call: Waiter[ResponseHead] = Waiter()
        self.begun += 1
        full = len(self._running) + 1 == self._streams
        self._running[call] = None
        self.machine.take(call)
        try:
            head = await call
            exchange.conclude(())
            exchange.respond(head, True)
        finally:
            del self._running[call]
            if self.draining and not self._running:
                self.close()
            elif full and self.free:
                self.changed(self)

    def lost(self) -> None:
        """The machine is gone."""
        self._end()
        for call in list(self._running):
            call.throw(Failure(Kind.RESET, "connection to the endpoint lost", Blame.UPSTREAM))

    def drain(self) -> None:
        """Take nothing new."""
        self.draining = True
        if not self._running:
            self.close()

    def close(self) -> None:
        """Close now."""
        self.lost()

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self.machine.sessions.pop(self)
            self.changed(self)


class Network:
    """Connects to machines by address; ``refused`` counts connections that could not be opened."""

    def __init__(self, world: World, machines: list[Machine], streams: int) -> None:
        self._world = world
        self._machines = {(machine.endpoint.host, machine.endpoint.port): machine for machine in machines}
        self._streams = streams

    async def connect(self, host: str, port: int) -> Session:
        """A :data:`router.spi.Connect`."""
        await self._world.sleep(CONNECT_SECONDS)
        machine = self._machines[host, port]
        machine.connects += 1
        if not machine.up:
            raise OSError(111, "Connection refused")
        return Session(machine, self._streams)
