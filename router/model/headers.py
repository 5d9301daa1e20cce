"""Headers are byte pairs, lower-cased and validated once where they come in, and never changed.

A head is immutable and may be *shared*: a protocol's codec returns the same object for the same bytes, so that what
is derived from a head (its name, the header block that is sent on) is computed once per distinct head. Three
one-entry caches serve that: ``routed`` belongs to the identifier stage, ``forwarded`` to the stage that makes the
head to send on, ``rendered`` to the protocol that sends it. Whoever fills one stores a pair (owner, value) and must
check the owner, since another router may own the entry. ``shared`` tells that the same object is going to come again;
filling the caches of a head that is not shared would only cost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

Field: TypeAlias = tuple[bytes, bytes]
Fields: TypeAlias = tuple[Field, ...]

WEBSOCKET, CONNECT = b"websocket", b"connect"  # kinds of tunnels
TRACESTATE = b"tracestate"
# What trace contexts are written in; those of ours (l5d-ctx-trace, l5d-reqid, l5d-sample) not counted.
TRACE_FIELDS = frozenset(
    (
        b"traceparent", TRACESTATE, b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled",
        b"x-b3-flags",
    )
)  # fmt: skip
_destination = re.compile(rb"(?:\[[0-9A-Za-z:.%\-_~]+\]|[A-Za-z0-9\-._~%!$&'()*+,;=]+):([0-9]{1,5})").fullmatch


def is_destination(authority: bytes) -> bool:
    """Whether a CONNECT can ask for ``authority``: a host and a port, neither of which is empty (RFC 9110 §9.3.6)."""
    match = _destination(authority)
    return match is not None and 0 < int(match[1]) < 65536


class Head:
    """What requests and responses have in common: ordered fields without pseudo-headers."""

    __slots__ = ("_index", "fields", "forwarded", "rendered", "shared")

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self._index: dict[bytes, bytes] | None = None
        self.forwarded: tuple[Any, Any] | None = None
        self.rendered: tuple[Any, Any] | None = None
        self.shared = False

    def get(self, name: bytes) -> bytes | None:
        """The first value of ``name`` (lower case), or None."""
        index = self._index
        if index is None:
            index = self._index = dict(reversed(self.fields))
        return index.get(name)

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of ``name``, in order."""
        if self.get(name) is None:
            return []
        return [value for field, value in self.fields if field == name]

    def lacks(self, names: frozenset[bytes]) -> bool:
        """Whether it has none of ``names``."""
        index = self._index
        if index is None:
            index = self._index = dict(reversed(self.fields))
        return names.isdisjoint(index)

    def __contains__(self, name: bytes) -> bool:
        return self.get(name) is not None


class RequestHead(Head):
    """Method, scheme, authority, target path (with query) and fields of a request.

    ``authority`` is the Host of HTTP/1.1; there is no ``host`` field in ``fields``. ``length`` is the declared
    Content-Length or None; the field itself stays in ``fields``. ``grpc``: the content type is gRPC's.
    ``version``: (1, 0), (1, 1) or (2, 0), as received. ``tunnel``: the kind of tunnel that is asked for, ``b""`` for none. A
    request for a WebSocket is a GET whatever the protocol (RFC 8441 §5); a CONNECT has neither scheme nor path. ``stem``: the
    head that this one is, but for one more field at its end; what is derived from the stem need not be made anew.
    """

    __slots__ = ("authority", "grpc", "length", "method", "path", "routed", "scheme", "stem", "tunnel", "version")

    def __init__(
        self,
        method: bytes,
        scheme: bytes,
        authority: bytes,
        path: bytes,
        fields: Fields = (),
        *,
        length: int | None = None,
        version: tuple[int, int] = (2, 0),
        tunnel: bytes = b"",
    ) -> None:
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.path = path
        self.fields = fields
        self.length = length
        self.version = version
        self.tunnel = tunnel
        self._index = None
        self.forwarded = None
        self.rendered = None
        self.shared = False
        self.stem: RequestHead | None = None
        self.routed: tuple[Any, Any] | None = None
        self.grpc = is_grpc(self.get(b"content-type"))

    def replace(self, **changes: Any) -> RequestHead:
        """A new head with some attributes changed; nothing derived is kept."""
        values = {name: changes.get(name, getattr(self, name)) for name in _REQUEST_PARTS}
        return RequestHead(**values)

    def with_fields(self, fields: Fields) -> RequestHead:
        """The same head with other fields that leave its length and content type alone; as shared as this one."""
        head: RequestHead = RequestHead.__new__(RequestHead)
        head.method, head.scheme, head.authority, head.path = self.method, self.scheme, self.authority, self.path
        head.version, head.length, head.grpc, head.shared = self.version, self.length, self.grpc, self.shared
        head.tunnel = self.tunnel
        head.fields = fields
        head._index = head.forwarded = head.rendered = head.routed = head.stem = None
        return head

    def branch(self, field: Field) -> RequestHead:
        """This head with ``field`` at its end, which is another one before long."""
        head = self.with_fields((*self.fields, field))
        head.stem = self
        return head


_REQUEST_PARTS = ("method", "scheme", "authority", "path", "fields", "length", "version", "tunnel")


class ResponseHead(Head):
    """Status and fields of a final or informational response. ``length`` as in :class:`RequestHead`."""

    __slots__ = ("length", "status")

    def __init__(self, status: int, fields: Fields = (), *, length: int | None = None) -> None:
        self.status = status
        self.fields = fields
        self.length = length
        self._index = None
        self.forwarded = None
        self.rendered = None
        self.shared = False

    def with_fields(self, fields: Fields) -> ResponseHead:
        """The same head with other fields that leave its length alone; as shared as this one."""
        head = ResponseHead(self.status, fields, length=self.length)
        head.shared = self.shared
        return head

    def replace(self, **changes: Any) -> ResponseHead:
        """A new head with some attributes changed; nothing derived is kept."""
        values = {name: changes.get(name, getattr(self, name)) for name in ("status", "fields", "length")}
        return ResponseHead(**values)


def is_grpc(content_type: bytes | None) -> bool:
    """gRPC's content-type rule: ``application/grpc``, or that followed by ``+`` or ``;`` (so never grpc-web)."""
    if content_type is None or not content_type.startswith(b"application/grpc"):
        return False
    return len(content_type) == 16 or content_type[16] in b"+;"


# Fields that a trailer section must not have (RFC 9110 §6.5.1): framing, destination, authentication, content.
NO_TRAILERS = frozenset(
    (
        b"transfer-encoding", b"content-length", b"host", b"trailer", b"te", b"connection", b"keep-alive", b"upgrade",
        b"proxy-connection", b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"content-encoding",
        b"content-type", b"content-range", b"cache-control", b"expect", b"max-forwards", b"range", b"www-authenticate",
        b"proxy-authenticate",
    )
)  # fmt: skip
# The beginnings of names with which requests are routed: who looks at them sees heads only, who merges trailers must not.
_ROUTING = (b"l5d-ctx-", b"l5d-dtab", b"l5d-dst-", b"dtab-loc", b"x-dtab-")


def plain_trailers(fields: Iterable[Field]) -> Fields:
    """Those fields that may stand in a trailer section: what decides about framing, destination or rights is dropped."""
    return tuple([field for field in fields if field[0] not in NO_TRAILERS and not field[0].startswith(_ROUTING)])
