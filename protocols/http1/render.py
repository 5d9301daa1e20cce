"""Heads and chunks as bytes. A value that would split a message is refused, whoever made it."""

from __future__ import annotations

from http import HTTPStatus

from protocols.http1.rules import is_request_start
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead, plain_trailers

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _join(start: bytes, fields: Fields, extra: bytes) -> bytes:
    head = b"\r\n".join([start, *map(b": ".join, fields)])
    if head.count(b"\r") != len(fields) or head.count(b"\n") != len(fields) or b"\0" in head:
        raise Failure(Kind.PROTOCOL, "a header value with a line break cannot be sent over HTTP/1.1")
    return head + b"\r\n" + extra + b"\r\n"


def request_head(head: RequestHead, extra: bytes) -> bytes:
    """A request's head; ``extra`` are complete lines that frame the body. Cookies, split in HTTP/2, are joined.

    Raises :class:`Failure` for what HTTP/2 can carry and a request line cannot: white space, CONNECT without a path.
    """
    rendered = head.rendered
    if rendered is not None and rendered[0] == extra:
        known: bytes = rendered[1]
        return known
    start = b"%b %b" % (head.method, head.path)
    if not is_request_start(start):
        raise Failure(Kind.MALFORMED, "a method or path that cannot be sent over HTTP/1.1", Blame.CLIENT)
    fields = ((b"host", head.authority), *_one_cookie(head.fields))
    data = _join(start + b" HTTP/1.1", fields, extra)
    if head.shared:
        head.rendered = (extra, data)
    return data


def _one_cookie(fields: Fields) -> Fields:
    cookies = [value for name, value in fields if name == b"cookie"]
    if len(cookies) < 2:
        return fields
    kept = [field for field in fields if field[0] != b"cookie"]
    return (*kept, (b"cookie", b"; ".join(cookies)))


def response_head(head: ResponseHead, extra: bytes) -> bytes:
    """A response's head; ``extra`` as for requests."""
    rendered = head.rendered
    if rendered is not None and rendered[0] == extra:
        known: bytes = rendered[1]
        return known
    reason = _REASONS.get(head.status, b"")
    data = _join(b"HTTP/1.1 %d %b" % (head.status, reason), head.fields, extra)
    if head.shared:
        head.rendered = (extra, data)
    return data


def chunk_start(size: int) -> bytes:
    """The line in front of a chunk's data."""
    return b"%x\r\n" % size


def last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body, with those trailers that may be there."""
    trailers = plain_trailers(trailers)
    if not trailers:
        return LAST_CHUNK
    return _join(b"0", trailers, b"")
