"""A backend that is a queue with several servers, and open-loop traffic towards it, all on a clock moved by hand."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

import attrs

from router.model.exchange import Exchange
from router.model.failure import Failure
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.strand import Waiter
from tests.support.fakes import Call, FakeHost


@attrs.define(eq=False)
class Job:
    exchange: Exchange
    over: Waiter[None]
    gone: bool = False


class Backend:
    """Works on ``servers`` exchanges at a time, for ``seconds()`` each; the others queue, first come first served."""

    def __init__(self, world: World, servers: int, seconds: Callable[[random.Random], float]) -> None:
        self.world, self.servers, self.seconds = world, servers, seconds
        self.busy = 0
        self.most = self.inside = 0
        self.queue: deque[Job] = deque()

    async def conduct(self, exchange: Exchange) -> None:
        job = Job(exchange, Waiter())
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.queue.append(job)
        self.work()
        try:
            await job.over
        finally:
            self.inside -= 1
            job.gone = True

    def work(self) -> None:
        while self.queue and self.busy < self.servers:
            job = self.queue.popleft()
            if not job.gone:
                self.busy += 1
                self.world.at(self.world.host.time + self.seconds(self.world.rng), self.done, job)

    def done(self, job: Job) -> None:
        self.busy -= 1
        self.work()
        if not job.gone:
            job.exchange.conclude(())
            job.exchange.respond(ResponseHead(200), True)
            job.over.wake(None)


@attrs.frozen
class Outcome:
    """``began`` and ``took`` in seconds; ``failure`` is None for an answer."""

    began: float
    took: float
    failure: Failure | None
    fields: Fields


class World:
    """Host, backend and clients; ``service`` is what clients call."""

    def __init__(self, seed: int = 1) -> None:
        self.host, self.rng = FakeHost(), random.Random(seed)
        self.service: Any = None
        self.outcomes: list[Outcome] = []
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0

    def at(self, when: float, fn: Callable[[Any], None], arg: Any = None) -> None:
        self._count += 1
        heappush(self._events, (when, self._count, fn, arg))

    def request(self, fields: Fields = (), deadline: float = inf) -> Call:
        began = self.host.time

        async def service(exchange: Exchange) -> None:
            failure: Failure | None = None
            if deadline != inf:
                exchange.tighten(began + deadline, "client")
            try:
                await self.service(exchange)
            except Failure as error:
                failure = error
            self.outcomes.append(Outcome(began, self.host.time - began, failure, fields))

        return Call(self.host, service, RequestHead(b"GET", b"http", b"web", b"/", fields))

    def traffic(
        self, rate: Callable[[float], float], until: float, fields: Callable[[], Fields] = tuple, deadline: float = inf
    ) -> None:
        """Poisson arrivals at ``rate(time)`` a second."""

        def arrive(_: Any) -> None:
            if self.host.time < until:
                self.request(fields(), deadline)
                self.at(self.host.time + self.rng.expovariate(rate(self.host.time)), arrive)

        self.at(self.host.time, arrive)

    def run(self, until: float = inf) -> None:
        """Let events happen, until then or until there are none."""
        host = self.host
        while self._events and self._events[0][0] <= until:
            when, _, fn, arg = heappop(self._events)
            host.time = max(host.time, when)
            host.timers.expire()
            fn(arg)
        if until != inf:
            host.pass_time(max(0.0, until - host.time))

    # -- what came of it ------------------------------------------------------------------------------------

    def between(self, start: float, end: float) -> list[Outcome]:
        return [one for one in self.outcomes if start <= one.began < end]

    def goodput(self, start: float, end: float, within: float = inf) -> float:
        """Answers a second to what began in that time (those that took longer than ``within`` are worth nothing)."""
        good = [one for one in self.outcomes if one.failure is None and start <= one.began + one.took < end]
        return sum(one.took <= within for one in good) / (end - start)

    def latency(self, share: float, start: float, end: float) -> float:
        """A percentile of the answers' latencies."""
        took = sorted(one.took for one in self.between(start, end) if one.failure is None)
        return took[int(share * len(took))] if took else inf
