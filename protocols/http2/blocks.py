"""Header blocks (HPACK, RFC 7541), built for repetition.

Theory of operation

1. Most blocks of a connection repeat. A block that repeats while the dynamic table stays as it is decodes to the *same*
   :class:`Block`, one dictionary look-up. A change of the table voids the memo.
2. What does not repeat is paid per literal: an index is one list access, a literal's bytes are decoded and validated
   once and remembered if they come again. Remembering at second sight keeps unique values (trace ids) from washing
   the useful ones out.
3. Validation (RFC 9113 §8.2.1) happens where a literal is decoded, never for an index. It marks the block
   (``malformed``); only errors that leave the table undefined raise, since only those concern the whole connection.
4. The encoder's dynamic table only grows: a pair seen twice is indexed while there is room, nothing is evicted, so that
   indexes, and all that is remembered with them, change a few dozen times in a connection's life. Everything else is a
   literal without indexing, not Huffman-coded: that would cost more than it saves on the links between services.
5. Sensitive fields (``authorization``, ``cookie``, and whatever came never-indexed) are never indexed (§7.1.3).

Bounds, per connection: ``MEMO_BLOCKS`` blocks, ``MEMO_STRINGS`` strings, ``MEMO_PAIRS`` encoded pairs, the two tables.
"""

from __future__ import annotations

import re

from hpack.table import HeaderTable

from protocols.http2.huffman_code import HUFFMAN, HuffmanError
from router.model.headers import Field, Fields

MEMO_BLOCKS = 64
MEMO_STRINGS = 256
MEMO_PAIRS = 256
MAX_INTEGER = 1 << 28
DEFAULT_TABLE = 4096
_ENTRY = 32
_STATIC: tuple[Field, ...] = tuple((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE)
_STATIC_SIZE = len(_STATIC)
_NEVER = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))
_good_name = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_bad_value = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]\Z").search


class HeaderCodecError(Exception):
    """A block that leaves the tables undefined: a connection error of type COMPRESSION_ERROR."""


class Sensitive(tuple[bytes, bytes]):
    """A pair that must stay out of every table; equal to nothing but itself, hence never found in a memo."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class Block:
    """What a header block says.

    ``malformed``: why the message is malformed, or None. ``too_large``: the list exceeded the limits, and ``fields`` is
    cut. ``derived`` is room for the head made of it. ``shared``: the same object is returned for the next equal block.
    """

    __slots__ = ("derived", "fields", "malformed", "shared", "too_large")

    def __init__(self, fields: Fields, malformed: str | None, too_large: bool) -> None:
        self.fields = fields
        self.malformed = malformed
        self.too_large = too_large
        self.shared = False
        self.derived: object = None


class Decoder:
    """The receiving side of one direction. ``max_list``: bytes of the list, each field with 32 bytes overhead."""

    def __init__(self, max_table: int = DEFAULT_TABLE, max_list: int = 65536, max_fields: int = 1024) -> None:
        self.max_table = max_table
        self.max_list = max_list
        self.max_fields = max_fields
        self._limit = max_table  # what the peer chose by a size update
        self._table: list[Field] = []  # the newest entry is last
        self._size = 0
        self._faults: dict[Field, str] = {}  # malformed entries of the table
        self._memo: dict[bytes, Block] = {}
        self._seen: set[int] = set()
        self._strings: dict[bytes, bytes] = {}
        self._strings_seen: set[int] = set()

    def decode(self, data: bytes) -> Block:
        """Decode one block. Raises :class:`HeaderCodecError`."""
        block = self._memo.get(data)
        if block is not None:
            return block
        try:
            return self._decode(data)
        except IndexError:
            raise HeaderCodecError("a header block that ends within a field") from None
        except HuffmanError as error:
            raise HeaderCodecError(str(error)) from None

    def _decode(self, data: bytes) -> Block:
        fields: list[Field] = []
        malformed: str | None = None
        faults = self._faults
        changed = False
        at = self._updates(data)
        changed = at > 0
        end = len(data)
        table = self._table
        room, count = self.max_list, self.max_fields
        while at < end:
            first = data[at]
            if first >= 0x80:
                index = first & 0x7F
                at += 1
                if index == 0x7F:
                    index, at = self._integer(data, at, 0x7F)
                field = self._entry(index)
                if faults and malformed is None:
                    malformed = faults.get(field)
            else:
                field, at, fault = self._literal(data, at, first)
                if fault is not None and malformed is None:
                    malformed = fault
                if first & 0x40:
                    self._add(field, fault)
                    changed = True
                elif first >= 0x20:
                    raise HeaderCodecError("a table size update inside of a block")
            room -= len(field[0]) + len(field[1]) + _ENTRY
            if room >= 0 and len(fields) < count:
                fields.append(field)
            else:
                room = -1
        block = Block(tuple(fields), malformed, room < 0)
        assert table is self._table
        if changed:
            self._memo.clear()
        else:
            self._remember(data, block)
        return block

    def _remember(self, data: bytes, block: Block) -> None:
        key = hash(data)
        if key in self._seen:
            if len(self._memo) >= MEMO_BLOCKS:
                self._memo.clear()
            self._memo[data] = block
            block.shared = True
        else:
            if len(self._seen) >= 4 * MEMO_BLOCKS:
                self._seen.clear()
            self._seen.add(key)

    def _updates(self, data: bytes) -> int:
        """Table size updates, which stand at the beginning of a block (§4.2); returns where the fields begin."""
        at = 0
        while at < len(data) and data[at] & 0xE0 == 0x20:
            size = data[at] & 0x1F
            at += 1
            if size == 0x1F:
                size, at = self._integer(data, at, 0x1F)
            if size > self.max_table:
                raise HeaderCodecError("a table size update above what we allow")
            self._limit = size
            self._evict()
        return at

    def _integer(self, data: bytes, at: int, value: int) -> tuple[int, int]:
        """The rest of an integer whose prefix is full (§5.1)."""
        shift = 0
        while True:
            byte = data[at]
            at += 1
            value += (byte & 0x7F) << shift
            if value > MAX_INTEGER or shift > 28:
                raise HeaderCodecError("an integer that is too large")
            if byte < 0x80:
                return value, at
            shift += 7

    def _entry(self, index: int) -> Field:
        if 0 < index <= _STATIC_SIZE:
            return _STATIC[index - 1]
        at = len(self._table) + _STATIC_SIZE - index
        if at < 0 or index == 0:
            raise HeaderCodecError(f"index {index} is not in the table")
        return self._table[at]

    def _literal(self, data: bytes, at: int, first: int) -> tuple[Field, int, str | None]:
        mask = 0x3F if first & 0x40 else 0x0F
        index = first & mask
        at += 1
        fault: str | None = None
        if index == mask:
            index, at = self._integer(data, at, mask)
        if index:
            name = self._entry(index)[0]
            if self._faults and not _good_name(name):
                fault = "an illegal field name"
        else:
            name, at = self._string(data, at)
            if not _good_name(name):
                fault = f"illegal field name {name[:64]!r}"
        value, at = self._string(data, at)
        if _bad_value(value) is not None:
            fault = f"illegal value of {name[:64].decode('ascii', 'replace')}"
        if first & 0x10 and first < 0x20:
            return Sensitive((name, value)), at, fault
        return (name, value), at, fault

    def _string(self, data: bytes, at: int) -> tuple[bytes, int]:
        first = data[at]
        length = first & 0x7F
        at += 1
        if length == 0x7F:
            length, at = self._integer(data, at, 0x7F)
        end = at + length
        if end > len(data):
            raise HeaderCodecError("a header block that ends within a string")
        raw = data[at:end]
        if first < 0x80:
            return raw, end
        text = self._strings.get(raw)
        return (self._huffman(raw) if text is None else text), end

    def _huffman(self, raw: bytes) -> bytes:
        text = HUFFMAN.decode(raw)
        key = hash(raw)
        if key in self._strings_seen:
            if len(self._strings) >= MEMO_STRINGS:
                self._strings.clear()
            self._strings[raw] = text
        else:
            if len(self._strings_seen) >= 2 * MEMO_STRINGS:
                self._strings_seen.clear()
            self._strings_seen.add(key)
        return text

    def _add(self, field: Field, fault: str | None) -> None:
        """Insert at the front of the table (§4.4)."""
        self._table.append(field)
        self._size += len(field[0]) + len(field[1]) + _ENTRY
        if fault is not None:
            self._faults[field] = fault
        if self._size > self._limit:
            self._evict()

    def _evict(self) -> None:
        table, drop = self._table, 0
        while self._size > self._limit:
            name, value = table[drop]
            self._size -= len(name) + len(value) + _ENTRY
            drop += 1
        if drop:
            if self._faults:
                for field in table[:drop]:
                    self._faults.pop(field, None)
            del table[:drop]


_LENGTHS = tuple(bytes((size,)) for size in range(127))
_NAME_INDEX: dict[bytes, int] = {}
for _at, _field in enumerate(_STATIC):
    _NAME_INDEX.setdefault(_field[0], _at + 1)


def _coded(value: int, bits: int, flags: int) -> bytes:
    """An integer with a prefix of ``bits`` bits and ``flags`` above it (§5.1)."""
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


def _string(value: bytes) -> bytes:
    size = len(value)
    return _LENGTHS[size] + value if size < 127 else _coded(size, 7, 0) + value


def _name(name: bytes, bits: int, flags: int) -> bytes:
    index = _NAME_INDEX.get(name)
    return _coded(index, bits, flags) if index is not None else bytes((flags,)) + _string(name)


# A literal without indexing whose name is in the static table: everything in front of the value's length.
_PLAIN_NAMES = {name: _coded(index, 4, 0) for name, index in _NAME_INDEX.items()}
_STATIC_PAIRS = {field: _coded(at + 1, 7, 0x80) for at, field in reversed(list(enumerate(_STATIC)))}


class Encoder:
    """The sending side of one direction."""

    def __init__(self) -> None:
        self._limit = DEFAULT_TABLE
        self._table: list[Field] = []
        self._size = 0
        self._update: int | None = None
        self._pairs: dict[Field, bytes] = dict(_STATIC_PAIRS)
        self._names: dict[bytes, bytes] = dict(_PLAIN_NAMES)
        self._seen: set[int] = set()
        self._memo: dict[int, tuple[Fields, bytes]] = {}

    def resize(self, size: int) -> None:
        """The peer's HEADER_TABLE_SIZE: forget our table, say so with the next block (§4.2)."""
        if size == self._limit and self._update is None:
            return
        self._limit = size
        self._update = size
        self._table, self._size = [], 0
        self._reindex()

    def encode(self, fields: Fields, *, shared: bool = False) -> bytes:
        """Encode one block. ``shared``: the very same tuple is going to come again."""
        if shared:
            memo = self._memo.get(id(fields))
            if memo is not None and self._update is None:
                return memo[1]
        block = self._encode(fields)
        if shared and self._update is None and self._stable:
            if len(self._memo) >= MEMO_BLOCKS:
                self._memo.clear()
            self._memo[id(fields)] = (fields, block)
        elif self._update is not None:
            prefix = _coded(0, 5, 0x20) if self._update else b""
            block = prefix + _coded(self._update, 5, 0x20) + block
            self._update = None
        return block

    _stable = True

    def _encode(self, fields: Fields) -> bytes:
        pairs = self._pairs
        known = pairs.get
        out: list[bytes] = []
        self._stable = True
        for field in fields:
            code = known(field)
            if code is None:
                code = self._new(field)
                known = self._pairs.get
            out.append(code)
        return b"".join(out)

    def _new(self, field: Field) -> bytes:
        name, value = field
        if name in _NEVER or field.__class__ is Sensitive:
            return _name(name, 4, 0x10) + _string(value)
        key = hash(field)
        if key in self._seen:
            return self._again(field, name, value)
        if len(self._seen) >= 2 * MEMO_PAIRS:
            self._seen.clear()
        self._seen.add(key)
        return self._plain(name, value)

    def _plain(self, name: bytes, value: bytes) -> bytes:
        """A literal without indexing."""
        start = self._names.get(name)
        if start is None:
            start = b"\x00" + _string(name)
            if len(self._names) < MEMO_PAIRS:
                self._names[name] = start
        size = len(value)
        return start + _LENGTHS[size] + value if size < 127 else start + _coded(size, 7, 0) + value

    def _again(self, field: Field, name: bytes, value: bytes) -> bytes:
        """A pair seen before: index it if there is room, else remember its literal."""
        size = len(name) + len(value) + _ENTRY
        if self._size + size <= self._limit:
            self._table.append(field)
            self._size += size
            self._reindex()
            self._stable = False
            return _name(name, 6, 0x40) + _string(value)
        code = self._plain(name, value)
        if len(self._pairs) < len(_STATIC_PAIRS) + MEMO_PAIRS:
            self._pairs[field] = code
        return code

    def _reindex(self) -> None:
        """The table changed: all its indexes did."""
        top = _STATIC_SIZE + len(self._table)
        self._pairs = dict(_STATIC_PAIRS)
        for at, field in enumerate(self._table):
            self._pairs[field] = _coded(top - at, 7, 0x80)
        self._memo.clear()
