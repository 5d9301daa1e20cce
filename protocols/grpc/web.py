"""gRPC-Web in front of gRPC: what browsers can say, turned into gRPC on the way in, and back on the way out.

Source: gRPC's "gRPC Web" (PROTOCOL-WEB.md), on HTTP/1.1 and HTTP/2, in the binary form and in the text form.

Theory of operation

1. A request with the content type ``application/grpc-web`` (``-text`` for base64) becomes one of ``application/grpc``:
   everything below, from limits to classifiers, sees gRPC. Messages are the same bytes in both, hence only the text form
   touches a body.
2. The client's reply is wrapped. Head and body pass, message by message as they come, credit with them; trailers become the
   last frame of the body, with the flag 0x80. A Trailers-Only response stays one: its status is in the head.
3. Errors of ours are rendered as gRPC (:mod:`router.model.answers`) into the same wrapper, over HTTP/1.1 too.
4. A response that is not gRPC, an error page of something in between, passes as it is: clients judge its HTTP status.
5. The response has the form that ``accept`` asks for, by default the request's.
6. Nothing is kept but three characters of base64.
"""

from __future__ import annotations

from typing import Any

from protocols.grpc.cors import Cors
from protocols.grpc.text import TextBody, encode
from router.model.body import Chunk, Sink, Source
from router.model.ends import Ends
from router.model.exchange import Exchange, Reply
from router.model.failure import Failure
from router.model.headers import Fields, RequestHead, ResponseHead, is_grpc
from router.model.service import Service
from router.model.stack import Module

_WEB = b"application/grpc-web"
_GRPC = b"application/grpc"
_TRAILERS = b"\x80"
_ENDS_HERE = frozenset((b"content-type", b"content-length", b"accept", b"x-grpc-web"))


class Form:
    """A request as gRPC, and which forms it and its answer have."""

    __slots__ = ("head", "text_in", "text_out")

    def __init__(self, head: RequestHead, kind: bytes, text: bool) -> None:
        fields = [field for field in head.fields if field[0] not in _ENDS_HERE]
        self.head = head.replace(fields=(*fields, (b"content-type", _GRPC + kind)), length=None)
        self.head.shared = head.shared
        accept = head.get(b"accept") or b""
        self.text_in = text
        self.text_out = b"-text" in accept if _WEB in accept else text


def form_of(head: RequestHead) -> Form | None:
    """The gRPC request that this one stands for, made once per shared head; None where it is no gRPC-Web."""
    cached = head.forwarded
    if cached is not None and cached[0] is Form:
        known: Form = cached[1]
        return known
    kind = head.get(b"content-type")
    if kind is None or not kind.startswith(_WEB) or head.method != b"POST":
        return None
    kind = kind[len(_WEB) :]
    text = kind.startswith(b"-text")
    kind = kind.removeprefix(b"-text")
    if kind and kind[:1] not in b"+;":
        return None
    form = Form(head, kind, text)
    if head.shared:
        head.forwarded = (Form, form)
    return form


def trailers_frame(trailers: Fields) -> bytes:
    """The last frame of a body: trailers as an HTTP/1 header block, in lower case."""
    block = b"".join([b"%b:%b\r\n" % field for field in trailers])
    return _TRAILERS + len(block).to_bytes(4) + block


def grpc_web(params: Any, next_service: Service) -> Service:
    """Serve gRPC-Web, and its preflights, where ``params.grpc_web`` says how."""
    config = params.grpc_web
    if config is None:
        return next_service
    cors = Cors(config) if config.allow_origins else None
    metrics = params.metrics.scope("grpc_web")
    requests, preflights = metrics.counter("requests"), metrics.counter("preflights")

    async def grpc_web_service(exchange: Exchange) -> None:
        head = exchange.request
        form = form_of(head)
        if form is not None:
            requests.value += 1
            fields = () if cors is None else cors.answer(head.get(b"origin"))
            _translate(exchange, form, fields)
        elif cors is not None:
            answer = cors.preflight(head)
            if answer is not None:
                preflights.value += 1
                exchange.conclude(())
                exchange.respond(answer, True)
                return
        await next_service(exchange)

    return grpc_web_service


def _translate(exchange: Exchange, form: Form, fields: Fields) -> None:
    exchange.request = form.head
    exchange.reply = WebReply(exchange.reply, form.text_out, fields)
    if form.text_in and exchange.body is not None:
        exchange.body = TextBody(exchange, exchange.body)


class WebReply:
    """The answer to a gRPC-Web client: a :class:`router.model.exchange.Reply` around its connection's. ``fields`` are added."""

    __slots__ = ("_fields", "_grpc", "_reply", "_sink", "_text")

    carries_grpc = True

    def __init__(self, reply: Reply, text: bool, fields: Fields) -> None:
        self._reply = reply
        self._sink: Sink = reply
        self._text = text
        self._fields = fields
        self._grpc = False

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
    def ends(self) -> Ends:
        return self._reply.ends

    @property
    def discreet(self) -> bool:
        return self._reply.discreet

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
        """Nothing for clients of gRPC."""

    def start(self, head: ResponseHead, end: bool) -> Sink:
        kind = head.get(b"content-type")
        self._grpc = is_grpc(kind)
        if kind is not None and self._grpc:
            kind = _WEB + (b"-text" if self._text else b"") + kind[len(_GRPC) :]
            fields = [field for field in head.fields if field[0] not in (b"content-type", b"content-length")]
            head = ResponseHead(head.status, (*fields, (b"content-type", kind), *self._fields))
        elif self._fields:
            head = head.replace(fields=(*head.fields, *self._fields))
        self._sink = self._reply.start(head, end)
        return self

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        self._sink.data(encode(chunk) if self._text and self._grpc else chunk, size, end)

    def end(self, trailers: Fields) -> None:
        if not self._grpc:
            self._sink.end(trailers)
        elif not trailers:
            self._sink.end(())
        else:
            frame = trailers_frame(trailers)
            self._sink.data(encode(frame) if self._text else frame, 0, True)

    def abort(self, failure: Failure) -> None:
        self._sink.abort(failure)


IN = Module("grpc_web", grpc_web, why="everything below sees gRPC, and everything that it answers comes by here")
