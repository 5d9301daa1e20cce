"""What both directions of the header codec share: the static table, integers, the rules for names and values.

Everything here is constant. Positions are RFC 7541's; ``STATIC[0]`` does not exist there and is never handed out.
"""

from __future__ import annotations

import re

from hpack.table import HeaderTable

from router.model.headers import Field, Fields

DEFAULT_TABLE = 4096  # bytes, SETTINGS_HEADER_TABLE_SIZE before any SETTINGS (RFC 9113 §6.5.2)
ENTRY_OVERHEAD = 32  # bytes that an entry counts beside name and value (RFC 7541 §4.1)
MAX_INTEGER = 1 << 31
STATIC: tuple[Field, ...] = ((b"", b""), *((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE))
STATIC_SIZE = len(STATIC) - 1
# Never indexed by us (§7.1.3). A short cookie can be guessed by probing the table, a long one cannot.
SECRET_NAMES = frozenset((b"authorization", b"proxy-authorization"))
COOKIE_NAMES = frozenset((b"cookie", b"set-cookie"))
SHORT_COOKIE = 20
# Whose values change from moment to moment: the name earns an index, the pairs would only fill the table.
FLEETING_NAMES = frozenset((b"grpc-timeout", b"l5d-ctx-deadline"))

good_name = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
good_value = re.compile(rb"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?").fullmatch


class HeaderCodecError(Exception):
    """A block that leaves the tables undefined: a connection error of type COMPRESSION_ERROR (RFC 9113 §4.3)."""


class Sensitive(tuple[bytes, bytes]):
    """A pair that must stay out of every table; equal to nothing but itself, hence never found in a memo.

    Where a field may be one, code handles it as ``Any``: mypyc takes a typed pair apart and would lose the class.
    """

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class Grafted(tuple[Field, ...]):  # noqa: SLOT001 - an attribute is what it is for
    """The fields of ``stem``, a tuple that comes again, and one more."""

    stem: Fields


def field_fault(field: Field) -> str | None:
    """Why a message with this field is malformed (RFC 9113 §8.2.1), or None."""
    name, value = field
    if good_name(name) is None:
        return f"illegal field name {name[:64]!r}"
    if good_value(value) is None:
        return f"NUL, CR, LF or edge whitespace in the value of {name[:64].decode('ascii')}"
    return None


def coded(value: int, bits: int, flags: int) -> bytes:
    """An integer with a prefix of ``bits`` bits and ``flags`` above it (RFC 7541 §5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((flags | value,))
    out = bytearray((flags | limit,))
    value -= limit
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(data: bytes, at: int, prefix: int) -> tuple[int, int]:
    """The integer whose full prefix is before ``at``, and where it ends. Raises IndexError where the data end,
    :class:`HeaderCodecError` above ``MAX_INTEGER`` or for more than five bytes."""
    value = prefix
    for shift in range(0, 35, 7):
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80 and value <= MAX_INTEGER:
            return value, at
    raise HeaderCodecError("an integer that is too large")
