"""What an HTTP/1.1 head must look like, stricter than the RFC where leniency smuggles requests.

Refused: bare LF, folded lines, white space before the colon, control bytes, two spaces in the request line, a missing or
second Host, Transfer-Encoding with Content-Length or in HTTP/1.0, codings other than ``chunked`` last, contradicting
lengths. Accepted: any method that is a token; HTTP/1.2 and above, as 1.1.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from router.model.headers import Field, Fields, RequestHead, ResponseHead

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_request_line = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])").fullmatch
_status_line = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
_field = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*").fullmatch
_length = re.compile(rb"[0-9]{1,18}").fullmatch
_authority = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]@]*").fullmatch
MAX_FIELDS = 100
# Fields that a trailer section must not have (RFC 9110 §6.5.1): framing, routing, authentication, content.
NO_TRAILERS = frozenset(
    (
        b"transfer-encoding", b"content-length", b"host", b"trailer", b"te", b"connection", b"keep-alive", b"upgrade",
        b"proxy-connection", b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"content-encoding",
        b"content-type", b"content-range", b"cache-control", b"expect", b"max-forwards", b"range",
    )
)  # fmt: skip


class ProtocolFault(Exception):  # noqa: N818 - the field's word
    """A message that cannot be accepted. ``status`` is the answer to a request, 502 for a response."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Framing(NamedTuple):
    """How a message's body ends: ``length`` bytes, or chunked, or (both unset, ``until_eof``) with the connection."""

    length: int
    chunked: bool
    until_eof: bool
    keep_alive: bool
    expects: bool = False


def parse_fields(lines: list[bytes], fault: int) -> list[Field]:
    """Header lines to fields, names in lower case."""
    if len(lines) > MAX_FIELDS:
        raise ProtocolFault(431 if fault == 400 else fault, f"more than {MAX_FIELDS} header fields")
    fields: list[Field] = []
    for line in lines:
        match = _field(line)
        if match is None:
            raise ProtocolFault(fault, f"malformed header line {line[:64]!r}")
        fields.append((match[1].lower(), match[2]))
    return fields


def parse_request(data: bytes) -> tuple[RequestHead, Framing]:
    """The head of a request, without the empty line that ends it. Raises :class:`ProtocolFault`."""
    lines = data.split(b"\r\n")
    match = _request_line(lines[0])
    if match is None:
        raise ProtocolFault(400, f"malformed request line {lines[0][:64]!r}")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise ProtocolFault(505, "this port speaks HTTP/1.1")
    version = (1, min(int(minor), 1))
    fields = parse_fields(lines[1:], 400)
    framing = _framing(fields, version, 400)
    authority, path, rest = _target(method, target, fields, version)
    length = framing.length if not framing.chunked and any(name == b"content-length" for name, _ in rest) else None
    head = RequestHead(method, b"http", authority, path, tuple(rest), length=length, version=version)
    return head, framing


def _target(method: bytes, target: bytes, fields: list[Field], version: tuple[int, int]) -> tuple[bytes, bytes, list[Field]]:
    """Authority, path, and the fields without those that end here (RFC 9112 §3.2)."""
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == (1, 1)):
        raise ProtocolFault(400, "two Host fields" if hosts else "no Host field")
    authority = hosts[0] if hosts else b""
    if target[:1] == b"/":
        path = target
    elif target[:7].lower() == b"http://" or target[:8].lower() == b"https://":
        rest = target.partition(b"://")[2]
        at = min([found for found in (rest.find(b"/"), rest.find(b"?")) if found >= 0], default=len(rest))
        authority, path = rest[:at], rest[at:]
        path = path if path.startswith(b"/") else b"/" + path
    elif target == b"*" and method == b"OPTIONS":
        path = target
    elif method == b"CONNECT":
        raise ProtocolFault(501, "CONNECT is not supported")
    else:
        raise ProtocolFault(400, f"malformed request target {target[:64]!r}")
    if not _authority(authority):
        raise ProtocolFault(400, f"malformed authority {authority[:64]!r}")
    return authority, path, _merged(fields, (b"host", b"expect"))


def _merged(fields: list[Field], dropped: tuple[bytes, ...]) -> list[Field]:
    """Without ``dropped`` fields and repetitions of Content-Length, which are known to be equal."""
    kept: list[Field] = []
    lengths = 0
    for field in fields:
        if field[0] in dropped:
            continue
        if field[0] == b"content-length":
            lengths += 1
            if lengths > 1:
                continue
        kept.append(field)
    return kept


def _framing(fields: list[Field], version: tuple[int, int], fault: int) -> Framing:
    """How the body ends, by the fields (RFC 9112 §6)."""
    lengths, codings, options, expects = [], [], [], False
    for name, value in fields:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"connection":
            options.append(value.lower())
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise ProtocolFault(417 if fault == 400 else fault, "an expectation other than 100-continue")
            expects = True
    named = {option.strip() for option in b",".join(options).split(b",")} if options else set()
    keep_alive = b"close" not in named if version == (1, 1) else b"keep-alive" in named
    if codings:
        if lengths or version == (1, 0):
            raise ProtocolFault(fault, "Transfer-Encoding with Content-Length or in HTTP/1.0")
        listed = [coding.strip().lower() for coding in b",".join(codings).split(b",")]
        if listed[-1] != b"chunked" or listed.count(b"chunked") > 1:
            raise ProtocolFault(fault, "a transfer coding that does not end in chunked")
        return Framing(0, True, False, keep_alive, expects)
    if not lengths:
        return Framing(0, False, False, keep_alive, expects)
    if any(not _length(value) for value in lengths) or len({int(value) for value in lengths}) > 1:
        raise ProtocolFault(fault, "Content-Length is no number or contradicts itself")
    return Framing(int(lengths[0]), False, False, keep_alive, expects)


def parse_response(data: bytes, method: bytes) -> tuple[ResponseHead, Framing]:
    """The head of a response to ``method``. Raises :class:`ProtocolFault`."""
    lines = data.split(b"\r\n")
    match = _status_line(lines[0])
    if match is None or match[1] != b"1":
        raise ProtocolFault(502, f"malformed status line {lines[0][:64]!r}")
    status, version = int(match[3]), (1, min(int(match[2]), 1))
    fields = parse_fields(lines[1:], 502)
    framing = _framing(fields, version, 502)
    kept = tuple(_merged(fields, ()))
    has_length = any(name == b"content-length" for name, _ in kept)
    head = ResponseHead(status, kept, length=framing.length if has_length else None)
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return head, Framing(0, False, False, framing.keep_alive)
    if not framing.chunked and not has_length:
        return head, Framing(0, False, True, False)
    return head, framing


def parse_trailers(lines: list[bytes], fault: int) -> Fields:
    """A trailer section; fields that have no business there are dropped."""
    return tuple([field for field in parse_fields(lines, fault) if field[0] not in NO_TRAILERS])
