"""What identifiers share: where a value is in a head, and names made once per distinct value."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

import attrs

from router.model.headers import RequestHead

LIMIT = 4096
LONGEST = 256

K = TypeVar("K")
V = TypeVar("V")


class Names(dict[K, V]):
    """The values of a pure function by argument; the function runs only for an argument that is not there.

    Bounds: ``LIMIT`` entries, then all are dropped (an eviction order would cost every hit, and a client that sends
    only new names gains nothing from one); arguments longer than ``LONGEST`` bytes are never kept.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> V:
        value = self._make(key)
        if _length(key) <= LONGEST:
            if len(self) >= LIMIT:
                self.clear()
            self[key] = value
        return value


def _length(key: object) -> int:
    if isinstance(key, bytes):
        return len(key)
    return sum(len(part) for part in key) if isinstance(key, tuple) else 0


_PARTS = {
    b"host": "authority",
    b":authority": "authority",
    b":path": "path",
    b":method": "method",
    b":scheme": "scheme",
}


def field(header: str) -> Callable[[RequestHead], bytes | None]:
    """A function that reads ``header`` from a head: a pseudo-header, ``Host`` (which is the authority), or a field."""
    name = header.lower().encode("latin-1")
    part = _PARTS.get(name)
    if part is not None:
        return attrgetter(part)
    return lambda head: head.get(name)


def header_name(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
    """Validator: ``value`` can be the name of a header, or is a pseudo-header that requests have."""
    name = value.lower().encode("latin-1", "replace")
    if name in _PARTS or (name and all(byte in _TOKEN for byte in name)):
        return
    raise ValueError(f"{attribute.name} must be the name of a header such as Host, l5d-name or :path, not {value!r}")


_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")  # RFC 9110 §5.6.2, lower case


def at_least_one(_: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
    """Validator: a number of segments."""
    if value is not None and value < 1:
        raise ValueError(f"{attribute.name} must be 1 or more, not {value}")


def segments_end(target: bytes, count: int) -> int:
    """Where the first ``count`` segments of a URL path end; -1 if there are fewer, or one of them is empty.

    A query (``?``) ends the path.
    """
    if not target.startswith(b"/"):
        return -1
    stop = target.find(b"?")
    if stop < 0:
        stop = len(target)
    at = 0
    for _ in range(count):
        if at >= stop:
            return -1
        end = target.find(b"/", at + 1, stop)
        if end < 0:
            end = stop
        if end == at + 1:
            return -1
        at = end
    return at
