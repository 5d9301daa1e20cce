"""Heads from header blocks: a malformed message ends its stream only (RFC 9113 §8.1.1, §8.2, §8.3).

The codec has checked names and values once per distinct literal (``Block.malformed``); here is what concerns the block
as a whole. The result is kept on the block, which the codec shares among repetitions: a repeated block costs nothing.
"""

from __future__ import annotations

import re

from protocols.http2.codec import Block
from router.model.headers import CONNECT, WEBSOCKET, Field, Fields, RequestHead, ResponseHead, is_destination, plain_trailers

# Connection-specific fields, meaningless and therefore forbidden here (§8.2.2).
_CONNECTION_FIELDS = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_CHECKED = _CONNECTION_FIELDS | {b"te", b"content-length", b"host"}
# As in HTTP/1.1, user information in an authority is refused (§8.3.1): nobody would agree on what it names.
_authority = re.compile(rb"(?:\[[0-9A-Za-z:.%\-_~]+\]|[A-Za-z0-9\-._~%!$&'()*+,;=]*)(?::[0-9]*)?").fullmatch
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
# Of no meaning in a tunnel (§8.5), or of none in HTTP/2 (RFC 8441 §5).
_NOT_OF_TUNNELS = frozenset((b"content-length", b"sec-websocket-key"))
MAX_LENGTH_DIGITS = 18


class Malformed(Exception):  # noqa: N818
    """A message that must end its stream with PROTOCOL_ERROR; the text says why."""


def request_head(block: Block) -> RequestHead:
    """The request of a block. Raises :class:`Malformed`."""
    derived = block.derived
    if derived is None:
        try:
            derived = _request_head(block)
        except Malformed as error:
            derived = error
        block.derived = derived
    if type(derived) is RequestHead:
        return derived
    raise derived if isinstance(derived, Malformed) else Malformed("a response's header block as a request")


def _split(block: Block, allowed: frozenset[bytes]) -> tuple[dict[bytes, bytes], list[Field]]:
    """Pseudo-header fields and the rest. Pseudo-headers come first, once each (§8.3)."""
    if block.malformed is not None:
        raise Malformed(block.malformed)
    pseudo: dict[bytes, bytes] = {}
    count = 0
    fields = block.fields
    for name, value in fields:
        if name[:1] != b":":
            break
        if name not in allowed or name in pseudo:
            raise Malformed(f"pseudo-header field {name.decode('ascii', 'replace')} is unknown or repeated")
        pseudo[name] = value
        count += 1
    rest = list(fields[count:])
    for name, _ in rest:
        if name[0] == 58:  # a colon
            raise Malformed("pseudo-header field after a regular one")
    return pseudo, rest


def _request_head(block: Block) -> RequestHead:
    pseudo, rest = _split(block, _REQUEST_PSEUDO)
    method = pseudo.get(b":method", b"")
    path = pseudo.get(b":path", b"")
    authority = pseudo.get(b":authority", b"")
    if not method:
        raise Malformed("no :method")
    protocol = pseudo.get(b":protocol")
    if protocol is not None and method != b"CONNECT":
        raise Malformed(":protocol without CONNECT")
    if method == b"CONNECT" and protocol is None:
        if path or b":scheme" in pseudo or not is_destination(authority):
            raise Malformed("CONNECT needs :authority, a host and a port, and nothing else")
    elif not path or not pseudo.get(b":scheme"):
        raise Malformed("no :path or no :scheme")
    elif path[0] != 47 and not (path == b"*" and method == b"OPTIONS"):
        raise Malformed(":path does not begin with a slash")
    if not _authority(authority):
        raise Malformed("malformed :authority")
    length, host = _check(rest)
    if host is not None:
        if authority and authority != host:
            raise Malformed("host differs from :authority")
        authority = host
        rest = [field for field in rest if field[0] != b"host"]
    head = RequestHead(method, pseudo.get(b":scheme", b""), authority, path, tuple(rest), length=length)
    if method == b"CONNECT":
        head = _tunnel(head, protocol)
    head.shared = block.shared
    return head


def _tunnel(head: RequestHead, protocol: bytes | None) -> RequestHead:
    """A CONNECT as the router knows it, plain or extended (RFC 8441 §4): a request for a WebSocket is a GET."""
    fields = tuple([field for field in head.fields if field[0] not in _NOT_OF_TUNNELS])
    kind = CONNECT if protocol is None else protocol.lower()
    method = b"GET" if kind == WEBSOCKET else head.method
    return head.replace(method=method, fields=fields, length=None, tunnel=kind)


def _check(fields: list[Field]) -> tuple[int | None, bytes | None]:
    """Refuse connection-specific fields; return declared length and host."""
    length: int | None = None
    host: bytes | None = None
    for name, value in fields:
        if name not in _CHECKED:
            continue
        if name in _CONNECTION_FIELDS:
            raise Malformed(f"connection-specific field {name.decode()}")
        if name == b"te":
            if value != b"trailers":
                raise Malformed("te other than trailers")
        elif name == b"host":
            if host is not None and host != value:
                raise Malformed("two hosts")
            host = value
        else:
            length = _length(value, length)
    return length, host


def _length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS or (before is not None and before != int(value)):
        raise Malformed("content-length is no number or contradicts itself")
    return int(value)


def response_head(block: Block) -> ResponseHead:
    """The response of a block, final or informational. Raises :class:`Malformed`."""
    derived = block.derived
    if type(derived) is ResponseHead:
        return derived
    pseudo, rest = _split(block, frozenset((b":status",)))
    status = pseudo.get(b":status", b"")
    if len(status) != 3 or not status.isdigit() or status[0] == 48:
        raise Malformed("no :status of three digits")
    length, _ = _check(rest)
    head = ResponseHead(int(status), tuple(rest), length=length)
    head.shared = block.shared
    block.derived = head
    return head


def trailer_fields(block: Block) -> Fields:
    """The fields of a trailer section, in which there are no pseudo-headers, as far as they may be there.

    Raises :class:`Malformed`.
    """
    derived = block.derived
    if type(derived) is tuple:
        return derived
    if block.malformed is not None:
        raise Malformed(block.malformed)
    for name, _ in block.fields:
        if name[0] == 58 or name in _CONNECTION_FIELDS:
            raise Malformed("a field that trailers cannot have")
    if block.derived is None:
        block.derived = plain_trailers(block.fields)
        return block.derived
    return plain_trailers(block.fields)
