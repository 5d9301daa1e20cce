"""How trace contexts are written in headers.

``l5d``  ``l5d-ctx-trace``: base64 of big-endian 64-bit words: span, parent, trace, flags, and for traces of 128 bits their high
         half (Finagle's TraceId). A root is its own parent. ``l5d-reqid`` tells people the trace's low half, ``l5d-sample`` the
         next router a rate.
``b3``   the field ``b3``; ``b3_multi``: fields ``x-b3-*`` (the B3 specification). Both may say whether to sample, and no more.
``w3c``  ``traceparent`` (W3C Trace Context, version 00; later ones by its rules) and ``tracestate``, which belongs to it.

Readers return None where there is nothing, and raise ValueError for what is no context; a field that is repeated is none.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from struct import Struct

import attrs

from router.model.headers import TRACESTATE, Field, Fields, Head
from router.model.trace import TraceContext

CTX_TRACE, REQUEST_ID, SAMPLE = b"l5d-ctx-trace", b"l5d-reqid", b"l5d-sample"
TRACEPARENT = b"traceparent"
MAX_STATE, MAX_MEMBERS = 4096, 32  # bytes and list members of tracestate (W3C: at least 512, at most 32)

_DEBUG, _KNOWN, _SAMPLED = 1, 2, 4  # flags of l5d-ctx-trace
_SHORT, _LONG = Struct(">4Q"), Struct(">5Q")
_parent = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL).fullmatch
_b3 = re.compile(rb"([0-9a-fA-F]{16}|[0-9a-fA-F]{32})-([0-9a-fA-F]{16})(?:-([01d])(?:-([0-9a-fA-F]{16}))?)?").fullmatch
_b3_trace = re.compile(rb"[0-9a-fA-F]{16}|[0-9a-fA-F]{32}").fullmatch
_b3_span = re.compile(rb"[0-9a-fA-F]{16}").fullmatch
_DECISIONS = {b"0": False, b"1": True, b"false": False, b"true": True}


@attrs.frozen(eq=False)
class Form:
    """``fields``: what it is written in, all of which goes when it is written anew. ``unsampled``: what says that a request is
    not to be sampled, and nothing else. ``read`` and ``write``: see above; ``write`` is given a context with ids."""

    name: str
    fields: frozenset[bytes]
    unsampled: Fields
    read: Callable[[Head], TraceContext | None]
    write: Callable[[TraceContext], Fields]


def _only(head: Head, name: bytes) -> bytes | None:
    values = head.get_all(name)
    if len(values) > 1:
        raise ValueError(f"{name.decode()} is repeated")
    return values[0].strip() if values else None


def _checked(context: TraceContext) -> TraceContext:
    if not context.trace or not context.span:
        raise ValueError("an id is 0")
    return context


# -- l5d-ctx-trace --------------------------------------------------------------------------------------------


def _read_l5d(head: Head) -> TraceContext | None:
    text = _only(head, CTX_TRACE)
    if text is None:
        return None
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(data) not in (_SHORT.size, _LONG.size):
        raise ValueError(f"{len(data)} bytes")
    words: tuple[int, ...] = (_SHORT if len(data) == _SHORT.size else _LONG).unpack(data)
    span, parent, trace, flags, high = (*words, 0)[:5]
    sampled = bool(flags & _SAMPLED) if flags & _KNOWN else None
    return _checked(TraceContext(high << 64 | trace, span, 0 if parent == span else parent, sampled, bool(flags & _DEBUG)))


def _write_l5d(context: TraceContext) -> Fields:
    flags = _DEBUG if context.debug else 0
    if context.sampled is not None:
        flags |= _KNOWN | (_SAMPLED if context.sampled else 0)
    high, low = context.trace >> 64, context.trace & 0xFFFF_FFFF_FFFF_FFFF
    words = (context.span, context.parent or context.span, low, flags)
    data = _LONG.pack(*words, high) if high else _SHORT.pack(*words)
    return (CTX_TRACE, base64.b64encode(data)), (REQUEST_ID, b"%016x" % low)


# -- B3 -------------------------------------------------------------------------------------------------------


def _read_b3(head: Head) -> TraceContext | None:
    text = _only(head, b"b3")
    if text is None:
        return None
    if text in (b"0", b"1", b"d"):
        return TraceContext(sampled=text != b"0", debug=text == b"d")
    found = _b3(text)
    if found is None:
        raise ValueError("not of the form of b3")
    trace, span, decision, parent = found.groups()
    sampled = None if decision is None else decision != b"0"
    return _checked(TraceContext(int(trace, 16), int(span, 16), int(parent or b"0", 16), sampled, decision == b"d"))


def _write_b3(context: TraceContext) -> Fields:
    text = b"%b-%016x" % (context.trace_id.encode(), context.span)
    if context.debug or context.sampled is not None:
        text += b"-d" if context.debug else b"-1" if context.sampled else b"-0"
        if context.parent:
            text += b"-%016x" % context.parent
    return ((b"b3", text),)


def _read_b3_multi(head: Head) -> TraceContext | None:
    trace, span, parent = _only(head, b"x-b3-traceid"), _only(head, b"x-b3-spanid"), _only(head, b"x-b3-parentspanid")
    said, flags = _only(head, b"x-b3-sampled"), _only(head, b"x-b3-flags")
    debug = flags == b"1"
    sampled = True if debug else None if said is None else _DECISIONS.get(said.lower())
    if said is not None and said.lower() not in _DECISIONS:
        raise ValueError("x-b3-sampled is neither 0 nor 1")
    if trace is None and span is None:
        return None if sampled is None else TraceContext(sampled=sampled, debug=debug)
    if trace is None or span is None or not _b3_trace(trace) or not _b3_span(span) or not _b3_span(parent or b"0" * 16):
        raise ValueError("ids are missing, or no hexadecimal of their length")
    return _checked(TraceContext(int(trace, 16), int(span, 16), int(parent or b"0", 16), sampled, debug))


def _write_b3_multi(context: TraceContext) -> Fields:
    fields: list[Field] = [(b"x-b3-traceid", context.trace_id.encode()), (b"x-b3-spanid", b"%016x" % context.span)]
    if context.parent:
        fields.append((b"x-b3-parentspanid", b"%016x" % context.parent))
    if context.debug:
        fields.append((b"x-b3-flags", b"1"))
    elif context.sampled is not None:
        fields.append((b"x-b3-sampled", b"1" if context.sampled else b"0"))
    return tuple(fields)


# -- W3C ------------------------------------------------------------------------------------------------------


def _read_w3c(head: Head) -> TraceContext | None:
    text = _only(head, TRACEPARENT)
    if text is None:
        return None
    found = _parent(text)
    if found is None:
        raise ValueError("not of the form of traceparent")
    version, trace, span, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        raise ValueError("no version that there may be")
    bits = int(flags, 16)
    return _checked(TraceContext(int(trace, 16), int(span, 16), 0, bool(bits & 1), random=bool(bits & 2)))


def _write_w3c(context: TraceContext) -> Fields:
    flags = (1 if context.sampled else 0) | (2 if context.random else 0)
    return ((TRACEPARENT, b"00-%032x-%016x-%02x" % (context.trace, context.span, flags)),)


def state_fits(head: Head) -> bool:
    """Whether ``tracestate``, which is passed on as it came, is within its bounds."""
    values = head.get_all(TRACESTATE)
    members = sum(bool(member.strip()) for value in values for member in value.split(b","))
    return sum(map(len, values)) <= MAX_STATE and members <= MAX_MEMBERS


L5D = Form("l5d", frozenset((CTX_TRACE, REQUEST_ID, SAMPLE)), ((SAMPLE, b"0"),), _read_l5d, _write_l5d)
B3 = Form("b3", frozenset((b"b3",)), ((b"b3", b"0"),), _read_b3, _write_b3)
B3_MULTI = Form(
    "b3_multi",
    frozenset((b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags")),
    ((b"x-b3-sampled", b"0"),),
    _read_b3_multi,
    _write_b3_multi,
)
W3C = Form("w3c", frozenset((TRACEPARENT,)), (), _read_w3c, _write_w3c)

FORMS = (W3C, B3, B3_MULTI, L5D)
_ALL = frozenset[bytes]().union(*[form.fields for form in FORMS])
"""In the order in which they are believed: what tracers of applications write before what applications only hand on."""


def trace_id_of(head: Head) -> str | None:
    """The id of the trace that a request says it belongs to."""
    if head.lacks(_ALL):
        return None
    for form in FORMS:
        if not head.lacks(form.fields):
            try:
                context = form.read(head)
            except ValueError:
                continue
            if context is not None and context.trace:
                return context.trace_id
    return None
