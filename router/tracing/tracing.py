"""What a router does about traces: which contexts it reads, what it decides, what it puts on requests.

Theory of operation

1. A request that says something of a trace has that read (:mod:`router.tracing.forms`) and taken off. One that says nothing
   begins a trace where a telemeter's rate wants it, or, where ``tracePropagator`` is configured, in any case.
2. Each attempt is told of its own span, in the forms that came and in the router's. ``tracestate`` goes on as it came, within
   bounds, with the trace that it is about.
3. A request that belongs to no trace is sent on as not sampled, in the forms that can say so without ids, so that the routers
   after us begin no traces that nobody before them is part of. A shared head is changed once for that, and once for the sampled
   ones, which go on as a copy: the two have caches of their own.
4. Nonsense is counted, and otherwise as if it were not there.
"""

from __future__ import annotations

from random import getrandbits, random, randrange

from router.model.exchange import Exchange
from router.model.headers import TRACESTATE, Fields, RequestHead
from router.model.metrics import Counter
from router.model.trace import Trace, TraceContext, new_id
from router.tracing.exporter import Exporter
from router.tracing.forms import FORMS, L5D, W3C, Form, state_fits
from router.tracing.sampling import asked_rate, bound_of, low_bits
from router.tracing.spans import Spans

_SPEAKING = frozenset[bytes]().union(*[form.fields for form in FORMS])
_NOTHING = TraceContext()


class Carrier:
    """Puts contexts on requests, in some forms. ``unsampled``: what is put on those that have none."""

    __slots__ = ("_forms", "unsampled")

    def __init__(self, forms: tuple[Form, ...]) -> None:
        self._forms = forms
        self.unsampled: Fields = tuple([field for form in forms for field in form.unsampled])

    def put(self, head: RequestHead, context: TraceContext) -> RequestHead:
        """The head with ``context``; it has none yet."""
        fields = list(head.fields)
        for form in self._forms:
            fields += form.write(context)
        return _own(head, fields)


def _own(head: RequestHead, fields: list[tuple[bytes, bytes]]) -> RequestHead:
    """The head with other fields, of one request only."""
    made = head.with_fields(tuple(fields))
    made.shared = False
    return made


class Tracing:
    """One router's. ``propagator``: the form that is configured, or None: Linkerd's, and none where nothing is traced."""

    def __init__(self, label: str, propagator: Form | None, exporters: tuple[Exporter, ...]) -> None:
        self._label = label
        self._own = own = propagator or L5D
        self._always = propagator is not None
        self._forms = FORMS if propagator is None else (own, *[form for form in FORMS if form is not own])
        self._carriers: dict[tuple[Form, ...], Carrier] = {}
        self._carrier = self._carrier_for(())
        self._exporters = tuple([(bound_of(exporter.rate), exporter) for exporter in exporters])
        self._bound = max([bound for bound, _ in self._exporters], default=0)
        self.rate = 1.0 if self._always else self._bound / 2**64
        self._everywhere = Spans(label, exporters) if exporters else None

    def _carrier_for(self, came: tuple[Form, ...]) -> Carrier:
        carrier = self._carriers.get(came)
        if carrier is None:
            carrier = self._carriers[came] = Carrier(came if self._own in came else (*came, self._own))
        return carrier

    def trace(self, exchange: Exchange, malformed: Counter, drawn: bool = False) -> Trace | None:
        """The trace of a request, if it is to have one. Changes its head. ``drawn``: whoever asks has found what is kept by the
        head, which says nothing, and drawn by :attr:`rate` that the request is to have one."""
        head = exchange.request
        cached = head.forwarded
        if cached is not None and cached[0] is self:
            twins: tuple[RequestHead, RequestHead] = cached[1]
        elif head.lacks(_SPEAKING):
            twins = self._twins(head)
        else:
            return self._trace_speaking(exchange, malformed)
        if drawn or random() < self.rate:
            exchange.request = twins[1]
            low = getrandbits(64) if self._always else randrange(self._bound)
            return self._begin(exchange, low, None, self._carrier, False)
        exchange.request = twins[0]
        return None

    def _twins(self, head: RequestHead) -> tuple[RequestHead, RequestHead]:
        """The head for requests that belong to no trace, and for those that do."""
        twins = (head.with_fields((*head.fields, *self._carrier.unsampled)), head)
        if head.shared:
            twins = (twins[0], head.with_fields(head.fields))
            head.forwarded = (self, twins)
        return twins

    def _trace_speaking(self, exchange: Exchange, malformed: Counter) -> Trace | None:
        head = exchange.request
        came = tuple([form for form in self._forms if not head.lacks(form.fields)])
        found = _read(head, came, malformed)
        said = next((context for context in found.values() if context.trace), None) or next(iter(found.values()), _NOTHING)
        low = low_bits(said.trace) if said.trace else getrandbits(64)
        sampled = True if said.debug else _asked(head, low, said.sampled, malformed)
        gone = frozenset((TRACESTATE,)) if _state_ends(head, said, found.get(W3C), malformed) else frozenset[bytes]()
        gone = gone.union(*[form.fields for form in came])
        fields = [field for field in head.fields if field[0] not in gone]
        carrier = self._carrier_for(came)
        exchange.request = _own(head, fields)
        if said.trace:
            return self._made(exchange, said, low, sampled, carrier)
        if self._always or sampled or (sampled is None and low < self._bound):
            return self._begin(exchange, low, sampled, carrier, said.debug)
        exchange.request = _own(head, [*fields, *carrier.unsampled])
        return None

    def _begin(self, exchange: Exchange, low: int, sampled: bool | None, carrier: Carrier, debug: bool) -> Trace:
        """A trace that begins here."""
        return self._made(exchange, TraceContext(getrandbits(64) << 64 | low or 1, debug=debug), low, sampled, carrier)

    def _made(self, exchange: Exchange, parent: TraceContext, low: int, sampled: bool | None, carrier: Carrier) -> Trace:
        """``sampled``: what is decided already; None: the telemeters' rates decide."""
        spans = self._everywhere if sampled else None
        if sampled is None and self._exporters:
            sampled = low < self._bound
            spans = self._chosen(low) if sampled else None
        elapsed = int((exchange.now() - exchange.received_at) * 1e9)
        context = TraceContext(parent.trace, new_id(), parent.span, sampled, parent.debug, parent.random)
        return Trace(context, carrier, spans, id(exchange), exchange.host.wall_ns() - elapsed)

    def _chosen(self, low: int) -> Spans | None:
        """What makes the spans of a trace that rates have chosen: for each telemeter those of its own rate."""
        chosen = tuple([exporter for bound, exporter in self._exporters if low < bound])
        return self._everywhere if len(chosen) == len(self._exporters) else Spans(self._label, chosen)


def _read(head: RequestHead, came: tuple[Form, ...], malformed: Counter) -> dict[Form, TraceContext]:
    """The contexts that a request has."""
    found = {}
    for form in came:
        try:
            context = form.read(head)
        except ValueError:
            malformed.value += 1
            continue
        if context is not None:
            found[form] = context
    return found


def _asked(head: RequestHead, low: int, before: bool | None, malformed: Counter) -> bool | None:
    """What ``l5d-sample`` decides, or those ``before`` us have decided."""
    try:
        rate = asked_rate(head)
    except ValueError:
        malformed.value += 1
        return before
    return before if rate is None else low < bound_of(rate)


def _state_ends(head: RequestHead, said: TraceContext, parent: TraceContext | None, malformed: Counter) -> bool:
    """Whether ``tracestate`` must not go on: the trace that it is about does not, or it is beyond its bounds."""
    if TRACESTATE not in head:
        return False
    if parent is None or parent.trace != said.trace:
        return True
    if state_fits(head):
        return False
    malformed.value += 1
    return True
