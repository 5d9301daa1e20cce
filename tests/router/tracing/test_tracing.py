"""What a router makes of contexts: ids, decisions, what endpoints are told, and what a call without a trace costs them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtab import Path
from router.filters.clear_context import clear_context
from router.model.exchange import Exchange
from router.model.headers import Fields, RequestHead
from router.model.metrics import Metrics
from router.model.trace import TraceContext
from router.tracing.filters import trace_in, trace_out
from router.tracing.forms import B3, B3_MULTI, FORMS, L5D, W3C, Form, trace_id_of
from router.tracing.tracing import Tracing
from tests.support.fakes import Call, FakeHost, answering
from tests.support.tracing import Collected, tracing

TRACE, SPAN, PARENT = 0x463AC35C9F6413AD48485A3953BB6124, 0xA2FB4A1D1A96D312, 0x0020000000000001
EACH = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


class Edge:
    """A router's two layers; ``sent`` is what endpoints saw."""

    def __init__(self, made: Tracing | None, attempts: int = 1) -> None:
        self.metrics = Metrics()
        self.sent: list[RequestHead] = []
        out = trace_out(made, Path.of("svc", "web"), Path.of("$", "inet", "1"), Path(), self._endpoint)

        async def retries(exchange: Exchange) -> None:
            request = exchange.request
            for _ in range(attempts):
                exchange.renew(request, 0)
                await out(exchange)

        self.service = trace_in(made, self.metrics, retries if attempts > 1 else out)

    async def _endpoint(self, exchange: Exchange) -> None:
        self.sent.append(exchange.request)
        await answering()(exchange)

    def call(self, *fields: tuple[bytes, bytes], shared: bool = False) -> Fields:
        """Fields that the endpoint sees (the last attempt's)."""
        head = RequestHead(b"GET", b"http", b"web", b"/", fields)
        head.shared = shared
        return self.call_with(head)

    def call_with(self, head: RequestHead) -> Fields:
        call = Call(FakeHost(), self.service, head)
        assert call.done
        assert call.failure is None
        self.exchange = call.exchange
        return self.sent[-1].fields

    @property
    def malformed(self) -> float:
        return self.metrics.flat()["trace/malformed"]


def context(form: Form, fields: Fields) -> TraceContext:
    found = form.read(RequestHead(b"GET", b"http", b"web", b"/", fields))
    assert found is not None
    return found


# -- requests that say nothing --------------------------------------------------------------------------------


def test_without_tracing_there_is_no_layer() -> None:
    service = answering()
    assert trace_in(None, Metrics(), service) is service
    assert trace_out(None, Path(), Path(), Path(), service) is service


def test_a_trace_begins_where_the_rate_wants_it() -> None:
    spans = Collected()
    edge = Edge(tracing(spans))
    sent = edge.call((b"accept", b"*/*"))
    told = context(L5D, sent)
    attempt, server = spans.spans
    assert (told.trace, told.span, told.parent, told.sampled) == (
        server.context.trace,
        attempt.context.span,
        server.context.span,
        True,
    )
    assert attempt.context.parent == server.context.span
    assert server.context.parent == 0
    assert server.context.trace >> 64
    assert dict(sent)[b"l5d-reqid"] == b"%016x" % (told.trace & (1 << 64) - 1)
    assert edge.exchange.trace is not None
    assert edge.exchange.trace.context.trace_id == server.context.trace_id


def test_a_request_without_a_trace_is_told_on_as_not_sampled() -> None:
    spans = Collected(0.0)
    assert Edge(tracing(spans)).call((b"accept", b"*/*")) == ((b"accept", b"*/*"), (b"l5d-sample", b"0"))
    assert not spans.spans
    assert Edge(tracing(spans)).call((b"b3", b"0")) == ((b"b3", b"0"), (b"l5d-sample", b"0"))


@pytest.mark.parametrize(("propagator", "form"), [(L5D, L5D), (B3_MULTI, B3_MULTI), (W3C, W3C)])
def test_with_a_propagator_every_request_has_ids(propagator: Form, form: Form) -> None:
    """As with Linkerd, whether or not anybody takes spans."""
    edge = Edge(tracing(propagator=propagator))
    sent = edge.call()
    assert {name for name, _ in sent} <= form.fields
    assert context(form, sent).trace
    assert context(form, sent).sampled is (False if form is W3C else None)
    one, other = context(form, edge.call()), context(form, edge.call())
    assert one.trace != other.trace


def test_shared_heads_are_changed_once_and_have_caches_of_their_own() -> None:
    spans = Collected(0.5)
    edge = Edge(tracing(spans))
    head = RequestHead(b"GET", b"http", b"web", b"/", ((b"accept", b"*/*"),))
    head.shared = True
    for _ in range(64):
        edge.call_with(head)
    unsampled = [sent for sent in edge.sent if b"l5d-sample" in sent]
    assert len({id(sent) for sent in unsampled}) == 1
    assert unsampled[0].shared
    sampled = [sent for sent in edge.sent if b"l5d-ctx-trace" in sent]
    assert len(sampled) + len(unsampled) == 64
    assert len({sent.get(b"l5d-ctx-trace") for sent in sampled}) == len(sampled) == len(spans.spans) / 2
    assert not any(sent.shared for sent in sampled)
    assert head.fields == ((b"accept", b"*/*"),)


# -- requests that say something ------------------------------------------------------------------------------


@EACH
def test_endpoints_are_told_in_the_form_that_came_and_in_linkerds(form: Form) -> None:
    spans = Collected(0.0)
    edge = Edge(tracing(spans))
    sent = edge.call((b"accept", b"*/*"), *form.write(TraceContext(TRACE, SPAN, PARENT, True)))
    attempt, server = spans.spans
    assert (server.context.trace, server.context.parent) == (TRACE, SPAN)
    for told in (context(form, sent), context(L5D, sent)):
        assert (told.trace, told.span, told.sampled) == (TRACE, attempt.context.span, True)
    assert sent[0] == (b"accept", b"*/*")
    assert {name for name, _ in sent[1:]} == {name for one in (form, L5D) for name, _ in one.write(TraceContext(1, 2, 3, True))}
    assert trace_id_of(edge.sent[-1]) == server.context.trace_id


@EACH
def test_what_is_not_sampled_before_us_is_not_here(form: Form) -> None:
    spans = Collected(1.0)
    told = context(form, Edge(tracing(spans)).call(*form.write(TraceContext(TRACE, SPAN, 0, False))))
    assert not spans.spans
    assert (told.trace, told.sampled) == (TRACE, False)
    assert told.span != SPAN


def test_an_open_decision_is_made_by_the_traces_id() -> None:
    for low, wanted in ((0x3FFF_FFFF_FFFF_FFFF, True), (0x4000_0000_0000_0001, False)):
        spans = Collected(0.25)
        told = context(B3, Edge(tracing(spans)).call(*B3.write(TraceContext(7 << 64 | low, SPAN))))
        assert told.sampled is wanted
        assert bool(spans.spans) is wanted


@pytest.mark.parametrize(
    ("asked", "sampled"),
    [
        (b"1", True),
        (b"1.0", True),
        (b"7", True),
        (b"0", False),
        (b"-1", False),
        (b"0.5", True),
        (b"0.2", False),
        (b"inf", True),
    ],
)
@pytest.mark.parametrize("before", [None, False, True])
def test_l5d_sample_decides_whatever_was_decided_before(asked: bytes, sampled: bool, before: bool | None) -> None:
    spans = Collected(0.0)
    trace = 0x5000_0000_0000_0000  # below a half, above a fifth
    sent = Edge(tracing(spans)).call((b"l5d-sample", asked), *L5D.write(TraceContext(trace, SPAN, 0, before)))
    assert bool(spans.spans) is sampled
    assert context(L5D, sent).sampled is sampled
    assert b"l5d-sample" not in dict(sent)


@pytest.mark.parametrize("asked", [b"", b"x", b"nan", b"0,5", b"\xff"])
def test_l5d_sample_that_is_no_number_is_counted(asked: bytes) -> None:
    spans = Collected(1.0)
    edge = Edge(tracing(spans))
    edge.call((b"l5d-sample", asked))
    assert edge.malformed == 1
    assert len(spans.spans) == 2


def test_debug_wins() -> None:
    spans = Collected(0.0)
    sent = Edge(tracing(spans)).call((b"l5d-sample", b"0"), (b"x-b3-flags", b"1"))
    assert len(spans.spans) == 2
    assert spans.spans[0].context.debug
    assert dict(sent)[b"x-b3-flags"] == b"1"
    assert context(L5D, sent).debug


def test_a_decision_without_ids_begins_a_trace() -> None:
    spans = Collected(0.0)
    told = context(B3, Edge(tracing(spans)).call((b"b3", b"1")))
    assert told.sampled
    assert told.trace == spans.spans[0].context.trace


def test_nonsense_is_counted_and_no_parent() -> None:
    spans = Collected(1.0)
    edge = Edge(tracing(spans))
    sent = edge.call((b"traceparent", b"00-zz"), (b"tracestate", b"a=1"), (b"b3", b"x"), (b"l5d-ctx-trace", b"?"))
    assert edge.malformed == 3
    told = context(W3C, sent)
    assert told.trace == context(B3, sent).trace == context(L5D, sent).trace
    assert b"tracestate" not in dict(sent)
    assert spans.spans[1].context.parent == 0


def test_what_applications_write_is_believed_before_what_they_hand_on() -> None:
    came = (*L5D.write(TraceContext(1, 2, 3, True)), *W3C.write(TraceContext(TRACE, SPAN, 0, True)))
    assert context(L5D, Edge(tracing(Collected())).call(*came)).trace == TRACE
    assert context(L5D, Edge(tracing(Collected(), propagator=L5D)).call(*came)).trace == 1


def test_tracestate_goes_on_as_it_came_with_its_trace() -> None:
    parent = W3C.write(TraceContext(TRACE, SPAN, 0, True))
    states = ((b"tracestate", b"a=1, b=2"), (b"tracestate", b"c=3"))

    def kept(made: Tracing, *fields: tuple[bytes, bytes]) -> tuple[Fields, float]:
        edge = Edge(made)
        return tuple([field for field in edge.call(*fields) if field[0] == b"tracestate"]), edge.malformed

    assert kept(tracing(Collected()), *parent, *states) == (states, 0)
    assert kept(tracing(Collected(0.0)), *states) == (states, 0)  # of nothing that we know
    assert kept(tracing(Collected(), propagator=L5D), *parent, *states, *L5D.write(TraceContext(1, 2, 0, True))) == ((), 0)
    assert kept(tracing(Collected()), *parent, (b"tracestate", b"x=" + b"y" * 5000)) == ((), 1)


def test_each_telemeter_has_the_traces_of_its_own_rate() -> None:
    few, all_of_them = Collected(0.25), Collected(1.0)
    edge = Edge(tracing(few, all_of_them))
    for low in (0x1000_0000_0000_0000, 0x8000_0000_0000_0000):
        edge.call(*B3.write(TraceContext(low, SPAN)))
    assert [len(few.spans), len(all_of_them.spans)] == [2, 4]
    edge.call((b"b3", b"1"))
    assert [len(few.spans), len(all_of_them.spans)] == [4, 6]


def test_each_attempt_has_a_span_and_tells_it() -> None:
    spans = Collected()
    edge = Edge(tracing(spans), attempts=3)
    edge.call()
    *attempts, server = spans.spans
    assert [span.tags.get("http.request.resend_count") for span in attempts] == [None, 1, 2]
    assert {span.context.parent for span in attempts} == {server.context.span}
    assert [context(L5D, sent.fields).span for sent in edge.sent] == [span.context.span for span in attempts]
    assert len({span.context.span for span in spans.spans}) == 4
    for sent in edge.sent:
        assert [name for name, _ in sent.fields].count(b"l5d-ctx-trace") == 1


# -- anything -------------------------------------------------------------------------------------------------

NAMES = [*sorted(frozenset[bytes]().union(*[form.fields for form in FORMS])), b"tracestate", b"accept"]
values = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"0", b"1", b"d", b"0.5", b"00-%032x-%016x-01" % (TRACE, SPAN), b"%032x-%016x-1" % (TRACE, SPAN), b"%016x" % SPAN]
    ),
)


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=8).map(tuple),
    st.sampled_from([None, L5D, B3_MULTI, W3C]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.booleans(),
)
def test_whatever_comes_what_goes_on_is_one_trace_or_none(fields: Fields, propagator: Any, rate: float, shared: bool) -> None:
    spans = Collected(rate)
    edge = Edge(tracing(spans, propagator=propagator))
    sent = edge.call(*fields, shared=shared)
    trace = edge.exchange.trace
    told = {form.read(edge.sent[0]) for form in FORMS} - {None}
    if trace is None:
        assert propagator is None
        assert not spans.spans
        assert all(one is not None and not one.trace and not one.sampled for one in told)
    else:
        assert {one and one.trace for one in told} == {trace.context.trace}
        assert len({one and one.span for one in told}) == 1
        assert (propagator or L5D).read(edge.sent[0]) is not None
        assert len(spans.spans) == (2 if trace.context.sampled else 0)
    assert [field for field in sent if field[0] == b"accept"] == [field for field in fields if field[0] == b"accept"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=8).map(tuple))
def test_at_an_untrusted_edge_strangers_choose_neither_trace_nor_sampling(fields: Fields) -> None:
    spans = Collected(0.0)
    edge = Edge(tracing(spans))
    edge.service = clear_context(True, edge.service)
    sent = edge.call(*fields)
    assert sent == (*[field for field in fields if field[0] == b"accept"], (b"l5d-sample", b"0"))
    assert not spans.spans
    assert edge.malformed == 0
