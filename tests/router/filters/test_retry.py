"""Requeues and retries around scripted endpoints, on a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.classifiers import grpc, http
from router.filters.budget import Budget, BudgetConfig
from router.filters.hold import BRIEF
from router.filters.retry import RetryPolicy, requeue, retry
from router.filters.stats import classified
from router.model.backoff import constant
from router.model.body import Source
from router.model.exchange import Exchange
from router.model.failure import CANCEL, REFUSED_STREAM, Blame, Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Waiter
from tests.support.fakes import Call, FakeHost, RecordingReply

REFUSED = Failure(Kind.RESET, "refused", Blame.UPSTREAM, code=REFUSED_STREAM, retryable=True)
NO_CONNECTION = Failure(Kind.CONNECT, "no connection", Blame.UPSTREAM, retryable=True)
RESET = Failure(Kind.RESET, "reset", Blame.UPSTREAM, code=CANCEL)
GONE = Failure(Kind.RESET, "gone", Blame.CLIENT)


class Upload(Source):
    """A request body whose credit is counted."""

    __slots__ = ("credited",)

    def __init__(self) -> None:
        super().__init__()
        self.credited = 0

    def credit(self, size: int) -> None:
        self.credited += size

    def stop(self, failure: Failure | None) -> None:
        pass


class Download(Source):
    """A response body; credits must be all given back."""

    __slots__ = ("credited",)

    def __init__(self) -> None:
        super().__init__()
        self.credited = 0

    def credit(self, size: int) -> None:
        self.credited += size

    def stop(self, failure: Failure | None) -> None:
        pass


class Reply(RecordingReply):
    """A client that takes everything at once."""

    def data(self, chunk: Any, size: int, end: bool) -> None:
        super().data(chunk, size, end)
        if self.source is not None:
            self.source.credit(size)


@attrs.define
class Receiver:
    """An endpoint's side of the request's body."""

    source: Any = None
    data_: bytes = b""
    trailers: Fields | None = None
    limit: int = 1 << 30

    def data(self, chunk: Any, size: int, end: bool) -> None:
        self.data_ += bytes(chunk)
        if self.source is not None and len(self.data_) <= self.limit:
            self.source.credit(size)
        if end:
            self.trailers = ()

    def end(self, trailers: Fields) -> None:
        self.trailers = trailers

    def abort(self, failure: Failure) -> None:
        raise AssertionError("requests are not broken off here")


Script = Callable[[Exchange], Coroutine[Any, Any, None]]


def answer(status: int = 200, body: bytes = b"", fields: Fields = (), trailers: Fields = (), *, size: int = 1) -> Script:
    """Answer at once, the body in pieces of ``size`` bytes."""

    async def script(exchange: Exchange) -> None:
        source = Download()
        head = ResponseHead(status, fields)
        if not body and not trailers:
            exchange.conclude(())
            exchange.respond(head, True)
            return
        source.join(exchange.respond(head, False))
        for at in range(0, len(body), size):
            source.push(body[at : at + size], len(body[at : at + size]), False)
        exchange.conclude(trailers)
        source.finish(trailers)
        assert source.credited == len(body)

    return script


def fail(failure: Failure) -> Script:
    async def script(exchange: Exchange) -> None:
        raise failure

    return script


def hang() -> Script:
    async def script(exchange: Exchange) -> None:
        await Waiter[None]()

    return script


class Endpoints:
    """Answers attempt after attempt with the next script; notes what it was sent."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.requests: list[RequestHead] = []
        self.bodies: list[Receiver] = []
        self.running = 0

    async def __call__(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        exchange.endpoint = f"endpoint {len(self.requests)}"
        script = self.scripts.pop(0) if self.scripts else answer()
        receiver = Receiver()
        self.bodies.append(receiver)
        self.running += 1
        try:
            if exchange.body is not None:
                exchange.body.join(receiver)
            await script(exchange)
        except Failure as failure:
            exchange.failure = failure
            raise
        finally:
            self.running -= 1
            if exchange.body is not None:
                exchange.body.sink = None


class Rig:
    """The retry layers over ``endpoints``."""

    def __init__(self, endpoints: Endpoints, **policy: Any) -> None:
        self.host, self.metrics = FakeHost(), Metrics()
        self.endpoints = endpoints
        self.budget = Budget(policy.pop("budget", BudgetConfig()), lambda: self.host.time)
        self.requeues = Budget(policy.pop("requeues", BudgetConfig()), lambda: self.host.time)
        classify = policy.pop("classify", http.RETRYABLE_READ_5XX.make(None, None))
        inner = requeue(self.requeues, self.metrics.scope("client"), lambda: policy.pop("count", 3), endpoints)
        made = RetryPolicy(policy.pop("backoff", constant(0.0)), **{k: v for k, v in policy.items() if k != "count"})
        self.service = classified(classify, retry(made, self.budget, classify, self.metrics.scope("service"), inner))

    def call(self, method: bytes = b"GET", fields: Fields = (), body: Source | None = None) -> Call:
        call = Call.__new__(Call)
        head = RequestHead(method, b"http", b"web", b"/", fields)
        call.reply = Reply()
        call.exchange = Exchange(self.host, head, body, call.reply)
        call.failure, call.done, call._service = None, False, self.service
        call.strand = self.host_strand(call)
        call.exchange.strand = call.strand
        call.strand.start()
        return call

    def host_strand(self, call: Call) -> Any:
        from router.model.strand import Strand

        return Strand(self.host, call._run())

    def flat(self, name: str) -> float:
        return self.metrics.flat()[name]

    def quiet(self) -> bool:
        return self.endpoints.running == 0 and not self.host.timers.pending()


UNAVAILABLE = grpc.DEFAULT.make(grpc.DEFAULT.config(), None)
ANY_STATUS = grpc.ALWAYS_RETRYABLE.make(grpc.ALWAYS_RETRYABLE.config(), None)
ALL_METHODS = http.RETRYABLE_ALL_5XX.make(None, None)
GRPC: Fields = ((b"content-type", b"application/grpc"),)


def status(code: int) -> Fields:
    return ((b"grpc-status", b"%d" % code),)


def test_a_good_answer_is_not_touched() -> None:
    rig = Rig(Endpoints(answer(200, b"hello", trailers=((b"x", b"y"),))))
    call = rig.call()
    assert call.failure is None
    assert (call.reply.head.status, call.reply.body, call.reply.trailers) == (200, b"hello", ((b"x", b"y"),))  # type: ignore[union-attr]
    assert rig.flat("service/retries/total") == 0
    assert rig.quiet()


def test_a_failure_is_replaced_by_what_the_next_endpoint_says() -> None:
    rig = Rig(Endpoints(answer(503, b"sorry", size=2), answer(200, b"fine")))
    call = rig.call()
    assert (call.reply.head.status, call.reply.body) == (200, b"fine")  # type: ignore[union-attr]
    assert (rig.flat("service/retries/total"), rig.flat("service/retries/per_request.sum")) == (1, 1)
    assert call.exchange.tried == ("endpoint 1",)
    assert rig.quiet()


def test_the_last_failure_is_given_to_the_client_as_it_was() -> None:
    rig = Rig(Endpoints(*[answer(503, b"sorry %d" % at) for at in range(9)]), max_retries=2)
    call = rig.call()
    assert (call.reply.head.status, call.reply.body, call.reply.trailers) == (503, b"sorry 2", ())  # type: ignore[union-attr]
    assert rig.flat("service/retries/request_limit") == 1
    assert len(rig.endpoints.requests) == 3


@pytest.mark.parametrize("method", [b"POST", b"PUT"])
def test_methods_that_are_not_safe_are_not_sent_twice(method: bytes) -> None:
    rig = Rig(Endpoints(answer(500), answer()))
    assert rig.call(method).reply.head.status == 500  # type: ignore[union-attr]
    assert Rig(Endpoints(fail(RESET), answer())).call(method).failure is RESET


def test_unless_the_failure_says_that_they_may_be() -> None:
    rig = Rig(Endpoints(answer(500, fields=((b"l5d-retryable", b"true"),)), answer()))
    assert rig.call(b"POST").reply.head.status == 200  # type: ignore[union-attr]


def test_the_budget_bounds_what_is_sent_again() -> None:
    rig = Rig(Endpoints(answer(), answer(500), answer(), answer(500), answer(500)), budget=BudgetConfig(0, 0.5))
    assert [rig.call().reply.head.status for _ in range(3)] == [200, 200, 500]  # type: ignore[union-attr]
    assert (rig.flat("service/retries/total"), rig.flat("service/retries/budget_exhausted")) == (1, 1)
    rig = Rig(Endpoints(fail(RESET)), budget=BudgetConfig(0, 0.0))
    assert rig.call().failure is RESET
    assert rig.flat("service/retries/budget_exhausted") == 1


def test_a_good_answer_that_was_held_leaves_its_deposit() -> None:
    rig = Rig(
        Endpoints(*[answer(body=b"m", fields=GRPC, trailers=status(0))] * 2), budget=BudgetConfig(0, 0.5), classify=ANY_STATUS
    )
    for _ in range(2):
        assert rig.call(fields=GRPC).reply.trailers == status(0)
    assert rig.budget.balance == 1
    rig = Rig(Endpoints(*[answer(fields=(*GRPC, *status(14)))] * 2), max_retries=1, classify=ANY_STATUS)
    before = rig.budget.balance
    assert rig.call(fields=GRPC).reply.head.fields == (*GRPC, *status(14))  # type: ignore[union-attr]
    assert rig.budget.balance == before - 1


@pytest.mark.parametrize("body", [b"", b"some bytes of a body"])
def test_a_body_is_sent_again_from_its_beginning(body: bytes) -> None:
    rig = Rig(Endpoints(answer(503), fail(RESET), answer()), classify=ALL_METHODS)
    upload = Upload()
    for at in range(0, len(body), 7):
        upload.push(body[at : at + 7], len(body[at : at + 7]), False)
    upload.finish(((b"t", b"1"),))
    call = rig.call(b"POST", body=upload)
    assert call.reply.head.status == 200  # type: ignore[union-attr]
    assert [(one.data_, one.trailers) for one in rig.endpoints.bodies] == [(body, ((b"t", b"1"),))] * 3
    assert upload.credited == len(body)


def test_a_body_that_is_still_coming_goes_to_the_attempt_that_is_under_way() -> None:
    first = Waiter[None]()

    async def late(exchange: Exchange) -> None:
        await first
        raise RESET

    rig = Rig(Endpoints(late, hang()), classify=ALL_METHODS, backoff=constant(1.0))
    upload = Upload()
    call = rig.call(b"POST", body=upload)
    upload.push(b"one ", 4, False)
    first.wake(None)
    upload.push(b"two ", 4, False)  # between the attempts
    assert upload.credited == 4
    rig.host.pass_time(1.1)
    upload.push(b"three", 5, True)
    assert rig.endpoints.bodies[1].data_ == b"one two three"
    assert rig.endpoints.bodies[1].trailers == ()
    assert upload.credited == 13
    call.strand.cancel(GONE)
    assert rig.quiet()


def test_a_body_beyond_the_buffer_cannot_be_sent_again() -> None:
    rig = Rig(Endpoints(answer(503), answer()), classify=ALL_METHODS, request_bytes=3)
    upload = Upload()
    upload.push(b"four", 4, True)
    assert rig.call(b"POST", body=upload).reply.head.status == 503  # type: ignore[union-attr]
    rig = Rig(Endpoints(fail(RESET)), classify=ALL_METHODS, request_bytes=3)
    upload = Upload()
    upload.push(b"four", 4, True)
    assert rig.call(b"POST", body=upload).failure is RESET
    assert rig.flat("service/retries/request_stream_too_long") == 1


def test_a_failure_that_is_too_long_goes_to_the_client() -> None:
    rig = Rig(Endpoints(answer(503, b"x" * 100, size=30), answer()), response_bytes=50)
    call = rig.call()
    assert (call.reply.head.status, call.reply.body) == (503, b"x" * 100)  # type: ignore[union-attr]
    assert rig.flat("service/retries/response_stream_too_long") == 1
    assert rig.quiet()


def test_a_failure_that_takes_too_long_goes_to_the_client() -> None:
    source = Download()

    async def slow(exchange: Exchange) -> None:
        source.join(exchange.respond(ResponseHead(503), False))
        source.push(b"a", 1, False)
        await Waiter[None]()

    rig = Rig(Endpoints(slow), patience=0.1)
    call = rig.call()
    assert not call.reply.started
    rig.host.pass_time(0.11)
    assert (call.reply.started, call.reply.body) == (True, b"a")
    source.push(b"b", 1, False)
    assert call.reply.body == b"ab"
    assert rig.flat("service/retries/classification_timeout") == 1
    call.strand.cancel(GONE)
    assert rig.quiet()


def test_attempts_wait_for_the_backoff_and_not_beyond_the_deadline() -> None:
    rig = Rig(Endpoints(answer(503), answer(503), answer()), backoff=constant(0.4))
    call = rig.call()
    rig.host.pass_time(0.39)
    assert len(rig.endpoints.requests) == 1
    rig.host.pass_time(0.02)
    assert len(rig.endpoints.requests) == 2
    call.exchange.tighten(0.5, "total")
    rig = Rig(Endpoints(answer(503), answer()), backoff=constant(0.4))
    rig.service = tightened(rig.service, 0.3)
    call = rig.call()
    assert call.reply.head.status == 503  # type: ignore[union-attr]
    assert rig.flat("service/retries/deadline") == 1


def tightened(service: Any, seconds: float) -> Any:
    async def tight(exchange: Exchange) -> None:
        exchange.tighten(exchange.now() + seconds, "total")
        await service(exchange)

    return tight


@pytest.mark.parametrize(
    ("value", "wait"), [(b"0", 0.0), (b"1500", 1.5), (b"-1", None), (b"soon", None), (b"99999999999", None), (b"", None)]
)
def test_grpc_pushback(value: bytes, wait: float | None) -> None:
    trailers = (*status(14), (b"grpc-retry-pushback-ms", value))
    for first in (answer(200, fields=trailers), answer(200, trailers=trailers)):
        rig = Rig(Endpoints(first), classify=UNAVAILABLE, backoff=constant(9.0))
        call = rig.call(b"POST", GRPC)
        assert len(rig.endpoints.requests) == (2 if wait == 0 else 1)
        if wait:
            rig.host.pass_time(wait - 0.01)
            assert len(rig.endpoints.requests) == 1
            rig.host.pass_time(0.02)
        assert call.done
        assert len(rig.endpoints.requests) == (1 if wait is None else 2)
        assert rig.flat("service/retries/pushback") == (wait is None)


@pytest.mark.parametrize(("value", "wait"), [(b"2", 2.0), (b"later", 0.0), (b"Sun, 06 Nov 1994 08:49:37 GMT", 0.0)])
def test_retry_after(value: bytes, wait: float) -> None:
    rig = Rig(Endpoints(answer(503, fields=((b"retry-after", value),))))
    rig.call()
    assert len(rig.endpoints.requests) == (1 if wait else 2)
    rig.host.pass_time(wait + 0.01)
    assert len(rig.endpoints.requests) == 2
    assert rig.flat("service/retries/malformed") == (value == b"later")


@pytest.mark.parametrize(
    "value", [b"Tue, 14 Nov 2023 22:13:25 GMT", b"Tuesday, 14-Nov-23 22:13:25 GMT", b"Tue Nov 14 22:13:25 2023"]
)
def test_retry_after_a_date_in_each_of_its_forms(value: bytes) -> None:
    """Five seconds after the fake host's clock begins, whatever the time zone of this machine."""
    rig = Rig(Endpoints(answer(503, fields=((b"retry-after", value),))))
    rig.call()
    rig.host.pass_time(4.9)
    assert len(rig.endpoints.requests) == 1
    rig.host.pass_time(0.2)
    assert len(rig.endpoints.requests) == 2


@pytest.mark.parametrize("value", [b"301", b"99999999999", b"Tue, 14 Nov 2034 22:13:25 GMT"])
def test_nobody_is_held_for_longer_than_five_minutes(value: bytes) -> None:
    rig = Rig(Endpoints(answer(503, fields=((b"retry-after", value),))), backoff=constant(0.01))
    call = rig.call()
    if value == b"99999999999":  # no date and no number that means anything: as if it were not there
        rig.host.pass_time(0.02)
        assert (len(rig.endpoints.requests), rig.flat("service/retries/malformed")) == (2, 1)
        return
    assert call.done
    assert call.reply.head is not None
    assert (call.reply.head.status, call.reply.head.get(b"retry-after")) == (503, value)
    assert (len(rig.endpoints.requests), rig.flat("service/retries/pushback")) == (1, 1)


@given(st.binary(max_size=40) | st.from_regex(rb"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,9} \d\d:\d\d:\d\d [-+]?\d{0,9}"))
def test_no_retry_after_hurts(value: bytes) -> None:
    rig = Rig(Endpoints(answer(503, fields=((b"retry-after", value),))))
    rig.call()
    rig.host.pass_time(301.0)
    assert rig.quiet()


def test_grpc_attempts_are_numbered() -> None:
    rig = Rig(Endpoints(*[answer(200, fields=status(14)) for _ in range(2)]), classify=UNAVAILABLE)
    rig.call(b"POST", GRPC)
    assert [request.get(b"grpc-previous-rpc-attempts") for request in rig.endpoints.requests] == [None, b"1", b"2"]
    rig = Rig(Endpoints(answer(200, fields=status(14))), classify=UNAVAILABLE)
    rig.call(b"POST", (*GRPC, (b"grpc-previous-rpc-attempts", b"3")))
    assert [request.get_all(b"grpc-previous-rpc-attempts") for request in rig.endpoints.requests] == [[b"3"], [b"4"]]
    rig = Rig(Endpoints(answer(200, fields=status(14))), classify=UNAVAILABLE)
    rig.call(b"POST", (*GRPC, (b"grpc-previous-rpc-attempts", b"many")))
    assert rig.endpoints.requests[1].get(b"grpc-previous-rpc-attempts") == b"1"
    assert rig.flat("service/retries/malformed") == 1


# -- gRPC answers that are held ---------------------------------------------------------------------------------


def grpc_rig(*scripts: Script) -> Rig:
    return Rig(Endpoints(*scripts), classify=UNAVAILABLE)


def test_a_status_in_the_trailers_can_be_retried() -> None:
    rig = grpc_rig(answer(200, b"half a message", trailers=status(14)), answer(200, b"whole", trailers=status(0)))
    call = rig.call(b"POST", GRPC)
    assert (call.reply.body, call.reply.trailers) == (b"whole", status(0))


def test_a_stream_is_not_held_behind_its_first_message() -> None:
    source = Download()

    async def stream(exchange: Exchange) -> None:
        source.join(exchange.respond(ResponseHead(200), False))
        await Waiter[None]()

    rig = grpc_rig(stream)
    call = rig.call(b"POST", GRPC)
    assert not call.reply.started
    source.push(b"first", 5, False)
    assert source.credited == 5
    for _ in range(2):
        rig.host.pass_time(0.0035)
    assert call.reply.body == b"first"
    source.push(b"second", 6, False)
    assert call.reply.body == b"firstsecond"
    call.strand.cancel(GONE)
    assert rig.quiet()


def test_what_breaks_off_right_behind_its_first_bytes_was_not_let_go() -> None:
    source = Download()
    broken: Waiter[None] = Waiter()

    async def stream(exchange: Exchange) -> None:
        source.join(exchange.respond(ResponseHead(200), False))
        source.push(b"half", 4, False)
        await broken

    rig = grpc_rig(stream)
    call = rig.call(b"POST", GRPC)
    rig.host.pass_time(0.0)  # the turn is over
    rig.host.pass_time(BRIEF / 2)
    assert not call.reply.started
    broken.throw(Failure(Kind.RESET, "connection lost", Blame.UPSTREAM))
    assert not call.reply.started
    assert call.failure is not None
    assert rig.quiet()


def test_a_requeue_drops_what_was_held_with_its_timer() -> None:
    """Else the first attempt's head would go to the client in the middle of the second attempt."""

    async def refused_late(exchange: Exchange) -> None:
        source = Download()
        source.join(exchange.respond(ResponseHead(200), False))
        source.push(b"half", 4, False)
        raise Failure(Kind.RESET, "refused", Blame.UPSTREAM, retryable=True)

    rig = grpc_rig(refused_late, hang())
    call = rig.call(b"POST", GRPC)
    assert len(rig.endpoints.requests) == 2
    rig.host.pass_time(0.2)
    assert not call.reply.started
    call.strand.cancel(GONE)
    assert rig.quiet()


def test_a_client_that_is_still_sending_gets_the_head_at_once() -> None:
    async def stream(exchange: Exchange) -> None:
        Download().join(exchange.respond(ResponseHead(200), False))
        await Waiter[None]()

    rig = grpc_rig(stream)
    call = rig.call(b"POST", GRPC, Upload())
    assert call.reply.started
    call.strand.cancel(GONE)
    assert rig.quiet()


# -- requeues ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [REFUSED, NO_CONNECTION])
def test_what_never_arrived_is_sent_again_once_for_nothing_whatever_the_method(failure: Failure) -> None:
    rig = Rig(Endpoints(fail(failure), answer()), budget=BudgetConfig(0, 0.0), requeues=BudgetConfig(0, 0.0))
    upload = Upload()
    upload.push(b"body", 4, True)
    call = rig.call(b"POST", body=upload)
    assert call.failure is None
    assert [one.data_ for one in rig.endpoints.bodies] == [b"body", b"body"]
    assert (rig.flat("client/retries/requeues"), rig.flat("service/retries/total")) == (1, 0)


def test_more_than_once_costs_the_requeue_budget() -> None:
    rig = Rig(Endpoints(*[fail(NO_CONNECTION)] * 5), requeues=BudgetConfig(0, 0.0))
    assert rig.call(b"POST").failure is NO_CONNECTION
    assert len(rig.endpoints.requests) == 2
    assert rig.flat("client/retries/budget_exhausted") == 1
    rig = Rig(Endpoints(*[fail(NO_CONNECTION)] * 9))
    assert rig.call(b"POST").failure is NO_CONNECTION
    assert len(rig.endpoints.requests) == 3  # as many as there are endpoints
    assert rig.flat("client/retries/request_limit") == 1


@pytest.mark.parametrize(
    "failure",
    [
        RESET,
        GONE,
        Failure(Kind.OVERLOADED, "", rejected=True, retryable=True),
        Failure(Kind.UNBOUND, "", retryable=True),
        Failure(Kind.DEADLINE, "", Blame.UPSTREAM),
    ],
)
def test_what_may_have_arrived_and_what_was_refused_is_not_requeued(failure: Failure) -> None:
    rig = Rig(Endpoints(fail(failure)))
    assert rig.call(b"POST").failure is failure
    assert len(rig.endpoints.requests) == 1


# -- any schedule -----------------------------------------------------------------------------------------------

scripts = st.sampled_from(
    [
        answer(), answer(200, b"body", trailers=((b"x", b"y"),)), answer(503, b"sorry"), answer(500), fail(RESET),
        fail(REFUSED), fail(NO_CONNECTION), fail(GONE), hang(), answer(200, b"m", trailers=status(14)),
        answer(200, fields=status(14)), answer(503, fields=((b"retry-after", b"1"),)), answer(200, b"m", trailers=status(0)),
    ]
)  # fmt: skip


@given(
    st.lists(scripts, max_size=8), st.booleans(), st.booleans(), st.integers(0, 3), st.lists(st.floats(0.001, 0.6), max_size=6),
    st.integers(0, 40),
)  # fmt: skip
def test_every_exchange_ends_once_and_leaves_nothing(
    plan: list[Script], is_grpc: bool, sends: bool, limit: int, waits: list[float], room: int
) -> None:
    classify = (
        grpc.ALWAYS_RETRYABLE.make(grpc.ALWAYS_RETRYABLE.config(), None) if is_grpc else http.RETRYABLE_ALL_5XX.make(None, None)
    )
    rig = Rig(Endpoints(*plan), classify=classify, max_retries=limit, backoff=constant(0.1), request_bytes=room)
    rig.service = tightened(rig.service, 2.0)
    upload = Upload() if sends else None
    call = rig.call(b"POST", GRPC if is_grpc else (), upload)
    for wait in waits:
        if upload is not None and not upload.ended:
            upload.push(b"chunk", 5, wait > 0.3)
        rig.host.pass_time(wait)
    rig.host.pass_time(5.0)
    assert call.done
    assert rig.quiet()
    ended = call.reply.trailers is not None
    assert ended is (call.failure is None)
    assert call.exchange.complete or call.failure is not None
    assert len(rig.endpoints.requests) <= (limit + 1) * 3
