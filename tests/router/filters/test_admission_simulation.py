"""Limits in simulated overload: a backend works on a few of tens of thousands of requests at a time and queues the rest."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from router.filters.adaptive import AdaptiveConfig, AdaptiveLimit, sampling
from router.filters.admission import Gate, entrance
from router.filters.priority import PRIORITY
from router.filters.shedding import Shedding
from router.filters.stats import stats
from router.model.failure import Kind
from router.model.metrics import Metrics
from tests.support.queueing import Backend, World

Seconds = Callable[[random.Random], float]


def uniform(rng: random.Random) -> float:
    return 0.05 * (0.5 + rng.random())


def exponential(rng: random.Random) -> float:
    return rng.expovariate(20)


def bimodal(rng: random.Random) -> float:
    """Half of the calls are quick."""
    return (0.01 if rng.random() < 0.5 else 0.09) * (0.5 + rng.random())


MEAN = 0.05  # of all three


class Farm:
    """A backend with so many servers, behind an adaptive limit, a fixed one with a queue, or none."""

    def __init__(self, servers: int, seconds: Seconds, limit: int = 0, size: int = 0, gate: type[Gate] = Gate) -> None:
        self.world = World()
        self.metrics = Metrics()
        self.backend = Backend(self.world, servers, seconds)
        self.limits: list[tuple[float, int]] = []
        host: Any = self.world.host
        shedding = Shedding(host, self.metrics, "backend", 503, self.world.rng.random)
        self.gate = gate(host, limit or 1000, size, shedding, self.metrics)
        self.adaptive = None if limit else AdaptiveLimit(AdaptiveConfig(), self.gate, host, self.metrics)
        self.world.service = entrance(self.gate, stats(self.metrics, sampling(self.adaptive, self.backend.conduct), self.gate))
        self.world.at(0, self._look)

    def unlimited(self) -> Farm:
        self.world.service = self.backend.conduct
        return self

    def _look(self, _: Any) -> None:
        self.limits.append((self.world.host.time, self.gate.limit))
        if self.world.host.time < 40:
            self.world.at(self.world.host.time + 0.1, self._look)

    def speed(self, at: float, servers: int, seconds: Seconds) -> None:
        def change(_: Any) -> None:
            self.backend.servers, self.backend.seconds = servers, seconds
            self.backend.work()

        self.world.at(at, change)

    def limit(self, start: float, end: float) -> float:
        """The median limit of that time."""
        return median([limit for at, limit in self.limits if start <= at < end])

    def quiet(self) -> bool:
        self.world.host.pass_time(60)
        self.world.host.pass_time(60)
        return (self.gate.running, self.gate.waiting, self.world.host.timers.pending()) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "how"),
    [
        (uniform, "half of the servers"),
        (uniform, "half as fast"),
        (exponential, "half as fast"),
        (bimodal, "half of the servers"),
    ],
)
def test_capacity_halves_and_recovers(seconds: Seconds, how: str) -> None:
    """The limit settles at 1 to 2.4 times what the backend works on; goodput stays near capacity, p99 below twice what it is
    without a queue, while without the limit the latency grows as long as the overload lasts."""
    farm = Farm(20, seconds)
    servers, slow = (10, seconds) if how == "half of the servers" else (20, lambda rng: 2 * seconds(rng))
    farm.speed(10, servers, slow)
    farm.speed(20, 20, seconds)
    capacity = 20 / MEAN
    farm.world.traffic(lambda now: 1.5 * capacity, 30)
    farm.world.run()
    world, rng = farm.world, random.Random(2)
    alone = sorted(seconds(rng) for _ in range(10_000))[9900]
    for start, end, share, optimum, factor in (
        (4, 10, 1.0, 20, 1),
        (15, 20, 0.5, servers, 1 if servers == 10 else 2),
        (25, 30, 1.0, 20, 1),
    ):
        assert world.goodput(start, end) >= 0.8 * share * capacity
        assert optimum <= farm.limit(start, end) <= 2.4 * optimum
        assert world.latency(0.99, start, end) <= 2 * alone * factor
    for start in (10, 20):  # while the limit is looked for
        assert world.goodput(start, start + 5) >= 0.75 * capacity * (0.5 if start == 10 else 1)
    assert farm.quiet()


@pytest.mark.slow
def test_without_a_limit_latency_explodes() -> None:
    farm = Farm(20, uniform).unlimited()
    farm.world.traffic(lambda now: 600, 20)
    farm.world.run(20)
    assert farm.world.latency(0.5, 10, 12) > 40 * MEAN


def test_a_limit_that_is_not_reached_refuses_nobody() -> None:
    farm = Farm(20, exponential)
    farm.world.traffic(lambda now: 2 if now < 30 else 120, 36)
    farm.world.run()
    assert all(one.failure is None for one in farm.world.outcomes)
    assert farm.quiet()


def mixed(rng: random.Random) -> Any:
    return ((PRIORITY, b"sheddable"),) if rng.random() < 0.7 else ()


@pytest.mark.parametrize("size", [0, 40])
def test_the_important_hardly_notice_an_overload(size: int) -> None:
    farm = Farm(20, uniform, limit=20, size=size)
    farm.world.traffic(lambda now: 800, 5, lambda: mixed(farm.world.rng))
    farm.world.run()
    important = [one for one in farm.world.outcomes if not one.fields]
    others = [one for one in farm.world.outcomes if one.fields]
    served = sum(one.failure is None for one in important) / len(important)
    assert served >= (0.999 if size else 0.9)
    assert sum(one.failure is None for one in others) / len(others) < 0.4
    assert farm.world.goodput(1, 5) >= (0.98 if size else 0.8) * 400
    assert farm.backend.most == 20
    assert farm.quiet()


class LastComeFirstServed(Gate):
    """What the gate does not do."""

    __slots__ = ()

    def _first(self) -> Any:
        queue = next(filter(None, self._queues))
        return queue[next(reversed(queue))]


class Careless(Gate):
    """Lets everybody wait, whatever the deadline."""

    __slots__ = ()

    def learn(self, exchange: Any, since: float) -> None:
        pass

    def _moved(self, now: float) -> None:
        pass


def in_time(gate: type[Gate]) -> tuple[float, int]:
    """Answers a second within the deadline, in an overload; and how many were sent in vain."""
    farm = Farm(20, exponential, limit=20, size=400, gate=gate)
    farm.world.traffic(lambda now: 600, 6, deadline=0.5)
    farm.world.run()
    assert farm.quiet()
    late = [one for one in farm.world.outcomes if one.failure is not None and one.failure.kind is Kind.DEADLINE]
    return farm.world.goodput(2, 6, 0.5), len(late)


@pytest.mark.slow
def test_a_queue_that_knows_deadlines_works_for_those_who_can_be_served() -> None:
    careful, careful_late = in_time(Gate)
    lifo, _ = in_time(LastComeFirstServed)
    careless, careless_late = in_time(Careless)
    assert careful > 0.94 * 400
    assert careful > 0.96 * lifo  # and without its unfairness
    assert careless < 0.15 * 400  # each is sent when it is too late for it
    assert careful_late < careless_late / 10
