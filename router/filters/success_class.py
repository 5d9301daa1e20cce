"""``l5d-success-class`` on responses: ``1.0`` or ``0.0``, as the logical name's classifier judges them.

A router before us can count by it what its own classifier cannot know. It replaces what the endpoint said (Linkerd's rule). On
HTTP it is a header, and presumes that the body will end as it should: one that does not is seen to break off. A gRPC stream
has it beside its grpc-status, in the trailers or in the head of a Trailers-Only response; nothing is added where there are no
trailers, whereas Linkerd adds trailers to every HTTP/2 response.
"""

from __future__ import annotations

from router.model.exchange import Exchange
from router.model.headers import Field, Fields, ResponseHead
from router.model.service import Conducting, Service
from router.model.verdict import SUCCESS

NAME = b"l5d-success-class"
GOOD: Field = (NAME, b"1.0")
BAD: Field = (NAME, b"0.0")


def success_class(next_service: Service) -> Service:
    """Mark responses."""

    def success_class_service(exchange: Exchange) -> Conducting:
        exchange.marks = _MARKS
        return next_service(exchange)

    return success_class_service


class _Marks:
    """See :class:`router.model.exchange.Marks`."""

    def head(self, exchange: Exchange, head: ResponseHead, end: bool) -> ResponseHead:
        """Mark a head that says enough."""
        if not end and exchange.request.grpc and head.status < 400:
            return head
        complete, exchange.complete = exchange.complete, True
        field = GOOD if exchange.classify(exchange) is SUCCESS else BAD
        exchange.complete = complete
        known = head.forwarded
        if known is not None and known[0] is field:
            marked: ResponseHead = known[1]
            return marked
        marked = head.with_fields(_with(head.fields, field))
        if head.shared:
            head.forwarded = (field, marked)
        return marked

    def trailers(self, exchange: Exchange, trailers: Fields) -> Fields:
        """Mark the trailers of a gRPC stream."""
        if not exchange.request.grpc or not trailers:
            return trailers
        return _with(trailers, GOOD if (exchange.judged or exchange.verdict) is SUCCESS else BAD)


def _with(fields: Fields, field: Field) -> Fields:
    for name, _ in fields:
        if name == NAME:
            fields = tuple([other for other in fields if other[0] != NAME])
            break
    return (*fields, field)


_MARKS = _Marks()
