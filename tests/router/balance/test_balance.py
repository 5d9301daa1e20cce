"""Pools and balancers. (What every picker is: tests/contracts.)"""

from __future__ import annotations

import random
import sys
from pathlib import Path as FilePath
from typing import Any

import attrs
import pytest
import trio
import trio.testing

sys.path.insert(0, str(FilePath(__file__).parents[2]))
from support.fakes import Call, FakeHost, FakeSession, answering

from dtab import AddrBound, AddrFailed, AddrNeg, AddrPending, Endpoint, Failed, Ok, Source
from router.balance import p2c
from router.balance.balancer import Balancer
from router.balance.pool import Pool, PoolSettings
from router.balance.pool_stats import PoolStats
from router.model.failure import Failure, Kind
from router.model.host import Host
from router.model.metrics import Metrics
from router.spi import BalancerContext

P2C = p2c.make(p2c.Config(), BalancerContext(lambda: 0.0))


@attrs.define(eq=False)
class Target:
    load: int = 0
    weight: float = 1.0
    available: bool = True
    service: Any = None


# -- pools ----------------------------------------------------------------------------------------------------


class Connecting:
    """Opens fake sessions, or fails."""

    def __init__(self, limit: int = 1, error: Exception | None = None, delay: float = 0.0) -> None:
        self.sessions: list[FakeSession] = []
        self.limit, self.error, self.delay = limit, error, delay

    async def __call__(self, host: str, port: int) -> Any:
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        self.sessions.append(FakeSession(self.limit))
        return self.sessions[-1]


def pool(nursery: trio.Nursery, connecting: Any, per_connection: int = 1, limit: int = 10) -> Pool:
    host = Host(nursery)
    settings = PoolSettings(per_connection, limit)
    return Pool(host, connecting, ("127.0.0.1", 1), settings, PoolStats(Metrics()))


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_pool_reuses_what_is_idle(nursery: trio.Nursery) -> None:
    connecting = Connecting()
    made = pool(nursery, connecting)
    host: Any = made._host
    calls = [Call(host, made.conduct) for _ in range(3)]
    await settle()
    assert made.sessions == 3
    for session in connecting.sessions:
        session.finish()
    assert all(call.done and call.failure is None for call in calls)
    again = Call(host, made.conduct)
    assert made.sessions == 3
    next(session for session in connecting.sessions if session.running).finish()
    assert again.done


async def test_a_stream_limit_makes_calls_queue_or_open_connections_up_to_the_cap(nursery: trio.Nursery) -> None:
    connecting = Connecting(limit=1)
    made = pool(nursery, connecting, per_connection=100, limit=3)
    calls = [Call(made._host, made.conduct) for _ in range(15)]
    for _ in range(40):
        await settle()
        for session in connecting.sessions:
            if session.running:
                session.finish()
    assert all(call.done and call.failure is None for call in calls)
    assert len(connecting.sessions) <= 3
    assert made.waiting == 0


@pytest.mark.parametrize("error", [OSError(111, "Connection refused"), Failure(Kind.PROTOCOL, "not h2")])
async def test_a_failed_connect_fails_those_who_wait(nursery: trio.Nursery, error: Exception) -> None:
    made = pool(nursery, Connecting(error=error))
    calls = [Call(made._host, made.conduct) for _ in range(3)]
    await settle()
    for call in calls:
        assert call.failure is not None
        assert call.failure.kind is Kind.CONNECT
        assert call.failure.retryable
        assert call.failure.why.startswith("Unable to establish connection to 127.0.0.1:1.")
    assert made.waiting == 0


async def test_connecting_takes_a_second_at_most(nursery: trio.Nursery, autojump_clock: Any) -> None:
    made = pool(nursery, Connecting(delay=100))
    call = Call(made._host, made.conduct)
    await trio.sleep(1.1)
    assert call.failure is not None
    assert call.failure.kind is Kind.CONNECT


async def test_a_cancelled_exchange_leaves_the_queue(nursery: trio.Nursery) -> None:
    connecting = Connecting(delay=1000)
    made = pool(nursery, connecting)
    call = Call(made._host, made.conduct)
    assert made.waiting == 1
    call.strand.cancel(Failure(Kind.DEADLINE, "late"))
    assert made.waiting == 0
    nursery.cancel_scope.cancel()


async def test_an_endpoint_that_is_removed_finishes_what_runs(nursery: trio.Nursery) -> None:
    connecting = Connecting()
    made = pool(nursery, connecting)
    call = Call(made._host, made.conduct)
    await settle()
    made.close()
    assert not call.done
    connecting.sessions[0].finish()
    assert call.done
    assert call.failure is None


async def test_any_schedule_ends_every_exchange_once(nursery: trio.Nursery) -> None:
    rng = random.Random(7)
    connecting = Connecting(limit=2)
    made = pool(nursery, connecting, per_connection=2, limit=4)
    calls: list[Call] = []
    for _ in range(400):
        choice = rng.random()
        busy = [session for session in connecting.sessions if session.running]
        if choice < 0.5:
            calls.append(Call(made._host, made.conduct))
        elif choice < 0.8 and busy:
            rng.choice(busy).finish()
        elif choice < 0.85 and busy:
            rng.choice(busy).close()
        elif calls:
            rng.choice(calls).strand.cancel(Failure(Kind.DEADLINE, "late"))
        if rng.random() < 0.3:
            await settle()
    for _ in range(1000):
        await settle()
        busy = [session for session in connecting.sessions if session.running]
        if not busy and not made.waiting:
            break
        for session in busy:
            session.finish()
    assert all(call.done for call in calls)
    assert made.waiting == 0


# -- balancers ------------------------------------------------------------------------------------------------


class OnePool:
    """A pool that answers at once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.closed = False
        self.sessions = 0
        self.conduct = answering()

    def close(self) -> None:
        self.closed = True


def bound(*ports: int) -> Ok[Any]:
    return Ok(AddrBound(frozenset([Endpoint("127.0.0.1", port) for port in ports])))


def balancer(addr: Any) -> Balancer:
    return Balancer(addr, P2C, OnePool, FakeHost().timers, Metrics())  # type: ignore[arg-type]


def test_endpoints_survive_changes_and_keep_their_loads() -> None:
    addr: Source[Any] = Source(bound(1, 2))
    made = balancer(addr)
    before = {target.endpoint.port: target for target in made.targets}
    before[2].load = 5
    addr.set(bound(2, 3))
    after = {target.endpoint.port: target for target in made.targets}
    assert set(after) == {2, 3}
    assert after[2] is before[2]
    assert before[1].pool.closed  # type: ignore[attr-defined]
    assert not before[2].pool.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize("news", [Ok(AddrPending()), Ok(AddrFailed("x")), Failed(OSError("x"))])
def test_trouble_of_discovery_never_takes_endpoints_away(news: Any) -> None:
    addr: Source[Any] = Source(bound(1))
    made = balancer(addr)
    addr.set(news)
    assert len(made.targets) == 1
    addr.set(Ok(AddrNeg()))
    assert made.targets == []


def test_exchanges_wait_for_the_first_answer() -> None:
    addr: Source[Any] = Source()
    made = balancer(addr)
    call = Call(FakeHost(), made.conduct)
    assert not call.done
    addr.set(bound(1))
    assert call.done
    assert call.failure is None
    assert made.targets[0].load == 0


def test_no_endpoints_is_a_failure_that_tells_why() -> None:
    empty = Call(FakeHost(), balancer(Source(bound())).conduct)
    assert empty.failure is not None
    assert empty.failure.kind is Kind.NO_ENDPOINTS
    failed = Call(FakeHost(), balancer(Source(Ok(AddrFailed("bad file")))).conduct)
    assert failed.failure is not None
    assert "bad file" in failed.failure.why
