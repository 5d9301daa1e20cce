"""Pools and balancers when things go wrong at the edges: partial failures, bugs, changed weights, silent discovery."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path as FilePath
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(FilePath(__file__).parents[2]))
from support.fakes import Call, FakeHost, FakeSession

from dtab import AddrBound, Endpoint, Ok, Source, read_path
from router.balance import balancer as balancers
from router.balance import p2c
from router.balance.balancer import Balancer
from router.balance.pool import Pool, PoolSettings
from router.balance.pool_stats import PoolStats
from router.model.failure import Failure, Kind
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.strand import Waiter
from router.spi import BalancerContext

P2C = p2c.make(p2c.Config(), BalancerContext(lambda: 0.0))


class Scripted:
    """Connects as the script says, one entry an attempt: an error to raise, or the streams that a session takes."""

    def __init__(self, *script: Exception | int) -> None:
        self.script = list(script)
        self.sessions: list[FakeSession] = []

    async def __call__(self, host: str, port: int) -> Any:
        await trio.lowlevel.checkpoint()
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        self.sessions.append(FakeSession(step))
        return self.sessions[-1]


def pool(nursery: trio.Nursery, connect: Any, per_connection: int = 1, limit: int = 10) -> tuple[Pool, Any]:
    host = Host(nursery)
    pool_settings = PoolSettings(per_connection, limit)
    return Pool(host, connect, ("127.0.0.1", 1), pool_settings, PoolStats(Metrics())), host


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_the_first_connection_that_fails_fails_those_who_wait_for_it(nursery: trio.Nursery) -> None:
    connect = Scripted(OSError(111, "refused"))
    made, host = pool(nursery, connect)
    calls = [Call(host, made.conduct) for _ in range(4)]
    await settle()
    assert [call.failure is not None for call in calls].count(True) == 4
    assert (made.waiting, made.connecting, connect.script) == (0, 0, [])


async def test_a_failed_connection_fails_nobody_while_others_serve(nursery: trio.Nursery) -> None:
    connect = Scripted(2, OSError(111, "refused"))
    made, host = pool(nursery, connect, per_connection=2, limit=2)
    calls = [Call(host, made.conduct) for _ in range(3)]
    await settle()
    assert made.waiting == 1
    connect.sessions[0].finish()
    assert (len(connect.sessions[0].running), made.waiting) == (2, 0)
    while connect.sessions[0].running:
        connect.sessions[0].finish()
    assert all(call.done and call.failure is None for call in calls)


async def test_a_bug_in_a_protocols_connect_ends_the_exchange_and_not_the_worker(
    nursery: trio.Nursery, autojump_clock: Any
) -> None:
    made, host = pool(nursery, Scripted(ValueError("a bug"), 1))
    seen: list[Exception] = []
    host.on_crash = seen.append
    call = Call(host, made.conduct)
    await settle()
    assert call.failure is not None
    assert call.failure.kind is Kind.CONNECT
    assert [type(error) for error in seen] == [ValueError]
    await trio.sleep(0.11)  # the back-off
    again = Call(host, made.conduct)
    await settle()
    assert not again.done  # it runs: the pool went on


async def test_a_closed_pool_refuses_at_once(nursery: trio.Nursery) -> None:
    made, host = pool(nursery, Scripted())
    made.close()
    call = Call(host, made.conduct)
    assert call.failure is not None
    assert (call.failure.kind, call.failure.retryable) == (Kind.CONNECT, True)


async def test_a_pool_closed_while_it_connects_closes_what_comes(nursery: trio.Nursery) -> None:
    connect = Scripted(1)
    made, host = pool(nursery, connect)
    call = Call(host, made.conduct)
    made.close()
    assert call.failure is not None
    await settle()
    assert connect.sessions[0].closed
    assert made.sessions == 0


# -- balancers ------------------------------------------------------------------------------------------------


class ScriptedPool:
    """A pool whose exchanges wait for the test; ``sessions`` is for the gauge."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.closed = False
        self.sessions = 0
        self.running: list[Waiter[None]] = []

    async def conduct(self, exchange: Any) -> None:
        waiter: Waiter[None] = Waiter()
        self.running.append(waiter)
        try:
            await waiter
        finally:
            self.running.remove(waiter)

    def close(self) -> None:
        self.closed = True


def bound(*endpoints: Endpoint) -> Ok[Any]:
    return Ok(AddrBound(frozenset(endpoints)))


def balancer(addr: Any, metrics: Metrics | None = None) -> Balancer:
    return Balancer(addr, P2C, ScriptedPool, FakeHost().timers, metrics or Metrics())  # type: ignore[arg-type]


def test_an_endpoint_whose_weight_changes_keeps_its_connections_and_load() -> None:
    addr: Source[Any] = Source(bound(Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)))
    made = balancer(addr)
    before = made.targets
    before[0].load = 3
    addr.set(bound(Endpoint("127.0.0.1", 1, 5.0, (("zone", "a"),)), Endpoint("127.0.0.1", 2)))
    assert made.targets == before
    assert (before[0].weight, before[0].load) == (5.0, 3)
    assert before[0].endpoint.meta == (("zone", "a"),)
    assert not before[0].pool.closed  # type: ignore[attr-defined]


class Leaving(ScriptedPool):
    """A pool that fails what waits in it when it is closed."""

    def close(self) -> None:
        super().close()
        for waiter in list(self.running):
            waiter.throw(Failure(Kind.NO_ENDPOINTS, "removed"))


@pytest.mark.parametrize("another", [True, False])
def test_who_fails_because_an_endpoint_leaves_does_not_meet_it_again(another: bool) -> None:
    host, first, second = FakeHost(), Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)
    addr: Source[Any] = Source(bound(first))
    made = Balancer(addr, P2C, Leaving, host.timers, Metrics())  # type: ignore[arg-type]
    met: list[Any] = []

    async def twice(exchange: Any) -> None:
        try:
            await made.conduct(exchange)
        except Failure:
            exchange.endpoint = None
            try:
                await made.conduct(exchange)
            finally:
                met.append(exchange.endpoint)

    call = Call(host, twice)
    if another:
        addr.set(bound(second))
        made.targets[0].pool.running[0].wake(None)  # type: ignore[attr-defined]
    else:
        made.close()
    assert call.done
    assert met == [second if another else None]


def test_silent_discovery_ends_the_wait_in_time() -> None:
    host, made = FakeHost(), balancer(Source())

    async def named(exchange: Any) -> None:
        exchange.path = read_path("/svc/web")
        await made.conduct(exchange)

    call = Call(host, named)
    host.pass_time(9.9)
    assert not call.done
    host.pass_time(0.2)
    assert call.failure is not None
    assert call.failure.kind is Kind.BINDING_TIMEOUT
    assert call.failure.why == "Exceeded 10.seconds binding timeout while resolving name: /svc/web"


def test_the_wait_for_discovery_leaves_no_timer_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancers, "MAX_WAITERS", 2)
    host, addr = FakeHost(), Source[Any]()
    made = balancer(addr)
    calls = [Call(host, made.conduct) for _ in range(3)]
    assert calls[2].failure is not None
    assert (calls[2].failure.kind, calls[2].failure.rejected) == (Kind.OVERLOADED, True)
    calls[0].strand.cancel(Failure(Kind.DEADLINE, "late"))
    addr.set(bound(Endpoint("127.0.0.1", 1)))
    assert host.timers.pending() == 0
    assert made.targets[0].load == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["begin", "finish", "fail", "cancel", "move"]), st.integers(0, 99)), max_size=40))
def test_loads_return_to_zero_on_any_schedule(schedule: list[tuple[str, int]]) -> None:
    host, metrics = FakeHost(), Metrics()
    addr: Source[Any] = Source(bound(Endpoint("127.0.0.1", 1)))
    made = balancer(addr, metrics)
    pools: dict[int, Any] = {}
    calls: list[Call] = []
    every: dict[int, Any] = {}

    def look() -> None:
        for target in made.targets:
            every[id(target)] = target
            pools[id(target.pool)] = target.pool

    for action, number in schedule:
        look()
        running = [waiter for known in pools.values() for waiter in known.running]
        if action == "begin":
            calls.append(Call(host, made.conduct))
        elif action == "finish" and running:
            running[number % len(running)].wake(None)
        elif action == "fail" and running:
            running[number % len(running)].throw(Failure(Kind.RESET, "gone"))
        elif action == "cancel" and calls:
            calls[number % len(calls)].strand.cancel(Failure(Kind.DEADLINE, "late"))
        elif action == "move":
            addr.set(bound(*[Endpoint("127.0.0.1", port) for port in range(4) if number >> port & 1]))
        look()
        assert sum(target.load for target in every.values()) == sum(not call.done for call in calls)
    for call in calls:
        call.strand.cancel(Failure(Kind.DEADLINE, "late"))
    assert all(target.load == 0 for target in every.values())
    assert metrics.flat()["load"] == 0


# -- weights --------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Target:
    weight: float
    load: int = 0
    available: bool = True
    service: Any = None


def test_idle_endpoints_are_picked_in_proportion_to_their_weights() -> None:
    context = BalancerContext(lambda: 0.0, random.Random(3).random)
    targets = [Target(1.0), Target(3.0), Target(0.0)]
    pick = p2c.make(p2c.Config(), context).make_picker(targets)
    seen = Counter(id(pick()) for _ in range(4000))
    assert seen[id(targets[1])] / seen[id(targets[0])] == pytest.approx(3.0, rel=0.15)
    assert seen[id(targets[2])] == 0


def test_without_any_weight_all_are_equal() -> None:
    targets = [Target(0.0), Target(0.0)]
    pick = P2C.make_picker(targets)
    assert {id(pick()) for _ in range(100)} == {id(target) for target in targets}
