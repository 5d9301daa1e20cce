"""The pool: pace, back-off, limits, stale connections, and that on any schedule every exchange ends once and nothing leaks."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from router.balance import pace as paces
from router.balance.pace import Pace
from router.balance.pool import Pool, PoolSettings
from router.balance.pool_stats import PoolStats
from router.model.backoff import constant, equal_jitter
from router.model.body import FixedSource
from router.model.exchange import Exchange
from router.model.expiry import SessionLimits
from router.model.failure import Blame, Failure, Kind
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.stale import StaleConnection
from tests.support.fakes import Call, FakeSession

LATE = Failure(Kind.DEADLINE, "late")


class ByHand:
    """Attempts to connect that end when, and how, the test says."""

    def __init__(self) -> None:
        self.attempts: list[tuple[trio.Event, list[Any]]] = []
        self.sessions: list[FakeSession] = []
        self.most = 0

    async def __call__(self, host: str, port: int) -> Any:
        attempt: tuple[trio.Event, list[Any]] = (trio.Event(), [])
        self.attempts.append(attempt)
        self.most = max(self.most, len(self.attempts))
        try:
            await attempt[0].wait()
        finally:
            if attempt in self.attempts:
                self.attempts.remove(attempt)
        if isinstance(attempt[1][0], Exception):
            raise attempt[1][0]
        self.sessions.append(attempt[1][0])
        return attempt[1][0]

    def end(self, outcome: Any, at: int = 0) -> None:
        event, box = self.attempts.pop(at)
        box.append(outcome)
        event.set()


@attrs.define
class Rig:
    host: Host
    connect: ByHand
    metrics: Metrics
    pool: Pool
    calls: list[Call] = attrs.field(factory=list)

    def call(self, body: Any = None) -> Call:
        self.calls.append(Call(self.host, self._conduct_with(body)))
        return self.calls[-1]

    def end(self) -> None:
        for call in self.calls:
            call.strand.cancel(LATE)

    def _conduct_with(self, body: Any) -> Callable[[Exchange], Any]:
        async def conduct(exchange: Exchange) -> None:
            exchange.body = body
            if body is not None:
                body.keep(1000)
            await self.pool.conduct(exchange)

        return conduct


REFUSED = OSError(111, "Connection refused")


def make_rig(nursery: trio.Nursery, **settings: Any) -> Rig:
    host, connect, metrics = Host(nursery), ByHand(), Metrics()
    host.on_crash = _raise
    nursery.start_soon(host.timers.run)
    given = {"max_connections": 10, "backoff": constant(1.0), **settings}
    return Rig(host, connect, metrics, Pool(host, connect, ("127.0.0.1", 1), PoolSettings(**given), PoolStats(metrics)))


@pytest.fixture
async def rig(nursery: trio.Nursery) -> AsyncIterator[Callable[..., Rig]]:
    """Makes rigs; what is still under way at the end is cancelled."""
    made: list[Rig] = []

    def make(**settings: Any) -> Rig:
        made.append(make_rig(nursery, **settings))
        return made[-1]

    yield make
    for one in made:
        one.end()
    nursery.cancel_scope.cancel()


def _raise(error: Exception) -> None:
    raise error


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- pace -----------------------------------------------------------------------------------------------------


def test_attempts_double_with_each_round_trip_and_are_bounded() -> None:
    pace = Pace(lambda: 0.0, constant(1.0))
    rounds = []
    for _ in range(9):
        while pace.may_begin():
            pace.connecting += 1
        rounds.append(pace.connecting)
        for _ in range(pace.connecting):
            pace.connecting -= 1
            pace.succeeded()
    assert rounds == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_a_sign_of_life_ends_a_wait_and_not_the_back_off() -> None:
    now = [0.0]
    waits = iter([1.0, 2.0])
    pace = Pace(lambda: now[0], lambda: waits)
    pace.failed()
    assert not pace.may_begin()
    pace.hurry()
    assert pace.may_begin()
    pace.failed()
    now[0] = 1.9
    assert not pace.may_begin()


def test_back_off_grows_with_failures_and_ends_with_a_success() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0], equal_jitter(0.1, 5.0, lambda: 1.0))
    waits = []
    for _ in range(8):
        pace.failed()
        pace.failed()  # one that was under way at the same time is no failure of its own
        assert not pace.may_begin()
        waits.append(round(pace.until - now[0], 6))
        now[0] = pace.until
        assert pace.may_begin()
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    pace.succeeded()
    assert not pace.failing
    pace.failed()
    assert round(pace.until - now[0], 6) == 0.1


# -- opening --------------------------------------------------------------------------------------------------


async def test_one_connection_is_tried_first_and_the_others_follow(rig: Any, autojump_clock: Any) -> None:
    made = rig()
    calls = [made.call() for _ in range(9)]
    seen = []
    while made.pool.waiting:
        await settle()
        seen.append(len(made.connect.attempts))
        for _ in range(len(made.connect.attempts)):
            made.connect.end(FakeSession(1))
            await settle()
            if len(seen) > 20:
                break
    assert seen[:1] == [1]
    assert made.connect.most <= 8
    assert len(made.connect.sessions) == 9
    for session in made.connect.sessions:
        session.finish()
    assert all(call.failure is None for call in calls)


async def test_while_it_backs_off_everybody_fails_at_once_and_then_one_connection_is_tried(
    rig: Any, autojump_clock: Any
) -> None:
    made = rig()
    first = [made.call() for _ in range(5)]
    await settle()
    made.connect.end(REFUSED)
    await settle()
    assert [call.failure.kind for call in first] == [Kind.CONNECT] * 5  # type: ignore[union-attr]
    during = made.call()
    assert during.failure is not None
    assert (during.failure.kind, during.failure.retryable, during.failure.rejected) == (Kind.CONNECT, True, False)
    assert during.failure.why == "Unable to establish connection to 127.0.0.1:1.\nConnection refused"
    assert made.connect.attempts == []
    await trio.sleep(1.01)
    probe, beyond = made.call(), made.call()
    await settle()
    assert len(made.connect.attempts) == 1
    assert not probe.done
    assert beyond.failure is not None  # the queue behind one connection is what that connection carries
    made.connect.end(FakeSession(1))
    await settle()
    more = [made.call() for _ in range(3)]
    await settle()
    assert all(not call.done for call in more)
    assert made.pool.connecting == 2
    assert [event.name for event in made.host.events.recent] == ["endpoint_unreachable", "endpoint_reachable"]


async def test_waiters_of_an_endpoint_that_serves_wait_while_its_connects_fail(rig: Any, autojump_clock: Any) -> None:
    made = rig()
    calls = [made.call()]
    await settle()
    made.connect.end(FakeSession(1))
    await settle()
    calls.append(made.call())
    for _ in range(3):
        await settle()
        made.connect.end(REFUSED)
        await settle()
        assert (made.pool.waiting, made.connect.attempts) == (1, [])
        await trio.sleep(1.01)  # the alarm: nobody comes, but somebody waits
    await settle()
    assert len(made.connect.attempts) == 1
    made.connect.sessions[0].finish()
    assert calls[0].done
    made.connect.sessions[0].finish()
    assert [call.failure for call in calls] == [None, None]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL])
async def test_what_we_lack_ourselves_is_not_the_endpoints_fault(rig: Any, autojump_clock: Any, number: int) -> None:
    made = rig()
    call = made.call()
    await settle()
    made.connect.end(OSError(number, "as told"))
    await settle()
    assert (call.failure.kind, call.failure.blame) == (Kind.CONNECT, Blame.ROUTER)
    assert [event.name for event in made.host.events.recent] == ["connecting_impossible"]
    call = made.call()
    await settle()
    made.connect.end(REFUSED)
    await settle()
    assert call.failure.blame is Blame.UPSTREAM


async def test_connect_timeout(rig: Any, autojump_clock: Any) -> None:
    made = rig(connect_timeout=0.25)
    call = made.call()
    await trio.sleep(0.24)
    assert not call.done
    await trio.sleep(0.02)
    assert call.failure is not None
    assert call.failure.why.endswith("\ntimed out")
    counted = made.metrics.flat()
    assert (counted["connect_failures"], counted["failed_connect_latency_ms.count"], counted["connects"]) == (1, 1, 0)
    assert counted["failed_connect_latency_ms.sum"] == pytest.approx(250, abs=2)


async def test_an_endpoint_that_drains_at_once_is_not_asked_in_a_loop(rig: Any, autojump_clock: Any) -> None:
    made = rig()
    call = made.call()
    await settle()
    session = FakeSession(1)
    session.drain()
    made.connect.end(session)
    await settle()
    assert call.failure is not None
    assert call.failure.kind is Kind.CONNECT
    assert (made.connect.attempts, made.pool.sessions) == ([], 0)


async def test_a_peer_without_room_makes_exchanges_wait_until_it_has(rig: Any, autojump_clock: Any) -> None:
    made = rig(per_connection=100)
    call = made.call()
    await settle()
    session = FakeSession(0)
    made.connect.end(session)
    await settle()
    assert (call.done, made.pool.waiting, made.connect.attempts) == (False, 1, [])
    session.limit = 1
    session.changed(session)
    session.finish()
    assert call.failure is None


async def test_what_one_connection_carried_is_what_is_expected_of_the_next(rig: Any, autojump_clock: Any) -> None:
    made = rig(per_connection=100)
    for _ in range(15):
        made.call()
    await settle()
    made.connect.end(FakeSession(1))
    await settle()
    assert made.pool.connecting == 2  # 14 wait, for 14 connections, as fast as the pace allows


async def test_bounds_of_connections_and_of_the_queue(rig: Any, autojump_clock: Any) -> None:
    made = rig(max_connections=2, max_waiters=3)
    calls = [made.call() for _ in range(6)]
    assert [call.done for call in calls] == [False] * 3 + [True] * 3
    assert calls[3].failure is not None
    assert (calls[3].failure.kind, calls[3].failure.rejected) == (Kind.OVERLOADED, True)
    for _ in range(2):
        await settle()
        made.connect.end(FakeSession(1))
    await settle()
    assert (made.pool.sessions, made.pool.waiting, made.connect.attempts) == (2, 1, [])
    counted = made.metrics.flat()
    names = ("pool_size", "pool_cached", "pool_waiters", "pool_num_waited", "pool_num_too_many_waiters", "connects")
    assert [counted[name] for name in names] == [2, 0, 1, 3, 3, 2]
    assert counted["connect_latency_ms.count"] == 2


# -- leaving --------------------------------------------------------------------------------------------------


async def test_idle_sessions_beyond_the_minimum_go(rig: Any, autojump_clock: Any) -> None:
    made = rig(min_size=1, surplus_idle=10.0)
    for _ in range(3):
        made.call()
    while made.pool.waiting:
        await settle()
        made.connect.end(FakeSession(1))
        await settle()
    for session in made.connect.sessions:
        session.finish()
    await trio.sleep(9)
    assert made.metrics.flat()["pool_cached"] == 3
    await trio.sleep(5)
    assert (made.pool.sessions, made.metrics.flat()["expired/idle"]) == (1, 2)
    await trio.sleep(100)
    assert made.pool.sessions == 1


async def test_sessions_expire_without_losing_an_exchange(rig: Any, autojump_clock: Any) -> None:
    made = rig(per_connection=100, session=SessionLimits(idle=10.0, life=100.0))
    long = made.call()
    await settle()
    made.connect.end(FakeSession(100))
    await trio.sleep(111)
    (old,) = made.connect.sessions
    assert (old.draining, old.closed, long.done) == (True, False, False)
    new = made.call()
    await settle()
    made.connect.end(FakeSession(100))
    await settle()
    made.connect.sessions[1].finish()
    assert (new.done, new.failure) == (True, None)
    await trio.sleep(13)
    assert (made.connect.sessions[1].closed, old.closed, made.pool.sessions) == (True, False, 1)
    old.finish()
    assert (long.failure, made.pool.sessions) == (None, 0)
    counted = made.metrics.flat()
    assert (counted["expired/idle"], counted["expired/lifetime"]) == (1, 1)
    assert made.host.timers.pending() == 0


@pytest.mark.parametrize(("per_connection", "opens"), [(1, False), (100, True)])
async def test_draining_connections_keep_no_place_that_one_stream_could_keep(
    rig: Any, per_connection: int, opens: bool
) -> None:
    made = rig(per_connection=per_connection, max_connections=1)
    made.call()
    await settle()
    made.connect.end(FakeSession(per_connection))
    await settle()
    made.connect.sessions[0].drain()
    made.call()
    await settle()
    assert bool(made.connect.attempts) is opens


# -- stale connections ----------------------------------------------------------------------------------------


class Idle(FakeSession):
    """Was idle, and ends under its next exchange."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__(1)
        self.sent = sent
        self.bodies: list[bytes] = []

    async def conduct(self, exchange: Exchange) -> None:
        self.begun += 1
        self.closed = True
        self.changed(self)
        raise StaleConnection("gone", sent=self.sent)


async def _idle(made: Rig, *sessions: FakeSession) -> None:
    for session in sessions:
        made.connect.sessions.append(session)
        made.pool._opened(session)


@pytest.mark.parametrize("body", [None, b"hello"])
async def test_what_never_left_is_sent_on_any_other_session(rig: Any, autojump_clock: Any, body: Any) -> None:
    made = rig()
    await _idle(made, FakeSession(1), *[Idle(sent=False) for _ in range(8)])
    call = made.call(None if body is None else FixedSource(body))
    assert made.connect.sessions[0].running
    made.connect.sessions[0].finish()
    assert call.failure is None
    assert (made.pool.sessions, made.metrics.flat()["stale_replays"]) == (1, 8)


async def test_what_may_have_arrived_is_sent_once_more_and_on_a_new_connection(rig: Any, autojump_clock: Any) -> None:
    made = rig()
    await _idle(made, *[Idle(sent=True) for _ in range(3)])
    call = made.call()
    await settle()
    made.connect.end(FakeSession(1))
    await settle()
    made.connect.sessions[-1].finish()
    assert call.failure is None
    assert made.pool.sessions == 3
    again = rig()
    await _idle(again, Idle(sent=True))
    call = again.call()
    await settle()
    again.connect.end(Idle(sent=True))
    await settle()
    assert isinstance(call.failure, StaleConnection)


async def test_a_body_that_was_not_kept_is_not_sent_again(rig: Any, autojump_clock: Any) -> None:
    made = rig()
    await _idle(made, FakeSession(1), Idle(sent=False))
    call = made.call(FixedSource(b"x" * 2000))
    assert isinstance(call.failure, StaleConnection)
    assert call.failure.retryable


# -- any schedule ---------------------------------------------------------------------------------------------

STEPS = st.sampled_from(
    ["begin", "begin", "begin", "finish", "open", "open", "refuse", "close", "drain", "cancel", "resize", "wait", "full"]
)
MAX_SIZE, MAX_AT_ONCE = 4, 3


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(STEPS, st.integers(0, 30)), max_size=40),
    st.sampled_from([(1, None), (2, None), (100, 3.0)]),
    st.booleans(),
)
def test_on_any_schedule_every_exchange_ends_once_and_nothing_leaks(
    schedule: list[tuple[str, int]], kind: tuple[int, float | None], expires: bool
) -> None:
    per_connection, surplus = kind

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            session = SessionLimits(2.0, 5.0) if expires else SessionLimits()
            made = make_rig(
                nursery, per_connection=per_connection, max_connections=MAX_SIZE, surplus_idle=surplus, session=session,
                connect_timeout=2.0, max_waiters=20,
            )  # fmt: skip
            calls: list[Call] = []
            for step, number in schedule:
                await _step(made, calls, step, number, per_connection)
                _check(made, per_connection)
            await _finish(made, calls)
            assert made.host.timers.pending() == 0
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock(autojump_threshold=0)
    before, paces.MAX_ATTEMPTS = paces.MAX_ATTEMPTS, MAX_AT_ONCE
    try:
        trio.run(run, clock=clock)
    finally:
        paces.MAX_ATTEMPTS = before


async def _step(made: Rig, calls: list[Call], step: str, number: int, per_connection: int) -> None:
    connect = made.connect
    alive = [session for session in connect.sessions if not session.closed]
    busy = [session for session in alive if session.running]
    if step == "begin":
        calls.append(made.call())
    elif step == "finish" and busy:
        busy[number % len(busy)].finish()
    elif step == "open" and connect.attempts:
        connect.end(FakeSession(1 + number % per_connection), number % len(connect.attempts))
    elif step == "full" and connect.attempts and per_connection > 1:
        connect.end(FakeSession(0), number % len(connect.attempts))
    elif step == "refuse" and connect.attempts:
        connect.end(REFUSED, number % len(connect.attempts))
    elif step == "close" and alive:
        alive[number % len(alive)].close()
    elif step == "drain" and alive:
        alive[number % len(alive)].drain()
    elif step == "cancel" and calls:
        calls[number % len(calls)].strand.cancel(LATE)
    elif step == "resize" and alive and per_connection > 1:
        session = alive[number % len(alive)]
        session.limit = number % 4
        if session.free:
            session.changed(session)
    elif step == "wait":
        await trio.sleep(number / 20)
    await settle()


def _check(made: Rig, per_connection: int) -> None:
    alive = [session for session in made.connect.sessions if not session.closed]
    serving = [session for session in alive if not session.draining or per_connection == 1]
    assert len(serving) + len(made.connect.attempts) <= MAX_SIZE
    assert len(alive) <= 2 * MAX_SIZE
    assert made.connect.most <= MAX_AT_ONCE
    assert made.pool.sessions == len(alive)
    assert made.pool.connecting == len(made.connect.attempts)
    free = [session for session in alive if session.free]
    assert not (free and made.pool.waiting), "somebody waits beside a session that could serve"


async def _finish(made: Rig, calls: list[Call]) -> None:
    """Everything that can end, ends by itself; then the pool is closed."""
    for _ in range(200):
        for _ in range(len(made.connect.attempts)):
            made.connect.end(FakeSession(1))
            await settle()
        for session in made.connect.sessions:
            while session.running:
                session.finish()
            if session.limit == 0 and not session.closed:
                session.close()
        await settle()
        if all(call.done for call in calls):
            break
        await trio.sleep(1)
    for call in calls:
        assert call.done
        assert (call.failure is None) == (call.reply.head is not None)
    assert made.pool.waiting == 0
    made.pool.close()
    await trio.sleep(3)
    assert (made.pool.sessions, made.pool.connecting) == (0, 0)
    assert all(session.closed for session in made.connect.sessions)
    assert made.pool._stats.pools == set()
