"""Heads and chunks as bytes. A value that would split a message is refused, whoever made it."""

from __future__ import annotations

from http import HTTPStatus

from router.model.failure import Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _join(start: bytes, fields: Fields, extra: bytes) -> bytes:
    lines = [start]
    lines += [b"%b: %b" % field for field in fields]
    head = b"\r\n".join(lines)
    if head.count(b"\r") != len(fields) or head.count(b"\n") != len(fields) or b"\0" in head:
        raise Failure(Kind.PROTOCOL, "a header value with a line break cannot be sent over HTTP/1.1")
    return head + b"\r\n" + extra + b"\r\n"


def request_head(head: RequestHead, extra: bytes) -> bytes:
    """A request's head; ``extra`` are complete lines that frame the body. Cookies, split in HTTP/2, are joined."""
    rendered = head.rendered
    if rendered is not None and rendered[0] == extra:
        known: bytes = rendered[1]
        return known
    fields = ((b"host", head.authority), *_one_cookie(head.fields))
    data = _join(b"%b %b HTTP/1.1" % (head.method, head.path), fields, extra)
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
    """The end of a chunked body, with trailers."""
    if not trailers:
        return LAST_CHUNK
    return _join(b"0", trailers, b"")
