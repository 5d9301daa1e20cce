"""Two attempts at once: who wins, what becomes of the loser, and that nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.classifiers import http
from router.filters.budget import Budget, BudgetConfig
from router.filters.hedge import WINDOW, HedgePolicy, Latencies, hedge
from router.filters.retry import RetryPolicy, retry
from router.filters.stats import classified
from router.model.backoff import constant
from router.model.body import FixedSource, Source
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Strand, Waiter
from tests.support.fakes import Call, FakeHost, RecordingReply

GONE = Failure(Kind.RESET, "gone", Blame.CLIENT)


class Attempt:
    """One attempt as its endpoint sees it."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.over: Waiter[None] = Waiter()
        self.body = b""
        self.ended = ""
        self.source: Any = None

    def data(self, chunk: Any, size: int, end: bool) -> None:
        self.body += bytes(chunk)

    def end(self, trailers: Any) -> None:
        pass

    def answer(self, status: int = 200, body: bytes = b"") -> None:
        if not body:
            self.exchange.conclude(())
            self.exchange.respond(ResponseHead(status), True)
        else:
            self.begin(status)
            self.finish(body)
            return
        self.over.wake(None)

    def begin(self, status: int = 200) -> None:
        self.response = FixedSource.__new__(FixedSource)
        Source.__init__(self.response)
        self.response.credited = 0
        self.response.join(self.exchange.respond(ResponseHead(status), False))

    def finish(self, body: bytes) -> None:
        self.exchange.conclude(())
        self.response.push(body, 0, True)
        self.over.wake(None)

    def fail(self) -> None:
        self.over.throw(Failure(Kind.RESET, "reset", Blame.UPSTREAM))


class Rig:
    def __init__(self, policy: HedgePolicy, budget: BudgetConfig | None = None, retries: int = 0) -> None:
        self.host, self.metrics, self.attempts = FakeHost(), Metrics(), list[Attempt]()
        self.budget = Budget(budget or BudgetConfig(), lambda: self.host.time)
        classify = http.RETRYABLE_ALL_5XX.make(None, None)
        inner = hedge(policy, self.budget, self.metrics, self._attempt)
        made = RetryPolicy(constant(0.0), max_retries=retries)
        self.service = classified(classify, retry(made, self.budget, classify, self.metrics, inner))

    async def _attempt(self, exchange: Exchange) -> None:
        attempt = Attempt(exchange)
        exchange.endpoint = f"endpoint {len(self.attempts)}"
        self.attempts.append(attempt)
        try:
            if exchange.body is not None:
                exchange.body.join(attempt)  # type: ignore[arg-type]
            await attempt.over
            attempt.ended = "good"
        except Failure as failure:
            attempt.ended = failure.why
            exchange.failure = failure
            raise
        finally:
            if exchange.body is not None:
                exchange.body.sink = None

    def call(self, body: Source | None = None, fields: Fields = ()) -> Call:
        call = Call.__new__(Call)
        call.reply = RecordingReply()
        call.exchange = Exchange(self.host, RequestHead(b"POST", b"http", b"web", b"/", fields), body, call.reply)
        call.failure, call.done, call._service = None, False, self.service
        call.strand = call.exchange.strand = Strand(self.host, call._run())
        call.strand.start()
        return call

    def quiet(self) -> bool:
        return all(attempt.ended for attempt in self.attempts) and not any(self.host.timers._buckets.values())


def test_a_quick_answer_is_alone() -> None:
    rig = Rig(HedgePolicy(0.1))
    call = rig.call()
    rig.host.pass_time(0.09)
    rig.attempts[0].answer()
    rig.host.pass_time(1)
    assert call.done
    assert len(rig.attempts) == 1
    assert rig.metrics.flat()["hedges/sent"] == 0
    assert rig.quiet()


@pytest.mark.parametrize("body", [b"", b"payload"])
def test_the_second_can_win(body: bytes) -> None:
    rig = Rig(HedgePolicy(0.1))
    call = rig.call(FixedSource(body) if body else None)
    rig.host.pass_time(0.11)
    assert len(rig.attempts) == 2
    assert [attempt.body for attempt in rig.attempts] == [body, body]
    assert rig.attempts[1].exchange.tried == ("endpoint 0",)
    rig.attempts[1].begin()
    assert rig.attempts[0].ended == "another attempt was better"
    assert not call.done
    rig.attempts[1].finish(b"second")
    assert call.done
    assert call.failure is None
    assert (call.reply.body, call.exchange.endpoint, call.exchange.complete) == (b"second", "endpoint 1", True)
    assert (rig.metrics.flat()["hedges/sent"], rig.metrics.flat()["hedges/won"]) == (1, 1)
    assert rig.quiet()


def test_grpc_endpoints_are_told_of_the_attempt_before() -> None:
    rig = Rig(HedgePolicy(0.1))
    rig.call(fields=((b"content-type", b"application/grpc"), (b"grpc-previous-rpc-attempts", b"2")))
    rig.host.pass_time(0.15)
    said = [attempt.exchange.request.get(b"grpc-previous-rpc-attempts") for attempt in rig.attempts]
    assert said == [b"2", b"3"]


def test_the_first_can_still_win() -> None:
    rig = Rig(HedgePolicy(0.1))
    call = rig.call()
    rig.host.pass_time(0.11)
    rig.attempts[0].answer(200, b"first")
    assert rig.attempts[1].ended == "another attempt was better"
    assert (call.done, call.reply.body) == (True, b"first")
    assert rig.metrics.flat()["hedges/won"] == 0
    assert rig.quiet()


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("how", ["status", "reset"])
def test_a_failure_loses_while_the_other_may_succeed(bad: int, how: str) -> None:
    rig = Rig(HedgePolicy(0.1), retries=3)
    call = rig.call()
    rig.host.pass_time(0.11)
    if how == "status":
        rig.attempts[bad].answer(503)
    else:
        rig.attempts[bad].fail()
    assert not call.done
    rig.attempts[1 - bad].answer(200, b"good")
    assert (call.done, call.reply.body) == (True, b"good")
    assert len(rig.attempts) == 2
    assert rig.quiet()


def test_when_both_fail_the_retry_goes_on() -> None:
    rig = Rig(HedgePolicy(0.1), retries=1)
    call = rig.call()
    rig.host.pass_time(0.11)
    rig.attempts[0].fail()
    rig.attempts[1].answer(503)
    assert len(rig.attempts) == 3
    rig.attempts[2].answer(503, b"the last")
    assert (call.done, call.reply.body, call.reply.head.status) == (True, b"the last", 503)  # type: ignore[union-attr]
    assert rig.quiet()


def test_a_client_that_leaves_ends_both() -> None:
    rig = Rig(HedgePolicy(0.1))
    call = rig.call()
    rig.host.pass_time(0.11)
    call.strand.cancel(GONE)
    assert call.failure is GONE
    assert [attempt.ended for attempt in rig.attempts] == ["gone", "another attempt was better"]
    assert rig.quiet()


def test_no_second_attempt_without_budget_or_with_half_a_body() -> None:
    rig = Rig(HedgePolicy(0.1), BudgetConfig(0, 0.0))
    rig.call()
    rig.host.pass_time(0.2)
    assert (len(rig.attempts), rig.metrics.flat()["hedges/budget_exhausted"]) == (1, 1)
    rig = Rig(HedgePolicy(0.1))
    half = FixedSource.__new__(FixedSource)
    Source.__init__(half)
    half.push(b"half", 0, False)
    rig.call(half)
    rig.host.pass_time(0.2)
    assert len(rig.attempts) == 1


def test_the_percentile_of_what_was_seen() -> None:
    rig = Rig(HedgePolicy(None, 90))
    for at in range(40):
        rig.call()
        rig.host.pass_time(0.5 if at % 20 == 19 else 0.01)
        rig.attempts[-1].answer()
    assert len(rig.attempts) == 41  # the first slow one came before enough was known
    rig.call()
    rig.host.pass_time(0.015)
    assert len(rig.attempts) == 43


@given(st.lists(st.floats(0, 10), min_size=20, max_size=60))
def test_latencies_are_a_window(values: list[float]) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    assert latencies.percentile(50) == sorted(values)[len(values) // 2]
    for _ in range(WINDOW):
        latencies.add(1.0)
    assert latencies.percentile(99) == 1.0
    assert len(latencies._recent) == len(latencies._sorted) == WINDOW


steps = st.lists(st.tuples(st.sampled_from(["wait", "ok", "503", "reset", "begin", "gone"]), st.integers(0, 3)), max_size=14)


def test_of_an_attempt_that_lost_nothing_is_left() -> None:
    rig = Rig(HedgePolicy(0.1), retries=1)
    call = rig.call()
    rig.host.pass_time(0.11)
    rig.attempts[0].answer(503)  # the second attempt is still under way
    call.strand.cancel(GONE)
    assert call.failure is GONE
    assert len(rig.attempts) == 2
    assert (call.exchange.response, call.exchange.complete, call.exchange.responded_at) == (None, False, 0.0)
    assert rig.quiet()


@given(steps, st.integers(0, 2))
@example([("wait", 0), ("wait", 0), ("503", 0)], 1)  # nobody is left to retry for, whatever the first attempt came to
def test_every_exchange_ends_once_whatever_happens(plan: list[tuple[str, int]], retries: int) -> None:
    rig = Rig(HedgePolicy(0.1), retries=retries)
    call = rig.call()
    for what, which in plan:
        running = [attempt for attempt in rig.attempts if not attempt.ended]
        if what == "wait":
            rig.host.pass_time(0.06)
        elif what == "gone":
            call.strand.cancel(GONE)
        elif running:
            attempt = running[which % len(running)]
            if attempt.exchange.response is None and what in ("ok", "503"):
                attempt.answer(200 if what == "ok" else 503, b"x" * which)
            elif attempt.exchange.response is None and what == "begin":
                attempt.begin()
            elif what == "reset":
                attempt.fail()
    call.strand.cancel(GONE)
    rig.host.pass_time(1)
    assert call.done
    assert rig.quiet()
    assert (call.reply.trailers is not None) is (call.failure is None)
