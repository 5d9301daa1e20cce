"""Balancers in simulated traffic of tens of thousands of requests: endpoints that serve, slowly or badly, on our own clock."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from statistics import mean
from typing import Any

import attrs
import pytest

from router.balance import aperture, ewma, heap, p2c, round_robin
from router.spi import BalancerContext

KINDS = {"p2c": p2c, "ewma": ewma, "heap": heap, "roundRobin": round_robin, "aperture": aperture}


@attrs.define(eq=False)
class Endpoint:
    """Serves ``parallel`` requests at a time, each for ``seconds`` on average; the rest queue."""

    name: str
    seconds: float = 0.01
    parallel: int = 1
    good: bool = True
    weight: float = 1.0
    load: int = 0
    available: bool = True
    metric: Any = None
    service: Any = None
    served: int = 0
    busy: list[float] = attrs.field(factory=list)

    def show(self) -> str:
        return self.name

    def accept(self, now: float, rng: random.Random) -> float:
        """When a request that comes now is over."""
        while len(self.busy) >= self.parallel:
            now = max(now, heappop(self.busy))
        over = now + self.seconds * (0.5 + rng.random())
        heappush(self.busy, over)
        return over


class Simulation:
    def __init__(self, kind: str, endpoints: list[Endpoint], seed: int = 7, **config: Any) -> None:
        self.now, self.rng, self.endpoints = 0.0, random.Random(seed), endpoints
        module = KINDS[kind]
        context = BalancerContext(lambda: self.now, self.rng.random)
        self.policy = module.make(module.Config(**config), context)
        self.pick = self.policy.make_picker(tuple(endpoints))
        self.over: list[tuple[float, int, float, Endpoint]] = []
        self.latencies: list[float] = []
        self.count = 0

    def _finish(self, until: float) -> None:
        while self.over and self.over[0][0] <= until:
            self.now, _, began, endpoint = heappop(self.over)
            endpoint.load -= 1
            self.latencies.append(self.now - began)
            if self.policy.ended is not None:
                self.policy.ended(endpoint, self.now - began, endpoint.good)

    def run(self, requests: int, per_second: float) -> Simulation:
        """That many requests, at random moments."""
        at = self.now
        for _ in range(requests):
            at += self.rng.expovariate(per_second)
            self._finish(at)
            self.now = at
            endpoint: Any = self.pick()
            endpoint.load += 1
            endpoint.served += 1
            self.count += 1
            heappush(self.over, (endpoint.accept(at, self.rng), self.count, at, endpoint))
        return self

    def percentile(self, share: float) -> float:
        return sorted(self.latencies)[int(share * len(self.latencies))]


def farm(count: int, **of_all: Any) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{at}:80", **of_all) for at in range(count)]


@pytest.mark.slow
def test_the_tail_with_one_slow_endpoint() -> None:
    tails = {}
    for kind in ("roundRobin", "p2c", "ewma"):
        endpoints = farm(10, seconds=0.01, parallel=4)
        endpoints[3].seconds = 0.2
        tails[kind] = Simulation(kind, endpoints).run(20_000, 1000).percentile(0.99)
    assert tails["ewma"] < tails["p2c"] < tails["roundRobin"]
    assert tails["ewma"] < 0.03  # hardly anybody meets the slow one


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["p2c", "ewma", "heap", "roundRobin"])
def test_equal_endpoints_get_equal_shares(kind: str) -> None:
    endpoints = farm(20, seconds=0.01, parallel=8)
    Simulation(kind, endpoints).run(20_000, 2000)
    served = [endpoint.served for endpoint in endpoints]
    assert max(served) / mean(served) < (1.01 if kind == "roundRobin" else 1.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["p2c", "ewma", "heap", "roundRobin"])
def test_shares_follow_weights(kind: str) -> None:
    endpoints = farm(12, seconds=0.01, parallel=50)
    for at, endpoint in enumerate(endpoints):
        endpoint.weight = 1.0 + at % 3
    Simulation(kind, endpoints).run(20_000, 8000)
    for endpoint in endpoints:  # latencies differ by chance, which ewma goes by as well
        assert endpoint.served == pytest.approx(20_000 * endpoint.weight / 24, rel=0.35 if kind == "ewma" else 0.15)


@pytest.mark.slow
def test_who_fails_fast_does_not_look_fast() -> None:
    shares = {}
    for kind in ("p2c", "ewma"):
        endpoints = farm(10, seconds=0.05, parallel=20)
        endpoints[0].seconds, endpoints[0].good = 0.001, False
        Simulation(kind, endpoints).run(20_000, 500)
        shares[kind] = endpoints[0].served / 20_000
    assert shares["p2c"] > 0.15  # the black hole that least-loaded balancing is known for
    assert shares["ewma"] < 0.02


def test_a_slow_endpoint_that_recovers_is_used_again() -> None:
    endpoints = farm(4, seconds=0.01, parallel=10)
    endpoints[0].seconds = 0.5
    simulation = Simulation("ewma", endpoints, decay_time_ms=1000).run(3000, 500)
    endpoints[0].seconds, endpoints[0].served = 0.01, 0
    simulation.run(4000, 500)
    assert endpoints[0].served > 400


@pytest.mark.slow
def test_an_aperture_is_as_large_as_the_load_needs() -> None:
    endpoints = farm(50, seconds=0.02, parallel=20)
    simulation = Simulation("aperture", endpoints).run(4000, 100)  # about two requests under way
    used = sum(endpoint.served > 0 for endpoint in endpoints)
    assert used <= 5
    for endpoint in endpoints:
        endpoint.served = 0
    simulation.run(30_000, 2000)  # about forty
    busy = sum(endpoint.served > 100 for endpoint in endpoints)
    assert 15 <= busy <= 50
    for endpoint in endpoints:
        endpoint.served = 0
    simulation.run(3000, 50)
    simulation.run(1000, 50)
    for endpoint in endpoints:
        endpoint.served = 0
    simulation.run(500, 50)
    assert sum(endpoint.served > 0 for endpoint in endpoints) <= 5


@pytest.mark.parametrize(("count", "peers"), [(10, 3), (100, 7), (3, 10), (24, 12), (1, 1), (13, 1)])
def test_deterministic_apertures_cover_the_ring_alike(count: int, peers: int) -> None:
    parts = [aperture.shares(count, peers, peer) for peer in range(peers)]
    sums = [sum(part[at] for part in parts) for at in range(count)]
    assert max(sums) == pytest.approx(min(sums), rel=1e-6)
    assert all(sum(part) >= min(12, count) - 1e-6 for part in parts)


@pytest.mark.slow
def test_routers_with_deterministic_apertures_load_all_alike() -> None:
    endpoints = farm(60, seconds=0.01, parallel=50)
    for peer in range(5):
        for endpoint in endpoints:
            endpoint.load, endpoint.busy = 0, []
        Simulation("aperture", endpoints, seed=peer, peers=5, peer=peer).run(6000, 1000)
    served = [endpoint.served for endpoint in endpoints]
    assert max(served) / mean(served) < 1.25
    assert min(served) / mean(served) > 0.75
