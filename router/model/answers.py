"""Answers of our own, as messages: the one table of :mod:`router.model.failure` put into heads, bodies and trailers.

Three renderings, one per kind of client: HTTP/1.1 (:func:`render_http`), HTTP/2 and, on HTTP/2, gRPC (both
:func:`render_h2`, by the request's content type). Before the head was sent the answer is a whole response; after it the
stream ends visibly broken, or, for gRPC, with trailers that tell.
"""

from __future__ import annotations

from math import ceil
from urllib.parse import quote_plus

from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, ResponseHead

MAX_ERR_HEADER = 8192
MAX_ERR_BODY = 5120 * 1024
_GRPC_SAFE = frozenset(range(0x20, 0x7F)) - {0x25}


def render_http(exchange: Exchange, failure: Failure) -> None:
    """Answer an HTTP/1.1 client, in gRPC's way if it speaks gRPC-Web."""
    if _nobody_listens(exchange, failure):
        return
    if exchange.request.grpc and exchange.reply.carries_grpc:
        _grpc(exchange, failure)
    elif exchange.reply.started:
        exchange.reply.abort(failure)
    elif exchange.request.grpc:
        _text(exchange, failure, 415 if failure.kind is Kind.UNSUPPORTED else failure.answer.http)
    else:
        _text(exchange, failure, failure.answer.http)


def render_h2(exchange: Exchange, failure: Failure) -> None:
    """Answer an HTTP/2 client, in gRPC's way if its request was gRPC."""
    if _nobody_listens(exchange, failure):
        return
    if exchange.request.grpc:
        _grpc(exchange, failure)
    elif exchange.reply.started or failure.answer.reset:
        exchange.reply.abort(failure)
    else:
        _text(exchange, failure, failure.answer.http)


def _nobody_listens(exchange: Exchange, failure: Failure) -> bool:
    """The client reset its stream: end ours without words."""
    if failure.kind is Kind.RESET and failure.blame is Blame.CLIENT:
        exchange.reply.abort(failure)
        return True
    return False


def _text(exchange: Exchange, failure: Failure, status: int) -> None:
    body = failure.why.encode("utf-8", "replace")[:MAX_ERR_BODY]
    fields: list[tuple[bytes, bytes]] = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"l5d-err", err_header(failure.why)),
    ]
    if failure.retryable and status in (502, 503):
        fields.append((b"l5d-retryable", b"true"))
    if failure.rejected:
        fields += nack(failure)
    head = ResponseHead(status, tuple(fields), length=len(body))
    exchange.response = head
    bare = exchange.request.method == b"HEAD" or not body
    sink = exchange.reply.start(head, bare)
    if not bare:
        sink.data(body, 0, True)


def _grpc(exchange: Exchange, failure: Failure) -> None:
    trailers = grpc_trailers(failure)
    if exchange.reply.discreet:
        trailers = tuple([field for field in trailers if field[0] != b"grpc-message"])
    if exchange.reply.started:
        exchange.trailers = trailers
        exchange.reply.end(trailers)
        return
    head = ResponseHead(200, ((b"content-type", b"application/grpc"), *trailers))
    exchange.response = head
    exchange.reply.start(head, True)


def nack(failure: Failure) -> Fields:
    """How a refusal says when to come again: in whole seconds (RFC 9110 §10.2.3), 0 for less than half of one. Finagle's
    clients take the other field to mean that the request was not processed, and send it again."""
    after: Fields = ((b"retry-after", b"%d" % round(failure.retry_after or 0.0)),)
    return (*after, (b"finagle-http-nack", b"true")) if failure.retryable else after


def grpc_trailers(failure: Failure) -> Fields:
    """``grpc-status`` and ``grpc-message`` of a failure; of a refusal also ``grpc-retry-pushback-ms`` (gRFC A6)."""
    trailers = ((b"grpc-status", b"%d" % failure.answer.grpc), (b"grpc-message", grpc_message(failure.why)))
    if failure.retry_after is None:
        return trailers
    return (*trailers, (b"grpc-retry-pushback-ms", b"%d" % ceil(failure.retry_after * 1000)))


def grpc_message(text: str) -> bytes:
    """Percent-encode as gRPC does: UTF-8, everything outside of 0x20-0x7E and ``%`` as ``%XX``; cut to 8 KiB."""
    data = text.encode("utf-8", "replace")
    coded = b"".join(b"%c" % byte if byte in _GRPC_SAFE else b"%%%02X" % byte for byte in data[: MAX_ERR_HEADER // 3])
    return coded.strip(b" ")


def err_header(text: str) -> bytes:
    """Linkerd's ``l5d-err``: form-URL-encoded Latin-1, cut to 8 KiB."""
    return quote_plus(text, encoding="latin-1", errors="replace").encode()[:MAX_ERR_HEADER]
