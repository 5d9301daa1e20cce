"""What an HTTP/1.1 head must look like, stricter than the RFC where leniency smuggles requests.

Refused: bare LF, folded lines, white space before the colon, control bytes, two spaces in the request line, a missing or
second Host, user information in an authority, Transfer-Encoding with Content-Length or in HTTP/1.0, every coding but
``chunked`` alone (501: Transfer-Encoding ends at each hop, so that we cannot pass on what we cannot undo), lengths that
differ, if only in leading zeros, a Connection that names Content-Length. Accepted: any method that is a token; HTTP/1.2 and
above, as 1.1; equal lengths, repeated or listed. Every expression here takes linear time.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from router.model.headers import (
    CONNECT,
    Field,
    Fields,
    RequestHead,
    ResponseHead,
    is_destination,
    plain_trailers,
)

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_request_line = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])").fullmatch
_status_line = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
_token = re.compile(_TOKEN).fullmatch
_field = re.compile(_TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch
_IN_FIELDS = bytes([byte for byte in range(256) if (byte >= 32 and byte != 127) or byte == 9])
_length = re.compile(rb"[0-9]{1,18}").fullmatch
_authority = re.compile(rb"(?:\[[0-9A-Za-z:.%\-_~]+\]|[A-Za-z0-9\-._~%!$&'()*+,;=]*)(?::[0-9]*)?").fullmatch
_beginning = re.compile(_TOKEN + rb"(?: |\Z)|\r(?:\n|\Z)").match
_start = re.compile(rb"(" + _TOKEN + rb") [\x21-\x7e]+").fullmatch
MAX_FIELDS = 100
# Names that need no check, being frequent, and those that decide about framing and destination.
_COMMON = frozenset(
    b"accept accept-encoding accept-language authorization cache-control connection content-length content-type cookie date "
    b"etag expires forwarded host l5d-ctx-deadline l5d-ctx-trace l5d-dtab last-modified location origin pragma referer server "
    b"set-cookie traceparent tracestate transfer-encoding user-agent vary via x-forwarded-for x-request-id".split()
)
_DECISIVE = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"))


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
    upgrades: bool = False  # there is an Upgrade field, which may be ignored


class Known(dict[bytes, Field]):
    """Fields of earlier heads of the same connection by their lines: most lines of a head were in the one before.

    At most ``LINES`` short ones; a connection's own, so that nobody can measure what others send.
    """

    LINES = 32
    SHORT = 128

    def __missing__(self, line: bytes) -> Field:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or (name not in _COMMON and not _token(name)) or value.translate(None, _IN_FIELDS):
            raise KeyError(line)
        field = (name, value.strip())
        if len(line) <= self.SHORT:
            if len(self) >= self.LINES:
                self.clear()
            self[line] = field
        return field


def parse_fields(lines: list[bytes], fault: int, known: Known, most: int = MAX_FIELDS) -> list[Field]:
    """Header lines to fields, names in lower case."""
    if len(lines) > most:
        raise ProtocolFault(431 if fault == 400 else fault, f"more than {most} header fields")
    try:
        return [known[line] for line in lines]
    except KeyError:
        _refuse(lines, fault)


def _quoted(data: bytes) -> str:
    """A piece of what the peer sent, for people: printable, in quotes."""
    return ascii(data.decode("latin-1"))


def _refuse(lines: list[bytes], fault: int) -> NoReturn:
    """Tell which line is malformed."""
    line = next(line for line in lines if not _field(line))
    raise ProtocolFault(fault, f"malformed header line {_quoted(line[:64])}")


def parse_request(data: bytes, known: Known, scheme: bytes = b"http", *, most: int = MAX_FIELDS) -> tuple[RequestHead, Framing]:
    """The head of a request, without the empty line that ends it; ``scheme`` is the connection's. At most ``most`` fields.

    Raises :class:`ProtocolFault`.
    """
    lines = data.split(b"\r\n")
    match = _request_line(lines[0])
    if match is None:
        raise ProtocolFault(400, f"malformed request line {_quoted(lines[0][:64])}")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise ProtocolFault(505, "this port speaks HTTP/1.1")
    version = (1, min(int(minor), 1))
    fields = parse_fields(lines[1:], 400, known, most)
    decisive = [field for field in fields if field[0] in _DECISIVE]
    framing, length = _framing(decisive, version, 400)
    authority, path = _target(method, target, [value for name, value in decisive if name == b"host"], version)
    rest = [field for field in fields if field[0] not in (b"host", b"expect")]
    if length is not None:
        rest = _one_length(rest, length)
    if method == b"CONNECT":
        if framing.chunked or framing.length:
            raise ProtocolFault(400, "CONNECT with a body")
        return RequestHead(method, b"", authority, path, tuple(rest), version=version, tunnel=CONNECT), framing
    head = RequestHead(method, scheme, authority, path, tuple(rest), length=length, version=version)
    return head, framing


def _target(method: bytes, target: bytes, hosts: list[bytes], version: tuple[int, int]) -> tuple[bytes, bytes]:
    """Authority and path (RFC 9112 §3.2)."""
    if len(hosts) > 1 or (not hosts and version == (1, 1)):
        raise ProtocolFault(400, "two Host fields" if hosts else "no Host field")
    authority = hosts[0] if hosts else b""
    if method == b"CONNECT":
        if not is_destination(target):
            raise ProtocolFault(400, f"CONNECT without a host and a port {_quoted(target[:64])}")
        return target, b""
    if target[:1] == b"/":
        path = target
    elif target[:7].lower() == b"http://" or target[:8].lower() == b"https://":
        rest = target.partition(b"://")[2]
        at = min([found for found in (rest.find(b"/"), rest.find(b"?")) if found >= 0], default=len(rest))
        authority, path = rest[:at], rest[at:]
        if not authority:
            raise ProtocolFault(400, f"request target without a host {_quoted(target[:64])}")
        if not path and method == b"OPTIONS":
            path = b"*"  # RFC 9112 §3.2.4
        elif path[:1] != b"/":
            path = b"/" + path
    elif target == b"*" and method == b"OPTIONS":
        path = target
    else:
        raise ProtocolFault(400, f"malformed request target {_quoted(target[:64])}")
    if not _authority(authority):
        raise ProtocolFault(400, f"malformed authority {_quoted(authority[:64])}")
    return authority, path


def _one_length(fields: list[Field], length: int) -> list[Field]:
    """With one Content-Length, written plainly, in place of those that were found to mean ``length``."""
    plain = (b"content-length", b"%d" % length)
    if [field for field in fields if field[0] == b"content-length"] == [plain]:
        return fields
    kept: list[Field] = []
    seen = False
    for field in fields:
        if field[0] != b"content-length":
            kept.append(field)
        elif not seen:
            kept.append(plain)
            seen = True
    return kept


def _framing(fields: list[Field], version: tuple[int, int], fault: int) -> tuple[Framing, int | None]:
    """How the body ends, and the declared length, by the fields (RFC 9112 §6)."""
    lengths, codings, options, expects, upgrades = [], [], [], False, False
    for name, value in fields:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"connection":
            options.append(value.lower())
        elif name == b"expect" and fault == 400 and version == (1, 1):
            if value.lower() != b"100-continue":
                raise ProtocolFault(417, "an expectation other than 100-continue")
            expects = True
        elif name == b"upgrade":
            upgrades = version == (1, 1)
    named = _listed(options) if options else []
    if b"content-length" in named:  # would be dropped on the way, and its message be read with another length
        raise ProtocolFault(fault, "Connection names Content-Length")
    keep_alive = b"close" not in named if version == (1, 1) else b"keep-alive" in named and b"close" not in named
    if codings and (lengths or version == (1, 0)):
        raise ProtocolFault(fault, "Transfer-Encoding with Content-Length or in HTTP/1.0")
    if codings:
        _check_codings(_listed(codings), fault)
        return Framing(0, True, False, keep_alive, expects), None
    length = _declared(_listed(lengths), fault) if lengths else None
    return Framing(length or 0, False, False, keep_alive, expects, upgrades), length


def _listed(values: list[bytes]) -> list[bytes]:
    """The elements of a field that is a list, empty ones included."""
    return [element.strip(b" \t") for element in b",".join(values).split(b",")]


def _check_codings(names: list[bytes], fault: int) -> None:
    names = [name.lower() for name in names]
    if names[-1] != b"chunked" or names.count(b"chunked") > 1:
        raise ProtocolFault(fault, "a transfer coding that does not end in chunked")
    if len(names) > 1:
        raise ProtocolFault(501 if fault == 400 else fault, "a transfer coding other than chunked")


def _declared(values: list[bytes], fault: int) -> int:
    """The length that all of ``values`` say, in the same way (RFC 9110 §8.6)."""
    if not _length(values[0]) or len(set(values)) > 1:  # 5 and 05 too: readers differ about them
        raise ProtocolFault(fault, "Content-Length is no number or contradicts itself")
    return int(values[0])


def parse_response(data: bytes, method: bytes, known: Known) -> tuple[ResponseHead, Framing]:
    """The head of a response to ``method``. Raises :class:`ProtocolFault`."""
    lines = data.split(b"\r\n")
    match = _status_line(lines[0])
    if match is None or match[1] != b"1":
        raise ProtocolFault(502, f"malformed status line {_quoted(lines[0][:64])}")
    status, version = int(match[3]), (1, min(int(match[2]), 1))
    fields = parse_fields(lines[1:], 502, known)
    framing, length = _framing([field for field in fields if field[0] in _DECISIVE], version, 502)
    if status < 200 or status == 204:
        length = None  # these never have a length (RFC 9110 §8.6)
        fields = [field for field in fields if field[0] != b"content-length"]
    elif length is not None:
        fields = _one_length(fields, length)
    head = ResponseHead(status, tuple(fields), length=length)
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return head, Framing(0, False, False, framing.keep_alive)
    if not framing.chunked and length is None:
        return head, Framing(0, False, True, False)
    return head, framing


def parse_trailers(lines: list[bytes], fault: int) -> Fields:
    """A trailer section; fields that have no business there are dropped."""
    return plain_trailers(parse_fields(lines, fault, Known()))


def is_request(data: bytes) -> bool | None:
    """Whether a connection that begins like this speaks HTTP/1; None while that cannot be told. An empty line is forgiven.

    ``PRI`` is no method, so that HTTP/2 can be told apart (RFC 9113 §3.4). A first line that has come whole must name HTTP.
    """
    if b"PRI * HTTP/2.0\r\n".startswith(data[:16]):
        return False if len(data) >= 16 else None
    line, end, _ = data.removeprefix(b"\r\n").partition(b"\r\n")
    return bool(_beginning(data)) and (not end or b" HTTP/" in line)


def is_request_start(start: bytes) -> bool:
    """Whether ``start`` is a method, a space and a target that cannot be read as anything else."""
    return _start(start) is not None
