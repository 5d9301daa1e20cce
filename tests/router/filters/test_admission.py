"""Limits: who passes, who waits, who is refused, in which order, with which words; and that nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.filters.admission import Gate, admission, entrance
from router.filters.priority import CLASSES, PRIORITY
from router.filters.shedding import FIRST, LAST, QUIET, Shedding
from router.filters.stats import stats
from router.model.answers import grpc_trailers, nack
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Waiter
from tests.support.fakes import Call, FakeHost

GONE = Failure(Kind.RESET, "gone", Blame.CLIENT)


class Rig:
    """A gate in front of a service whose exchanges end when the test says so."""

    def __init__(self, limit: int, size: int = 0, status: int | None = 503) -> None:
        self.host: Any = FakeHost()
        self.metrics = Metrics()
        self.shedding = Shedding(self.host, self.metrics, "here", status, lambda: 0.5)
        self.gate = Gate(self.host, limit, size, self.shedding, self.metrics)
        self.running: dict[Any, Waiter[bool]] = {}
        self.most = 0
        self.begun: list[Any] = []
        self.service = stats(self.metrics.scope("server"), admission(self.gate, self._inner), admitted=True)
        if size:  # as clients have it
            self.service = entrance(self.gate, stats(self.metrics.scope("client"), self._inner, self.gate))

    async def _inner(self, exchange: Exchange) -> None:
        waiter: Waiter[bool] = Waiter()
        self.running[exchange] = waiter
        self.begun.append(exchange)
        self.most = max(self.most, len(self.running))
        try:
            if not await waiter:
                raise Failure(Kind.RESET, "reset", Blame.UPSTREAM)
            exchange.conclude(())
            exchange.respond(ResponseHead(200), True)
        finally:
            del self.running[exchange]

    def call(self, rank: str = "", deadline: float | None = None) -> Call:
        async def service(exchange: Exchange) -> None:
            if deadline is not None:
                exchange.tighten(self.host.time + deadline, "client")
            await self.service(exchange)

        fields = ((PRIORITY, rank.encode()),) if rank else ()
        return Call(self.host, service, RequestHead(b"GET", b"http", b"web", b"/", fields))

    def end(self, call: Call, well: bool = True) -> None:
        self.running[call.exchange].wake(well)

    def count(self, name: str) -> float:
        return self.metrics.flat()[name]

    def quiet(self) -> bool:
        self.host.pass_time(QUIET + 1)
        self.host.pass_time(QUIET + 1)
        gauges = [self.count("request_concurrency"), self.count("request_queue_size")]
        gate = self.gate
        return gauges == [0, 0] and not self.host.timers.pending() and not any(gate._queues) and gate.room == gate._floor


def refused(call: Call) -> str:
    assert call.failure is not None
    assert (call.failure.kind, call.failure.blame) == (Kind.OVERLOADED, Blame.ROUTER)
    assert call.failure.rejected
    assert call.failure.retryable
    return call.failure.cause


def test_without_a_limit_there_is_no_layer() -> None:
    async def service(exchange: Exchange) -> None: ...

    assert admission(None, service) is service
    assert entrance(None, service) is service


def test_a_limit_without_a_queue_refuses_at_once() -> None:
    rig = Rig(2, status=None)
    one, two, three = rig.call(), rig.call(), rig.call()
    assert refused(three) == "limit"
    assert three.failure is not None
    assert three.failure.why == "here: too many requests (2 under way)"
    assert three.failure.answer == (503, 14, 7, True)
    rig.end(one, well=False)
    four = rig.call()
    assert len(rig.running) == 2
    two.strand.cancel(GONE)
    rig.end(four)
    assert (rig.count("shed/limit"), rig.count("shed/class/critical")) == (1, 1)
    assert rig.quiet()


def test_the_last_places_are_for_the_more_important() -> None:
    rig = Rig(10)
    calls = [rig.call("sheddable") for _ in range(9)]
    assert [call.done for call in calls] == [False] * 8 + [True]
    calls += [rig.call("sheddable-plus") for _ in range(2)]
    assert [call.done for call in calls[9:]] == [False, True]
    calls += [rig.call(), rig.call("critical-plus")]
    assert [call.done for call in calls[11:]] == [False, True]
    assert rig.most == 10
    for call in calls:
        if not call.done:
            rig.end(call)
    assert rig.quiet()


def test_who_waits_is_served_by_class_and_then_in_order() -> None:
    rig = Rig(1, 10)
    first = rig.call()
    names = ["sheddable", "critical", "sheddable", "critical-plus", "critical", "sheddable-plus"]
    calls = [rig.call(name) for name in names]
    served = [first]
    while rig.running:
        rig.host.pass_time(0.01)
        rig.end(served[-1])
        served += [call for call in calls if call.exchange in rig.running]
    assert [names[calls.index(call)] for call in served[1:]] == sorted(names, key=CLASSES.index)
    assert [calls.index(call) for call in served[1:]] == [3, 1, 4, 5, 0, 2]
    assert rig.most == 1
    assert rig.count("queue_ms.count") == 6
    assert rig.quiet()


def test_a_full_queue_gives_up_the_last_of_the_least_important() -> None:
    rig = Rig(1, 3)
    first = rig.call()
    low = [rig.call("sheddable"), rig.call("sheddable")]
    middle = rig.call()
    assert refused(rig.call("sheddable")) == "queue_full"
    assert not low[1].done
    high = rig.call("critical-plus")
    assert refused(low[1]) == "evicted"
    last = rig.call()  # takes the place of the other
    assert refused(low[0]) == "evicted"
    assert refused(rig.call()) == "queue_full"
    assert not middle.done
    assert not high.done
    for call in (first, high, middle, last):
        rig.end(call)
    assert [rig.count(f"shed/{cause}") for cause in ("evicted", "queue_full")] == [2, 2]
    assert rig.quiet()


def test_a_client_that_leaves_leaves_the_queue() -> None:
    rig = Rig(1, 2)
    first, second, third = rig.call(), rig.call(), rig.call()
    second.strand.cancel(GONE)
    assert second.failure is GONE
    assert rig.gate.waiting == 1
    rig.end(first)
    assert third.exchange in rig.running
    rig.end(third)
    assert rig.quiet()


def teach(rig: Rig, seconds: float, times: int) -> None:
    """Let a queue move at that pace."""
    calls = [rig.call() for _ in range(times)]
    for call in calls:
        rig.host.pass_time(seconds)
        rig.end(call)


def test_who_cannot_be_served_in_time_is_not_let_wait() -> None:
    rig = Rig(1, 100)
    teach(rig, 0.1, 30)
    first = rig.call()
    waiting = [rig.call() for _ in range(5)]
    late = rig.call(deadline=0.5)  # half a second of others are before it
    assert refused(late) == "deadline"
    patient = rig.call(deadline=2.0)
    assert not patient.done
    for call in [first, *waiting, patient]:
        rig.end(call)
    assert rig.quiet()


def test_who_cannot_be_served_in_time_any_more_is_taken_out_and_never_sent() -> None:
    rig = Rig(1, 100)
    teach(rig, 0.1, 30)
    first, second = rig.call(), rig.call(deadline=0.5)
    rig.host.pass_time(0.3)
    assert not second.done
    rig.host.pass_time(0.18)  # what is left is less than most responses take
    assert refused(second) == "deadline"
    assert second.exchange not in rig.begun
    rig.end(first)
    assert rig.quiet()


def test_a_late_wheel_does_not_send_what_is_hopeless() -> None:
    rig = Rig(1, 100)
    teach(rig, 0.1, 30)
    first, second, third = rig.call(), rig.call(deadline=0.5), rig.call()
    rig.host.time += 0.49
    rig.end(first)
    assert refused(second) == "deadline"
    assert second.exchange not in rig.begun
    rig.end(third)
    assert rig.quiet()


def test_estimates_do_not_keep_themselves_alive() -> None:
    rig = Rig(1, 100)
    teach(rig, 5.0, 30)  # a bad time
    first = rig.call()
    tries = 0
    while (call := rig.call(deadline=1.0)).done:
        tries += 1
        assert tries < 100
    rig.end(first)
    rig.end(call)
    assert rig.quiet()


def test_places_are_handed_on_without_recursion() -> None:
    host: Any = FakeHost()
    metrics = Metrics()
    gate = Gate(host, 1, 5000, Shedding(host, metrics, "here", None), metrics)
    hold: Waiter[None] = Waiter()

    async def inner(exchange: Exchange) -> None:
        await hold
        raise Failure(Kind.CONNECT, "refused", Blame.UPSTREAM)

    service = entrance(gate, stats(metrics, inner, gate))
    calls = [Call(host, service) for _ in range(5000)]
    hold.wake(None)
    assert all(call.done for call in calls)
    assert (gate.running, gate.waiting) == (0, 0)


def test_a_raised_limit_lets_the_waiting_in_and_a_lowered_one_nobody_out() -> None:
    rig = Rig(1, 10)
    calls = [rig.call() for _ in range(5)]
    rig.gate.resize(4)
    assert len(rig.running) == 4
    rig.gate.resize(2)
    rig.end(calls[0])
    assert len(rig.running) == 3
    for call in calls[1:3]:
        rig.end(call)
    assert calls[4].exchange in rig.running
    for call in calls[3:]:
        rig.end(call)
    assert rig.quiet()


@pytest.mark.parametrize("value", [b"", b"urgent", b"CRITICAL", b"0", b"\xff", b"critical,", b"x" * 5000])
def test_nonsense_is_the_default_class_and_counted(value: bytes) -> None:
    rig = Rig(1, 1)
    first = rig.call()
    call = Call(rig.host, rig.service, RequestHead(b"GET", b"http", b"web", b"/", ((PRIORITY, value),)))
    assert rig.gate._queues[1]
    assert rig.count("priority/malformed") == 1
    rig.end(first)
    rig.end(call)
    assert rig.quiet()


def test_two_classes_are_none() -> None:
    rig = Rig(1, 1)
    first = rig.call()
    both = ((PRIORITY, b"critical-plus"), (PRIORITY, b"sheddable"))
    call = Call(rig.host, rig.service, RequestHead(b"GET", b"http", b"web", b"/", both))
    assert rig.gate._queues[1]
    assert rig.count("priority/malformed") == 1
    rig.end(first)
    rig.end(call)


def test_refusals_say_later_and_later_when_to_come_again() -> None:
    rig = Rig(1)
    rig.call()
    seen = []
    for _ in range(30):
        failure = rig.call().failure
        assert failure is not None
        assert failure.retry_after is not None
        seen.append(failure.retry_after)
        rig.host.pass_time(9.0)
    assert seen[0] == FIRST
    assert seen[-1] == LAST
    assert seen == sorted(seen)


def test_how_a_refusal_looks() -> None:
    failure = Failure(Kind.OVERLOADED, "no", retryable=True, rejected=True)
    failure.retry_after = 1.6
    assert nack(failure) == ((b"retry-after", b"2"), (b"finagle-http-nack", b"true"))
    assert (b"grpc-retry-pushback-ms", b"1600") in grpc_trailers(failure)
    failure.retry_after = None
    assert nack(failure)[0] == (b"retry-after", b"0")
    assert len(grpc_trailers(failure)) == 2


def test_a_phase_of_shedding_is_two_events() -> None:
    rig = Rig(1)
    first = rig.call()
    for _ in range(500):
        rig.call()
        rig.host.pass_time(0.1)
    rig.end(first)
    rig.host.pass_time(QUIET - 1)
    assert [event.name for event in rig.host.events.recent] == ["shedding_started"]
    rig.host.pass_time(2)
    started, ended = rig.host.events.recent
    assert started.fields == {"limit": "here", "cause": "limit", "state": "1 under way"}
    assert (ended.name, ended.fields["refused"]) == ("shedding_ended", 500)
    assert ended.fields["lasted_s"] == pytest.approx(49.9)
    assert rig.quiet()


steps = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "call", "end", "fail", "cancel", "wait", "resize"]),
        st.integers(0, 30),
    ),
    max_size=80,
)


@settings(max_examples=100)
@given(st.integers(1, 6), st.integers(0, 6), steps)
def test_whatever_happens_every_exchange_ends_once_and_nothing_is_left(
    limit: int, size: int, plan: list[tuple[str, int]]
) -> None:
    rig = Rig(limit, size)
    calls: list[Call] = []
    highest = limit
    for what, which in plan:
        open_calls = [call for call in calls if not call.done]
        if what == "call":
            calls.append(rig.call(("", *CLASSES)[which % 5], (None, 0.02, 0.3)[which % 3]))
        elif what == "wait":
            rig.host.pass_time(which / 100)
        elif what == "resize":
            limit = which % 6 + 1
            highest = max(highest, limit)
            rig.gate.resize(limit)
        elif open_calls:
            call = open_calls[which % len(open_calls)]
            if what == "cancel":
                call.strand.cancel(GONE)
            elif call.exchange in rig.running:
                rig.end(call, well=what == "end")
        assert rig.gate.running == len(rig.running) <= highest
        assert rig.gate.waiting == sum(map(len, rig.gate._queues)) <= size
        assert not rig.gate.waiting or rig.gate.running >= rig.gate.limit
    while rig.running:
        next(iter(rig.running.values())).wake(True)
    assert all(call.done for call in calls)
    for call in calls:
        ended = (call.reply.trailers is not None) + (call.failure is not None)
        assert ended == 1
        assert rig.begun.count(call.exchange) <= 1
        assert call.failure is None or not call.failure.rejected or call.exchange not in rig.begun
    shed = sum(rig.count(f"shed/{cause}") for cause in ("limit", "queue_full", "evicted", "deadline"))
    assert shed == rig.shedding.total == sum(call.failure is not None and call.failure.rejected for call in calls)
    assert rig.most <= highest
    assert rig.quiet()
