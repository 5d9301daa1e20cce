"""gRPC-Web: requests become gRPC, answers come back as frames; base64 in any pieces; who may call from where."""

from __future__ import annotations

from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.grpc.text import Decoder, encode
from protocols.grpc.web import grpc_web, trailers_frame
from router.config.edge import GrpcWeb
from router.model.answers import render_h2, render_http
from router.model.body import FixedSource, Source
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Strand, Waiter
from tests.support.fakes import FakeHost, RecordingReply

MESSAGE = b"\0\0\0\0\3abc"
OK: Fields = ((b"grpc-status", b"0"), (b"grpc-message", b"fine"))
FRAME = b"\x80\0\0\0" + bytes([34]) + b"grpc-status:0\r\ngrpc-message:fine\r\n"
GRPC = ResponseHead(200, ((b"content-type", b"application/grpc+proto"), (b"x-a", b"b")))
ORIGIN = b"https://app.example.com"


class Body(Source):
    """A client's body, pushed by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.credited = 0
        self.stopped: list[Failure | None] = []

    def credit(self, size: int) -> None:
        self.credited += size

    def stop(self, failure: Failure | None) -> None:
        self.stopped.append(failure)


class Taken:
    """The sink of the request on the endpoint's side."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self.chunks: list[bytes] = []
        self.ended: Fields | None = None
        self.aborted: Failure | None = None

    def data(self, chunk: Any, size: int, end: bool) -> None:
        self.chunks.append(bytes(chunk))
        if end:
            self.ended = ()
        if size and self.source is not None:
            self.source.credit(size)

    def end(self, trailers: Fields) -> None:
        self.ended = trailers

    def abort(self, failure: Failure) -> None:
        self.aborted = failure


class Web:
    """One exchange through the layer; below it waits an endpoint whose answers are the test's."""

    def __init__(self, *fields: tuple[bytes, bytes], method: bytes = b"POST", body: Body | None = None, **config: Any) -> None:
        self.host: Any = FakeHost()
        self.reply: Any = RecordingReply()
        self.reply.carries_grpc = False  # HTTP/1.1
        head = RequestHead(method, b"http", b"web", b"/a.B/C", fields, version=(1, 1))
        self.exchange = Exchange(self.host, head, body, self.reply)
        self.taken = Taken()
        self.over: Waiter[None] = Waiter()
        self.began = False
        self.failure: Failure | None = None
        self.metrics = Metrics()
        params = SimpleNamespace(grpc_web=GrpcWeb(**config), metrics=self.metrics)
        service = grpc_web(params, self._endpoint)

        async def run() -> None:
            try:
                await service(self.exchange)
            except Failure as failure:
                self.failure = failure

        self.exchange.strand = self.strand = Strand(self.host, run())
        self.strand.start()

    async def _endpoint(self, exchange: Exchange) -> None:
        self.began = True
        if exchange.body is not None:
            exchange.body.join(self.taken)
        await self.over

    def answer(self, head: ResponseHead, body: bytes = b"", trailers: Fields = ()) -> None:
        source = FixedSource(body, trailers)
        source.join(self.exchange.respond(head, False))
        self.exchange.conclude(trailers)


def web(kind: bytes, *fields: tuple[bytes, bytes], **more: Any) -> Web:
    return Web((b"content-type", kind), (b"x-grpc-web", b"1"), (b"content-length", b"8"), *fields, **more)


# -- requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"", b"+proto", b"+json", b";a=b"])
@pytest.mark.parametrize("text", [b"", b"-text"])
def test_a_request_becomes_grpc(kind: bytes, text: bytes) -> None:
    made = web(b"application/grpc-web" + text + kind, (b"x-user-agent", b"grpc-web-javascript/0.1"), (b"accept", b"*/*"))
    head = made.exchange.request
    assert head.fields == ((b"x-user-agent", b"grpc-web-javascript/0.1"), (b"content-type", b"application/grpc" + kind))
    assert head.grpc
    assert head.length is None
    assert (head.method, head.path, head.authority, head.version) == (b"POST", b"/a.B/C", b"web", (1, 1))
    assert made.metrics.flat()["grpc_web/requests"] == 1


@pytest.mark.parametrize(
    "kind", [b"application/grpc", b"application/grpc-webx", b"application/grpc-web-textual", b"text/plain"]
)
def test_anything_else_is_left_alone(kind: bytes) -> None:
    made = web(kind)
    assert made.exchange.reply is made.reply
    assert made.exchange.request.get(b"content-type") == kind
    other = web(b"application/grpc-web", method=b"PUT")
    assert other.exchange.reply is other.reply


def test_a_shared_head_is_translated_once() -> None:
    made = web(b"application/grpc-web")
    head = RequestHead(b"POST", b"http", b"web", b"/", ((b"content-type", b"application/grpc-web"),))
    head.shared = True
    heads = []

    async def inner(exchange: Exchange) -> None:
        heads.append(exchange.request)

    service = grpc_web(SimpleNamespace(grpc_web=GrpcWeb(), metrics=Metrics()), inner)
    for _ in range(2):
        Strand(made.host, service(Exchange(made.host, head, None, RecordingReply()))).start()  # type: ignore[arg-type]
    assert heads[0] is heads[1]
    assert heads[0].shared


def test_a_binary_body_is_the_same_object() -> None:
    body = Body()
    assert web(b"application/grpc-web", body=body).exchange.body is body


@pytest.mark.parametrize("step", [1, 2, 3, 5, 100])
def test_a_text_body_is_decoded_as_it_comes_and_credited_as_it_is_taken(step: int) -> None:
    body = Body()
    made = web(b"application/grpc-web-text", body=body)
    text = b64encode(MESSAGE) + b64encode(MESSAGE * 2)
    for at in range(0, len(text), step):
        body.push(text[at : at + step], step, False)
    assert b"".join(made.taken.chunks) == MESSAGE * 3
    assert body.credited == -(-len(text) // step) * step
    body.finish(())
    assert made.taken.ended == ()
    made.exchange.close()
    assert body.sink is None


def test_the_end_may_come_with_the_last_bytes_and_a_broken_body_breaks() -> None:
    body = Body()
    made = web(b"application/grpc-web-text", body=body)
    body.push(b64encode(MESSAGE), 12, True)
    assert (made.taken.chunks, made.taken.ended) == ([MESSAGE], ())
    gone = Failure(Kind.RESET, "gone", Blame.CLIENT)
    body = Body()
    made = web(b"application/grpc-web-text", body=body)
    body.fail(gone)
    assert made.taken.aborted is gone


@pytest.mark.parametrize("text", [b"AAA*", b"AAAA\nAAA", b"A===", b"AAA", b"AA=A", b"=AAA"])
def test_what_is_no_base64_ends_the_call(text: bytes) -> None:
    body = Body()
    made = web(b"application/grpc-web-text", body=body)
    body.push(text, len(text), True)
    body.push(b"AAAA", 4, False)
    assert made.failure is not None
    assert (made.failure.kind, made.failure.blame) == (Kind.MALFORMED, Blame.CLIENT)
    assert body.credited == len(text) + 4
    assert made.taken.ended is None


def test_a_body_that_nobody_takes_is_credited_at_the_end_and_stopping_reaches_the_client() -> None:
    body = Body()
    made = web(b"application/grpc-web-text", body=body)
    exchange = made.exchange
    assert exchange.body is not None
    exchange.body.keep(100)
    body.push(b64encode(MESSAGE), 12, False)
    exchange.body.again()
    body.push(b64encode(MESSAGE), 12, False)
    second = Taken()
    exchange.body.join(second)  # type: ignore[arg-type]
    assert second.chunks == [MESSAGE, MESSAGE]
    exchange.body.stop(None)
    assert body.stopped == [None]
    exchange.body.again()
    body.push(b64encode(MESSAGE), 12, False)
    assert body.credited == 24
    exchange.close()
    assert body.credited == 36


@given(st.lists(st.binary(max_size=20)), st.data())
def test_pieces_of_base64_in_pieces(pieces: list[bytes], data: st.DataObject) -> None:
    text = b"".join(map(encode, pieces))
    decoder, out, at = Decoder(), b"", 0
    while at < len(text):
        step = data.draw(st.integers(1, 9))
        out += decoder.decode(memoryview(text)[at : at + step])
        at += step
    decoder.finish()
    assert out == b"".join(pieces)


@given(st.binary(max_size=200), st.lists(st.integers(1, 9)), st.booleans(), st.booleans())
def test_a_request_is_the_same_in_any_pieces(message: bytes, steps: list[int], text: bool, last: bool) -> None:
    """As text and in binary; the end with the last piece or behind it."""
    body = Body()
    made = web(b"application/grpc-web" + b"-text" * text, body=body)
    sent = b64encode(message) if text else message
    at, pieces = 0, []
    for step in [*steps, len(sent) or 1]:
        pieces += [sent[at : at + step]] if at < len(sent) else []
        at += step
    for piece in pieces[:-1]:
        body.push(piece, len(piece), False)
    for piece in pieces[-1:]:
        body.push(piece, len(piece), last)
    if not last or not pieces:
        body.finish(())
    assert b"".join(made.taken.chunks) == message
    assert made.taken.ended == ()
    assert body.credited == len(sent)
    made.strand.cancel(Failure(Kind.RESET, "over", Blame.CLIENT))


@pytest.mark.parametrize("last", [True, False])
def test_what_is_no_base64_ends_the_exchange_once(last: bool) -> None:
    body = Body()
    made = web(b"application/grpc-web-text", body=body)
    if last:
        body.push(b"AAA", 3, True)
    else:
        body.push(b"AAA", 3, False)
        body.finish(())
    assert made.failure is not None
    assert (made.failure.kind, made.failure.blame) == (Kind.MALFORMED, Blame.CLIENT)
    assert "no base64" in made.failure.why


def test_bytes_behind_what_is_no_base64_are_credited_and_dropped() -> None:
    body = Body()
    made = web(b"application/grpc-web-text", body=body)
    text = body.sink
    assert text is not None
    text.data(b"????", 4, False)
    text.data(b"AAAA", 4, False)
    text.end(())
    assert made.failure is not None
    assert (body.credited, made.taken.chunks, made.taken.ended) == (8, [], None)


def test_what_a_reply_knows_of_its_client() -> None:
    made = web(b"application/grpc-web+proto")
    reply, inner = made.exchange.reply, made.reply
    assert (reply.peer, reply.ends, reply.client_certificate) == (inner.peer, inner.ends, inner.client_certificate)
    assert (reply.carries_grpc, reply.started, reply.sent) == (True, False, inner.sent)


# -- answers --------------------------------------------------------------------------------------------------


def test_trailers_are_the_last_frame() -> None:
    made = web(b"application/grpc-web+proto")
    made.answer(GRPC, MESSAGE, OK)
    assert made.reply.head.fields == ((b"x-a", b"b"), (b"content-type", b"application/grpc-web+proto"))
    assert (made.reply.body, made.reply.trailers) == (MESSAGE + FRAME, ())
    assert trailers_frame(OK) == FRAME


@pytest.mark.parametrize(
    ("kind", "accept", "text"),
    [
        (b"-text", b"*/*", True),
        (b"-text", b"application/grpc-web-text", True),
        (b"-text", b"application/grpc-web+proto", False),
        (b"", b"application/grpc-web-text", True),
        (b"", b"application/json", False),
    ],
)
def test_the_form_is_what_is_accepted(kind: bytes, accept: bytes, text: bool) -> None:
    made = web(b"application/grpc-web" + kind, (b"accept", accept))
    sink = made.exchange.respond(GRPC, False)
    sink.data(MESSAGE, 8, False)
    sink.end(OK)
    expected = b64encode(MESSAGE) + b64encode(FRAME) if text else MESSAGE + FRAME
    assert made.reply.body == expected
    assert made.reply.head.get(b"content-type") == b"application/grpc-web" + b"-text" * text + b"+proto"


def test_a_trailers_only_answer_stays_one() -> None:
    made = web(b"application/grpc-web")
    made.exchange.respond(ResponseHead(200, ((b"content-type", b"application/grpc"), *OK)), True)
    assert made.reply.head.fields == (*OK, (b"content-type", b"application/grpc-web"))
    assert (made.reply.body, made.reply.trailers) == (b"", ())


def test_what_is_not_grpc_passes_as_it_is() -> None:
    made = web(b"application/grpc-web-text")
    made.answer(ResponseHead(503, ((b"content-type", b"text/html"),)), b"<p>", ((b"x-t", b"1"),))
    assert (made.reply.head.status, made.reply.body, made.reply.trailers) == (503, b"<p>", ((b"x-t", b"1"),))


def test_a_stream_without_trailers_and_one_that_breaks_off() -> None:
    made = web(b"application/grpc-web")
    made.answer(GRPC, MESSAGE)
    assert (made.reply.body, made.reply.trailers) == (MESSAGE, ())
    broken = Failure(Kind.RESET, "gone", Blame.CLIENT)
    made = web(b"application/grpc-web")
    made.exchange.respond(GRPC, False).abort(broken)
    assert made.reply.aborted is broken


@pytest.mark.parametrize("render", [render_http, render_h2])
@pytest.mark.parametrize("text", [False, True])
def test_errors_of_ours(render: Any, text: bool) -> None:
    failure = Failure(Kind.UNBOUND, "no way")
    made = web(b"application/grpc-web" + b"-text" * text)
    render(made.exchange, failure)
    assert made.reply.head.status == 200
    assert dict(made.reply.head.fields)[b"grpc-status"] == b"14"
    assert dict(made.reply.head.fields)[b"content-type"] == b"application/grpc-web" + b"-text" * text
    made = web(b"application/grpc-web" + b"-text" * text)
    made.exchange.respond(GRPC, False).data(MESSAGE, 8, False)
    render(made.exchange, failure)
    frame = trailers_frame(((b"grpc-status", b"14"), (b"grpc-message", b"no way")))
    assert made.reply.body == (b64encode(MESSAGE) + b64encode(frame) if text else MESSAGE + frame)
    assert made.reply.trailers == ()


# -- browsers ---------------------------------------------------------------------------------------------------

ASKS = ((b"access-control-request-method", b"POST"), (b"access-control-request-headers", b"content-type,X-Grpc-Web"))


def preflight(origin: bytes, *fields: tuple[bytes, bytes], **config: Any) -> Web:
    return Web((b"origin", origin), *(fields or ASKS), method=b"OPTIONS", **config)


def test_a_preflight_is_told_what_is_allowed() -> None:
    made = preflight(
        ORIGIN, allow_origins=(ORIGIN.decode(),), allow_headers=("X-Token",), allow_credentials=True, max_age_secs=60
    )
    assert made.reply.head.status == 204
    assert made.reply.head.fields == (
        (b"access-control-allow-origin", ORIGIN),
        (b"vary", b"origin"),
        (b"access-control-allow-methods", b"POST"),
        (b"access-control-allow-headers", b"content-type, grpc-timeout, x-grpc-web, x-token, x-user-agent"),
        (b"access-control-max-age", b"60"),
        (b"access-control-allow-credentials", b"true"),
    )
    assert not made.began
    assert made.metrics.flat()["grpc_web/preflights"] == 1


def test_strangers_are_refused_and_any_origin_can_be_allowed() -> None:
    made = preflight(b"https://evil.example.com", allow_origins=(ORIGIN.decode(),))
    assert (made.reply.head.status, made.reply.head.fields) == (403, ((b"vary", b"origin"),))
    made = preflight(b"https://evil.example.com", allow_origins=("*",))
    assert made.reply.head.get(b"access-control-allow-origin") == b"*"


@pytest.mark.parametrize(
    "fields",
    [
        (ASKS[0],),
        ((b"access-control-request-method", b"PUT"), ASKS[1]),
        (ASKS[0], (b"access-control-request-headers", b"content-type")),
    ],
)
def test_preflights_of_other_things_go_on(fields: Any) -> None:
    assert preflight(ORIGIN, *fields, allow_origins=("*",)).began


def test_without_origins_nothing_is_said() -> None:
    assert preflight(ORIGIN).began
    made = web(b"application/grpc-web", (b"origin", ORIGIN))
    made.answer(GRPC, MESSAGE, OK)
    assert not any(name.startswith(b"access-control") for name, _ in made.reply.head.fields)


def test_answers_tell_whom_they_are_for() -> None:
    for head in (GRPC, ResponseHead(502, ((b"content-type", b"text/html"),))):
        made = web(b"application/grpc-web", (b"origin", ORIGIN), allow_origins=(ORIGIN.decode(),), expose_headers=("X-A",))
        made.answer(head, MESSAGE, OK)
        assert made.reply.head.fields[-3:] == (
            (b"access-control-allow-origin", ORIGIN),
            (b"vary", b"origin"),
            (b"access-control-expose-headers", b"grpc-message, grpc-status, grpc-status-details-bin, x-a"),
        )
    made = web(b"application/grpc-web", (b"origin", b"https://evil.example.com"), allow_origins=(ORIGIN.decode(),))
    made.answer(GRPC, MESSAGE, OK)
    assert made.reply.head.fields[-1] == (b"vary", b"origin")


@pytest.mark.parametrize(
    "config",
    [
        {"allow_origins": ("*",), "allow_credentials": True},
        {"allow_origins": ("app.example.com",)},
        {"allow_origins": ("https://app.example.com/",)},
        {"allow_headers": ("x y",)},
        {"max_age_secs": -1},
    ],
)
def test_what_cannot_be_meant_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        GrpcWeb(**config)
