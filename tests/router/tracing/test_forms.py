"""Trace contexts in headers: what each form says, what is no context, and what survives translation."""

from __future__ import annotations

import base64
import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.model.headers import Fields, RequestHead
from router.model.trace import TraceContext
from router.tracing.forms import (
    B3,
    B3_MULTI,
    FORMS,
    L5D,
    MAX_STATE,
    W3C,
    Form,
    state_fits,
    trace_id_of,
)

TRACE, SPAN, PARENT = 0x463AC35C9F6413AD48485A3953BB6124, 0xA2FB4A1D1A96D312, 0x0020000000000001
LOW = 0x48485A3953BB6124

ids = st.integers(1, (1 << 64) - 1)
traces = st.one_of(ids, st.integers(1, (1 << 128) - 1))
contexts = st.builds(
    TraceContext, traces, ids, st.one_of(st.just(0), ids), st.sampled_from([None, False, True]), debug=st.just(False)
)
EACH = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def head(*fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", b"http", b"web", b"/", fields)


def read(form: Form, *fields: tuple[bytes, bytes]) -> TraceContext | None:
    return form.read(head(*fields))


# -- each form ------------------------------------------------------------------------------------------------


@EACH
@given(context=contexts)
def test_what_is_written_is_read(form: Form, context: TraceContext) -> None:
    fields = form.write(context)
    assert {name for name, _ in fields} <= form.fields
    found = form.read(head(*fields))
    if form is W3C:  # has neither a parent's parent nor an open decision
        context = attrs.evolve(context, parent=0, sampled=bool(context.sampled))
    if form is B3 and context.sampled is None:  # tells the parent only behind a decision
        context = attrs.evolve(context, parent=0)
    if form is L5D and context.parent == context.span:  # is how it writes a root
        context = attrs.evolve(context, parent=0)
    assert found == context


@given(contexts, st.lists(st.sampled_from(FORMS), max_size=5))
def test_ids_and_decisions_survive_any_translation(context: TraceContext, forms: list[Form]) -> None:
    came: TraceContext | None = attrs.evolve(context, sampled=bool(context.sampled))
    for form in forms:
        assert came is not None
        came = form.read(head(*form.write(came)))
    assert came is not None
    assert (came.trace, came.span, came.sampled) == (context.trace, context.span, bool(context.sampled))


texts = st.one_of(
    st.binary(max_size=80),
    st.text("0123456789abcdefABCDEF-dx,= ", max_size=70).map(str.encode),
    st.binary(min_size=20, max_size=44).map(base64.b64encode),
)


@EACH
@given(data=st.data())
def test_nonsense_is_a_value_error_or_a_context(form: Form, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(form.fields))
    fields = data.draw(st.lists(st.tuples(names, texts), max_size=4))
    try:
        context = read(form, *fields)
    except ValueError:
        return
    assert context is None or context.trace == 0 or (context.trace < 1 << 128 and 0 < context.span < 1 << 64)
    if context is not None and context.trace:
        assert form.read(head(*form.write(context))) is not None


@EACH
def test_where_there_is_nothing_there_is_no_context(form: Form) -> None:
    assert read(form, (b"user-agent", b"x")) is None


@EACH
def test_a_field_that_is_repeated_says_nothing(form: Form) -> None:
    fields = form.write(TraceContext(TRACE, SPAN, 0, True))
    with pytest.raises(ValueError):
        read(form, fields[0], *fields)


@EACH
def test_no_id_may_be_zero(form: Form) -> None:
    for context in (TraceContext(0, SPAN, 0, True), TraceContext(TRACE, 0, 0, True)):
        with pytest.raises(ValueError):
            read(form, *form.write(context))


# -- l5d-ctx-trace --------------------------------------------------------------------------------------------


def test_finagles_words() -> None:
    words = struct.pack(">4Q", SPAN, PARENT, LOW, 2 | 4)
    short = TraceContext(LOW, SPAN, PARENT, True)
    assert read(L5D, (b"l5d-ctx-trace", base64.b64encode(words))) == short
    assert read(L5D, (b"l5d-ctx-trace", base64.b64encode(words).rstrip(b"="))) == short
    long = read(L5D, (b"l5d-ctx-trace", base64.b64encode(words + struct.pack(">Q", TRACE >> 64))))
    assert long == TraceContext(TRACE, SPAN, PARENT, True)
    assert dict(L5D.write(long)) == {
        b"l5d-ctx-trace": base64.b64encode(words + struct.pack(">Q", TRACE >> 64)),
        b"l5d-reqid": b"48485a3953bb6124",
    }


@pytest.mark.parametrize(
    ("flags", "sampled", "debug"), [(0, None, False), (2, False, False), (6, True, False), (1, None, True), (4, None, False)]
)
def test_finagles_flags(flags: int, sampled: bool | None, debug: bool) -> None:
    found = read(L5D, (b"l5d-ctx-trace", base64.b64encode(struct.pack(">4Q", SPAN, SPAN, LOW, flags))))
    assert found == TraceContext(LOW, SPAN, 0, sampled, debug)


@pytest.mark.parametrize(
    "text", [b"", b"x", b"!!!!", base64.b64encode(bytes(31)), base64.b64encode(bytes(41)), b"A" * 43 + b"=="]
)
def test_what_is_no_l5d_ctx_trace(text: bytes) -> None:
    with pytest.raises(ValueError):
        read(L5D, (b"l5d-ctx-trace", text))


# -- B3 -------------------------------------------------------------------------------------------------------

HEX, SPAN_HEX, PARENT_HEX = b"463ac35c9f6413ad48485a3953bb6124", b"a2fb4a1d1a96d312", b"0020000000000001"


@pytest.mark.parametrize(
    ("text", "context"),
    [
        (b"0", TraceContext(sampled=False)),
        (b"1", TraceContext(sampled=True)),
        (b"d", TraceContext(sampled=True, debug=True)),
        (b"%b-%b" % (HEX, SPAN_HEX), TraceContext(TRACE, SPAN)),
        (b"%b-%b-0" % (HEX[16:], SPAN_HEX), TraceContext(LOW, SPAN, 0, False)),
        (b"%b-%b-1-%b" % (HEX, SPAN_HEX.upper(), PARENT_HEX), TraceContext(TRACE, SPAN, PARENT, True)),
        (b"%b-%b-d" % (HEX, SPAN_HEX), TraceContext(TRACE, SPAN, 0, True, True)),
    ],
)
def test_b3(text: bytes, context: TraceContext) -> None:
    assert read(B3, (b"b3", text)) == context
    if context.trace:
        assert B3.write(context) == ((b"b3", text.lower()),)


@pytest.mark.parametrize(
    "text",
    [b"", b"2", b"-", HEX, b"%b-%b-x" % (HEX, SPAN_HEX), b"%b-%b-1-" % (HEX, SPAN_HEX), b"%b-%b" % (HEX[1:], SPAN_HEX),
     b"%b-%b-1-%b-x" % (HEX, SPAN_HEX, PARENT_HEX)],
)  # fmt: skip
def test_what_is_no_b3(text: bytes) -> None:
    with pytest.raises(ValueError):
        read(B3, (b"b3", text))


def multi(**fields: bytes) -> Fields:
    return tuple([(b"x-b3-" + name.encode(), value) for name, value in fields.items()])


@pytest.mark.parametrize(
    ("fields", "context"),
    [
        (multi(sampled=b"0"), TraceContext(sampled=False)),
        (multi(sampled=b"true"), TraceContext(sampled=True)),
        (multi(flags=b"1"), TraceContext(sampled=True, debug=True)),
        (multi(flags=b"0"), None),
        (multi(traceid=HEX, spanid=SPAN_HEX), TraceContext(TRACE, SPAN)),
        (
            multi(traceid=HEX[16:], spanid=SPAN_HEX, parentspanid=PARENT_HEX, sampled=b"1"),
            TraceContext(LOW, SPAN, PARENT, True),
        ),
        (multi(traceid=HEX, spanid=SPAN_HEX, flags=b"1", sampled=b"0"), TraceContext(TRACE, SPAN, 0, True, True)),
    ],
)
def test_b3_in_many_fields(fields: Fields, context: TraceContext | None) -> None:
    assert read(B3_MULTI, *fields) == context


@pytest.mark.parametrize(
    "fields",
    [
        multi(traceid=HEX),
        multi(spanid=SPAN_HEX),
        multi(traceid=HEX[1:], spanid=SPAN_HEX),
        multi(traceid=HEX, spanid=SPAN_HEX[1:]),
        multi(traceid=HEX, spanid=SPAN_HEX, parentspanid=b"x"),
        multi(traceid=HEX, spanid=SPAN_HEX, sampled=b"maybe"),
        multi(traceid=HEX, spanid=b"+" + SPAN_HEX[1:]),
    ],
)
def test_what_is_no_b3_in_many_fields(fields: Fields) -> None:
    with pytest.raises(ValueError):
        read(B3_MULTI, *fields)


# -- W3C ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "flags", "more", "sampled", "random"),
    [
        (b"00", b"00", b"", False, False),
        (b"00", b"01", b"", True, False),
        (b"00", b"03", b"", True, True),
        (b"00", b"fc", b"", False, False),
        (b"01", b"01", b"", True, False),
        (b"cc", b"02", b"-what-the-future-will-be", False, True),
    ],
)
def test_traceparent(version: bytes, flags: bytes, more: bytes, sampled: bool, random: bool) -> None:
    found = read(W3C, (b"traceparent", b"%b-%b-%b-%b%b" % (version, HEX, SPAN_HEX, flags, more)))
    assert found == TraceContext(TRACE, SPAN, 0, sampled, random=random)
    assert found is not None
    told = b"%02x" % (sampled | random << 1)
    assert W3C.write(found) == ((b"traceparent", b"00-%b-%b-%b" % (HEX, SPAN_HEX, told)),)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"ff-%b-%b-01" % (HEX, SPAN_HEX),
        b"00-%b-%b-01-more" % (HEX, SPAN_HEX),
        b"00-%b-%b-01-" % (HEX, SPAN_HEX),
        b"01-%b-%b-01more" % (HEX, SPAN_HEX),
        b"00-%b-%b-1" % (HEX, SPAN_HEX),
        b"00-%b-%b-0x" % (HEX, SPAN_HEX),
        b"00-%b-%b-01" % (HEX.upper(), SPAN_HEX),
        b"00-%b-%b-01" % (HEX[16:], SPAN_HEX),
        b"0-%b-%b-01" % (HEX, SPAN_HEX),
        b"00-%b-%b" % (HEX, SPAN_HEX),
    ],
)
def test_what_is_no_traceparent(text: bytes) -> None:
    with pytest.raises(ValueError):
        read(W3C, (b"traceparent", text))


def test_the_bounds_of_tracestate() -> None:
    def fits(*values: bytes) -> bool:
        return state_fits(head(*[(b"tracestate", value) for value in values]))

    assert fits(b"a=1,b=2", b" , c=3")
    assert fits(b",".join([b"k%d=v" % at for at in range(32)]))
    assert not fits(b",".join([b"k%d=v" % at for at in range(32)]), b"last=1")
    assert fits(b"a=" + b"x" * (MAX_STATE - 2))
    assert not fits(b"a=" + b"x" * (MAX_STATE - 1))


# -- for the access log ---------------------------------------------------------------------------------------


def test_the_id_that_a_request_brings() -> None:
    bad, good = (b"traceparent", b"junk"), (b"b3", b"%b-%b" % (HEX, SPAN_HEX))
    assert trace_id_of(head()) is None
    assert trace_id_of(head(bad)) is None
    assert trace_id_of(head(bad, good)) == HEX.decode()
    assert trace_id_of(head((b"b3", b"0"), *L5D.write(TraceContext(LOW, SPAN)))) == "48485a3953bb6124"
