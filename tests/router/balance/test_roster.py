"""Slow start and probation, in a balancer with fake pools."""

from __future__ import annotations

from typing import Any

import pytest

from dtab import AddrBound, Endpoint, Ok, Source
from router.balance import p2c
from router.balance.balancer import Balancer
from router.balance.roster import LEAST_SHARE, MAX_PROBATION, Roster
from router.model.metrics import Metrics
from router.spi import BalancerContext
from tests.support.fakes import FakeHost


class Pool:
    sessions = 0

    def __init__(self, endpoint: Endpoint) -> None:
        self.closed = False

    async def conduct(self, exchange: Any) -> None:
        raise AssertionError("nothing is sent here")

    def close(self) -> None:
        self.closed = True


def addresses(*ports: int, weight: float = 2.0) -> Ok[Any]:
    return Ok(AddrBound(frozenset(Endpoint("10.0.0.1", port, weight) for port in ports)))


class Rig:
    def __init__(self, roster: Roster) -> None:
        self.host = FakeHost()
        self.source: Source[Any] = Source(addresses(1, 2))
        balancing = p2c.make(p2c.Config(), BalancerContext(lambda: self.host.time))
        self.balancer = Balancer(self.source, balancing, Pool, self.host.timers, Metrics(), None, roster)  # type: ignore[arg-type]

    def weights(self) -> dict[int, float]:
        return {target.endpoint.port: round(target.weight, 3) for target in self.balancer.targets}

    def timers(self) -> int:
        return sum(len(bucket) for bucket in self.host.timers._buckets.values())


def test_without_either_nothing_is_timed() -> None:
    rig = Rig(Roster())
    rig.source.set(addresses(1, 3))
    assert rig.weights() == {1: 2.0, 3: 2.0}
    assert rig.timers() == 0


def test_an_endpoint_that_joins_others_starts_slowly() -> None:
    rig = Rig(Roster(slow_start=10))
    assert rig.weights() == {1: 2.0, 2: 2.0}
    rig.source.set(addresses(1, 2, 3))
    assert rig.weights() == {1: 2.0, 2: 2.0, 3: 2 * LEAST_SHARE}
    for _ in range(100):
        rig.host.pass_time(0.05)
    assert rig.weights()[3] == pytest.approx(1.0, abs=0.15)
    rig.source.set(addresses(1, 2, 3, weight=4.0))
    assert rig.weights()[3] == pytest.approx(2.0, abs=0.3)
    for _ in range(110):
        rig.host.pass_time(0.05)
    assert rig.weights() == {1: 4.0, 2: 4.0, 3: 4.0}
    assert rig.timers() == 0


def test_what_discovery_drops_stays_while_it_works() -> None:
    rig = Rig(Roster(probation=True))
    rig.source.set(addresses(1))
    assert rig.weights() == {1: 2.0, 2: 2.0}
    gone = rig.balancer.targets[1]
    rig.host.pass_time(1.1)
    assert rig.weights() == {1: 2.0, 2: 2.0}
    gone.available = False
    rig.host.pass_time(1.1)
    assert rig.weights() == {1: 2.0}
    assert gone.pool.closed  # type: ignore[attr-defined]
    assert rig.timers() == 0


def test_probation_ends_when_discovery_returns_or_patience_ends() -> None:
    rig = Rig(Roster(probation=True))
    rig.source.set(addresses(1))
    rig.source.set(addresses(1, 2))
    assert rig.timers() == 0
    rig.source.set(addresses(2))
    for _ in range(3):
        rig.host.pass_time(MAX_PROBATION / 2)
    assert rig.weights() == {2: 2.0}
    rig.source.set(addresses(3))
    rig.balancer.close()
    assert rig.timers() == 0
