"""Linkerd's ``clearContext``: at an untrusted edge nothing of ours comes in, and nothing of ours gets out.

Request fields named ``l5d-*`` are taken off, whoever would have read them: dtabs, deadlines, priorities. So is what says to
which trace the request belongs, in any form: strangers neither choose what is sampled nor join our traces. From responses,
their trailers and interim responses ``l5d-*`` are taken off too. An error of a router (``l5d-err``), this one or one behind
it, keeps its status and loses its body; to gRPC clients it keeps its status without a message.
"""

from __future__ import annotations

from typing import TypeVar

from router.model.body import Chunk, Sink, Source
from router.model.ends import Ends
from router.model.exchange import Exchange, Reply
from router.model.failure import Failure
from router.model.headers import TRACE_FIELDS, Fields, RequestHead, ResponseHead
from router.model.service import Service

_OURS = b"l5d-"
_REQUEST, _RESPONSE = TRACE_FIELDS, frozenset[bytes]()
_CLEARED = object()
AnyHead = TypeVar("AnyHead", RequestHead, ResponseHead)


def clear_context(wanted: bool, next_service: Service) -> Service:
    """Forget what the request says in ``l5d-*``, and tell the client nothing in such fields."""
    if not wanted:
        return next_service

    async def clear_context_service(exchange: Exchange) -> None:
        exchange.request = _cleared(exchange.request, _REQUEST)
        exchange.reply = ClearedReply(exchange.reply)
        await next_service(exchange)

    return clear_context_service


def _cleared(head: AnyHead, others: frozenset[bytes]) -> AnyHead:
    """The head without our fields and ``others``; itself where it has none. Once per shared head."""
    cached = head.forwarded
    if cached is not None and cached[0] is _CLEARED:
        known: AnyHead = cached[1]
        return known
    fields = _without(head.fields, others)
    cleared = head if len(fields) == len(head.fields) else head.with_fields(fields)
    if head.shared and cleared is not head:
        head.forwarded = (_CLEARED, cleared)
    return cleared


def _without(fields: Fields, others: frozenset[bytes] = _RESPONSE) -> Fields:
    return tuple([field for field in fields if not field[0].startswith(_OURS) and field[0] not in others])


class ClearedReply:
    """A reply whose client learns nothing of us: a :class:`router.model.exchange.Reply` around another one."""

    __slots__ = ("_reply", "_sink")

    discreet = True

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._sink: Sink = reply

    @property
    def started(self) -> bool:
        return self._reply.started

    @property
    def sent(self) -> int:
        return self._reply.sent

    @property
    def peer(self) -> str:
        return self._reply.peer

    @property
    def carries_grpc(self) -> bool:
        return self._reply.carries_grpc

    @property
    def ends(self) -> Ends:
        return self._reply.ends

    @property
    def client_certificate(self) -> bytes | None:
        return self._reply.client_certificate

    @property
    def source(self) -> Source | None:
        return self._sink.source

    @source.setter
    def source(self, source: Source | None) -> None:
        self._sink.source = source

    def inform(self, head: ResponseHead) -> None:
        self._reply.inform(_cleared(head, _RESPONSE))

    def start(self, head: ResponseHead, end: bool) -> Sink:
        if b"l5d-err" in head:
            self._reply.start(_silenced(head), True)
            self._sink = Dropped()
        else:
            self._sink = self._reply.start(_cleared(head, _RESPONSE), end)
        return self

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        self._sink.data(chunk, size, end)

    def end(self, trailers: Fields) -> None:
        self._sink.end(_without(trailers) if trailers else trailers)

    def abort(self, failure: Failure) -> None:
        self._sink.abort(failure)


def _silenced(head: ResponseHead) -> ResponseHead:
    """The head of an error without what it says."""
    told = (b"content-length", b"content-type", b"content-encoding")
    return ResponseHead(head.status, tuple([field for field in _without(head.fields) if field[0] not in told]))


class Dropped:
    """The sink of a body that nobody is to see."""

    __slots__ = ("source",)

    def __init__(self) -> None:
        self.source: Source | None = None

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Credit and forget."""
        if size and self.source is not None:
            self.source.credit(size)

    def end(self, trailers: Fields) -> None:
        """The answer has ended already."""

    def abort(self, failure: Failure) -> None:
        """The answer has ended already."""
