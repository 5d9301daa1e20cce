"""What balancers learn from how exchanges end, and that an endpoint which is tried again begins anew."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from dtab import AddrBound, Endpoint, Ok, Source
from router.balance import aperture, ewma, heap, p2c, round_robin
from router.balance.balancer import Balancer
from router.balance.breaker import BreakerSettings, BreakerStats
from router.model.backoff import constant
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind, client_gone
from router.model.headers import ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Waiter
from router.spi import Accrual, BalancerContext, Balancing
from tests.support.fakes import Call, FakeHost, answering

GONE = client_gone("reset")
RESET = Failure(Kind.RESET, "reset", Blame.UPSTREAM, code=2)
FULL = Failure(Kind.OVERLOADED, "full", retryable=True, rejected=True)


@attrs.define
class Pool:
    endpoint: Endpoint
    conduct: Any
    sessions: int = 0

    def close(self) -> None:
        pass


class Limit:
    """An accrual policy: one failure is enough."""

    def success(self) -> None:
        pass

    revived = success

    def failure(self) -> bool:
        return True


def addresses(*ports: int) -> Source[Any]:
    return Source(Ok(AddrBound(frozenset([Endpoint("127.0.0.1", port) for port in ports]))))


@pytest.mark.parametrize(
    ("failure", "responded", "told"),
    [
        (None, True, True),
        (RESET, True, False),
        (RESET, False, False),
        (GONE, False, None),
        (GONE, True, True),
        (FULL, False, None),
        (Failure(Kind.BUG, "ours"), False, None),
    ],
)
def test_what_a_balancer_is_told(failure: Failure | None, responded: bool, told: bool | None) -> None:
    seen: list[tuple[float, bool | None]] = []
    balancing = Balancing(lambda targets: lambda: targets[0], lambda target, seconds, good: seen.append((seconds, good)))
    host = FakeHost()

    async def endpoint(exchange: Exchange) -> None:
        host.time += 0.5
        if responded:
            exchange.respond(ResponseHead(200), False)
        host.time += 0.25
        if failure is not None:
            raise failure
        exchange.conclude(())

    made = Balancer(addresses(1), balancing, lambda at: Pool(at, endpoint), host.timers, Metrics())  # type: ignore[arg-type,return-value]
    Call(host, made.conduct)
    assert seen == [(0.5 if responded else 0.75, told)]


@attrs.define(eq=False)
class Target:
    name: str
    load: int = 0
    weight: float = 1.0
    available: bool = True
    service: Any = None
    metric: Any = None

    def show(self) -> str:
        return self.name


def test_a_client_that_leaves_early_makes_nobody_look_fast() -> None:
    clock = [0.0]
    balancing = ewma.make(ewma.Config(), BalancerContext(lambda: clock[0], lambda: 0.0))
    target = Target("a")
    balancing.make_picker((target,))
    assert balancing.ended is not None
    balancing.ended(target, 0.2, True)
    balancing.ended(target, 0.001, None)
    assert target.metric.cost == 0.2
    balancing.ended(target, 0.3, None)  # it took at least so long
    assert target.metric.cost == 0.3
    balancing.ended(target, 0.001, True)
    assert target.metric.cost == pytest.approx(0.3)


def test_a_failure_costs_a_share_of_five_seconds() -> None:
    clock = [0.0]
    balancing = ewma.make(ewma.Config(decay_time_ms=10_000), BalancerContext(lambda: clock[0], lambda: 0.0))
    target = Target("a")
    balancing.make_picker((target,))
    assert balancing.ended is not None
    balancing.ended(target, 0.01, True)
    clock[0] = 1.0
    balancing.ended(target, 0.001, False)
    weight = 2.718281828459045 ** (-1 / 10)
    assert target.metric.cost == pytest.approx(0.01 * weight + 5.0 * (1 - weight))


def test_an_ejected_endpoint_is_probed_as_soon_as_it_may_be() -> None:
    """Its failures made it look slow; by that measure it would not be picked for many seconds."""
    host, metrics = FakeHost(), Metrics()
    broken = True
    waiters: list[Waiter[None]] = []

    def make_pool(at: Endpoint) -> Any:
        async def endpoint(exchange: Exchange) -> None:
            if at.port == 1 and broken:
                host.time += 3.0
                raise RESET
            waiter: Waiter[None] = Waiter()
            waiters.append(waiter)
            await waiter
            await answering()(exchange)

        return Pool(at, endpoint)

    stats = BreakerStats(metrics)
    breakers = BreakerSettings(host, Accrual(Limit, constant(0.4)), stats, "/#/web")  # type: ignore[arg-type]
    draws = iter(range(1_000_000))
    context = BalancerContext(lambda: host.time, lambda: (next(draws) * 0.381966) % 1.0)
    made = Balancer(addresses(1, 2, 3), ewma.make(ewma.Config(), context), make_pool, host.timers, metrics, breakers)

    def one() -> None:
        Call(host, made.conduct)
        host.pass_time(0.01)
        for waiter in waiters:
            waiter.wake(None)
        waiters.clear()

    while not stats.removals.value:
        one()
    broken = False
    host.pass_time(0.5)
    for _ in range(6):
        one()
    assert (stats.probes.value, stats.revivals.value) == (1, 1)


@pytest.mark.parametrize("module", [p2c, ewma, heap, round_robin, aperture])
@pytest.mark.parametrize("weights", [(1.0,), (1.0, 3.0, 0.5)])
@pytest.mark.parametrize("peers", [0, 2])
def test_who_is_ejected_is_picked_only_when_all_are(module: Any, weights: tuple[float, ...], peers: int) -> None:
    config = module.Config(peers=peers) if module is aperture else module.Config()
    draws = iter(range(1_000_000))
    context = BalancerContext(lambda: 0.0, lambda: (next(draws) * 0.618034) % 1.0)
    targets = [Target(str(at), weight=weights[at % len(weights)], available=False) for at in range(40)]
    pick = module.make(config, context).make_picker(targets)
    assert all(pick() in targets for _ in range(50))
    targets[17].available = True
    assert {pick() for _ in range(50)} == {targets[17]}
