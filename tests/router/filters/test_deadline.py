"""Deadlines of clients and routers: the strictest wins, nonsense is ignored, and endpoints are told what is left."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.filters.deadline import CTX_DEADLINE, SKEW, DeadlineConfig, Deadlines, deadline_in, deadline_out
from router.filters.stats import stats
from router.filters.timeout import attempt_timeout, total_timeout
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Waiter
from tests.support.fakes import NOON, Call, FakeHost, answering, waiting

MS = 1_000_000


def at(*milliseconds: int) -> tuple[tuple[bytes, bytes], ...]:
    """Headers with deadlines so many milliseconds after noon."""
    return tuple([(CTX_DEADLINE, b"%d %d" % (NOON, NOON + after * MS)) for after in milliseconds])


def request(*fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", b"http", b"web", b"/", fields)


class World:
    """A server's deadlines in front of a service."""

    def __init__(self, service: Any, config: DeadlineConfig | None = None) -> None:
        self.host, self.metrics = FakeHost(), Metrics()
        deadlines = Deadlines(config or DeadlineConfig(), self.metrics)
        self.service = stats(Metrics(), deadline_in(deadlines, service), missed=deadlines.missed)

    def call(self, *fields: tuple[bytes, bytes]) -> Call:
        return Call(self.host, self.service, request(*fields))

    def count(self, name: str) -> float:
        return self.metrics.flat().get(f"deadline/{name}", 0)


@pytest.mark.parametrize(("milliseconds", "expected"), [((300,), 0.3), ((300, 100, 200), 0.1)])
def test_the_earliest_of_the_clients_deadlines_holds(milliseconds: tuple[int, ...], expected: float) -> None:
    made = World(answering()).call(*at(*milliseconds))
    assert made.failure is None
    assert (made.exchange.deadline, made.exchange.deadline_cause) == (pytest.approx(expected), "client")


@pytest.mark.parametrize(
    "value",
    [b"", b"1", b"1 2 3", b"1  2", b" 1 2", b"1 2 ", b"-1 2", b"1.0 2", b"1 2\n", b"0x1 2", b"1 " + b"9" * 20,
     "\u0661 \u0662".encode()],
)  # fmt: skip
def test_nonsense_is_ignored_counted_and_not_told_on(value: bytes) -> None:
    world = World(answering())
    made = world.call((CTX_DEADLINE, value), (b"a", b"b"))
    assert made.failure is None
    assert made.exchange.deadline == float("inf")
    assert made.exchange.request.fields == ((b"a", b"b"),)
    assert world.count("malformed") == 1


def test_one_that_can_be_read_holds_beside_nonsense() -> None:
    world = World(answering())
    assert world.call((CTX_DEADLINE, b"?"), *at(100)).exchange.deadline == pytest.approx(0.1)
    assert world.count("malformed") == 1


@given(st.binary(max_size=50))
def test_no_header_hurts(value: bytes) -> None:
    made = World(answering()).call((CTX_DEADLINE, value))
    assert made.done
    assert made.failure is None or made.failure.kind is Kind.DEADLINE


def test_an_expired_request_is_not_begun() -> None:
    world = World(answering())
    made = world.call(*at(-1))
    assert made.failure is not None
    assert (made.failure.kind, made.failure.blame, made.failure.cause) == (Kind.DEADLINE, Blame.CLIENT, "client")
    assert world.count("client") == 1


def test_a_clock_that_is_off_takes_no_service_down() -> None:
    world = World(answering())
    calls = [world.call(*at(-1000)) for _ in range(500)]
    refused = sum(made.failure is not None for made in calls)
    assert refused == 500 * SKEW.percent_can_retry + SKEW.min_retries_per_sec * SKEW.ttl_secs
    assert world.count("skewed") == 500 - refused
    let_through = [made.exchange.request.fields for made in calls if made.failure is None]
    assert set(let_through) == {()}  # and the next router is spared our doubts


CAUSES = [("client", 0.1, 0.2, 0.3), ("route", 0.3, 0.1, 0.2), ("router", 0.3, 0.2, 0.1)]


@pytest.mark.parametrize(("cause", "client", "route", "router"), CAUSES)
def test_the_strictest_wins_and_says_so(cause: str, client: float, route: float, router: float) -> None:
    world = World(total_timeout(route, router, waiting(Waiter())))
    made = world.call(*at(round(client * 1000)))
    world.host.pass_time(0.099)
    assert not made.done
    world.host.pass_time(0.003)
    assert made.failure is not None
    assert made.failure.cause == cause
    assert made.failure.why == f"exceeded 100 ms {cause} timeout"
    assert made.failure.blame is (Blame.CLIENT if cause == "client" else Blame.UPSTREAM)
    assert world.count(cause) == 1


def test_the_clock_starts_with_the_head() -> None:
    host, late = FakeHost(), total_timeout(1.0, None, answering())

    async def after_a_while(exchange: Exchange) -> None:
        host.time += 0.4
        await late(exchange)

    assert Call(host, after_a_while, request()).exchange.deadline == 1.0


def test_an_attempts_own_limit_is_a_cause_too() -> None:
    world = World(attempt_timeout(0.1, waiting(Waiter())))
    made = world.call()
    world.host.pass_time(0.2)
    assert made.failure is not None
    assert made.failure.cause == "attempt"
    assert world.count("attempt") == 1


def test_the_status_is_linkerds_or_504() -> None:
    for status, answer in ((503, (503, True)), (504, (504, False))):
        made = World(answering(), DeadlineConfig(status=status)).call(*at(-1))
        assert made.failure is not None
        assert (made.failure.answer.http, made.failure.answer.reset) == answer
        assert made.failure.answer.grpc == 4


def test_events_are_told_now_and_then() -> None:
    world = World(total_timeout(None, 1.0, waiting(Waiter())))
    for _ in range(30):
        made = world.call()
        world.host.pass_time(1.002)
        assert made.done
    told = [event.fields for event in world.host.events.recent]
    assert [fields["times"] for fields in told] == [1, 10, 10]
    assert {fields["cause"] for fields in told} == {"router"}


def test_the_endpoint_is_told_what_is_left_rounded_down() -> None:
    host, seen = FakeHost(), list[bytes | None]()

    async def endpoint(exchange: Exchange) -> None:
        seen.append(exchange.request.get(CTX_DEADLINE))
        await answering()(exchange)

    out = deadline_out(endpoint)

    async def later(exchange: Exchange) -> None:
        exchange.tighten(0.25, "route")
        host.time += 0.1
        await out(exchange)

    Call(host, later, request())
    assert seen[0] is not None
    stamp, deadline = map(int, seen[0].split())
    assert stamp == NOON + 100 * MS
    assert NOON + 250 * MS - 1000 <= deadline <= NOON + 250 * MS


def test_without_a_deadline_nothing_is_told() -> None:
    made = Call(FakeHost(), deadline_out(answering()), request())
    assert made.exchange.request.fields == ()


def test_an_attempt_is_not_begun_without_time() -> None:
    host, begun = FakeHost(), list[Exchange]()

    async def endpoint(exchange: Exchange) -> None:
        begun.append(exchange)

    out = deadline_out(endpoint)

    async def too_late(exchange: Exchange) -> None:
        exchange.tighten(0.25, "route")
        host.time = 0.25
        await out(exchange)

    made = Call(host, too_late, request())
    assert isinstance(made.failure, Failure)
    assert made.failure.cause == "route"
    assert begun == []


def test_a_tunnel_has_its_deadline_until_it_is_open() -> None:
    for opened in (False, True):
        host, asked, over = FakeHost(), Waiter[None](), Waiter[None]()

        async def tunnel(exchange: Exchange, asked: Waiter[None] = asked, over: Waiter[None] = over) -> None:
            await asked
            exchange.open(ResponseHead(101))
            await over

        call = Call(host, total_timeout(1.0, None, tunnel))
        if opened:
            host.pass_time(0.9)
            asked.wake(None)
        host.pass_time(3600.0)
        assert call.done is not opened
        assert (call.failure is None) is opened
        over.wake(None)
        assert call.done
        assert call.reply.started is opened
