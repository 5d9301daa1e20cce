"""Header blocks (HPACK, RFC 7541), built for repetition: both directions in one file, as they share memos and rules.

Theory of operation

1. Most blocks of a connection repeat. A block that repeats while the dynamic table stays as it is decodes to the *same*
   :class:`Block`, one dictionary look-up. A change of the table voids the memo.
2. What does not repeat is paid per literal: an index is one access to a list whose newest entry is last; a value's bytes are
   decoded and validated once and remembered if they come again. Remembering at second sight, in two generations
   (:class:`Memo`), keeps unique values such as trace ids from washing the useful ones out.
3. Validation (RFC 9113 §8.2.1) happens where a literal is decoded. It marks the block (``malformed``); only errors that leave
   the table undefined raise, since only those concern the whole connection. A faulty entry that got into the table makes
   the decoder look at every field from then on: slow, for those who do that.
4. A list beyond the limits marks the block too (``too_large``), and it is read to its end for the table's sake. The sum of
   the sizes is only taken where the number of fields times the widest entry could exceed the limit.
5. The encoder's table only grows: a pair seen twice, or the first pair of a name seen twice, is indexed while there is room,
   nothing is evicted, so that indexes, and all that is remembered with them, change a few dozen times in a connection's
   life. The rest are literals without indexing, the name by index where it has one, not Huffman-coded: that costs both
   ends more than it saves on the links between services.
6. Sensitive fields (credentials, short cookies, and whatever came never-indexed) are never indexed (RFC 7541 §7.1.3).

Bounds per connection and direction: the table, ``MEMO_BLOCKS`` blocks and ``MEMO_STRINGS`` names and values in each of two
generations, none of them above ``MEMO_LENGTH`` bytes. Neither direction may be used again after it raised.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from protocols.http2.huffman import HuffmanError, huffman_decode
from protocols.http2.tables import (
    COOKIE_NAMES,
    DEFAULT_TABLE,
    ENTRY_OVERHEAD,
    FLEETING_NAMES,
    SECRET_NAMES,
    SHORT_COOKIE,
    STATIC,
    STATIC_SIZE,
    Grafted,
    HeaderCodecError,
    Sensitive,
    coded,
    field_fault,
    good_name,
    good_value,
    integer,
)
from router.model.headers import Field, Fields

__all__ = ["Block", "Decoder", "Encoder", "HeaderCodecError", "Sensitive"]

MEMO_BLOCKS = 64
MEMO_STRINGS = 128
MEMO_LENGTH = 1024
_SIGHTS = 255  # a mask: one less than the number of slots
_MAX_UPDATES = 2  # per block (RFC 7541 §4.2)
_SUSPECT = b"\x00\r\n\t "
_K = TypeVar("_K")
_V = TypeVar("_V")


class Sights:
    """Tells second sights: hashes in a fixed table, buckets of two, the older one of a full bucket gives way."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: list[int] = [0] * (_SIGHTS + 1)

    def again(self, mark: int) -> bool:
        """Whether ``mark`` was seen before, as far as remembered."""
        seen, slot = self._seen, mark & _SIGHTS
        before = seen[slot]
        if before == mark or seen[slot ^ 1] == mark:
            return True
        seen[slot ^ 1] = before
        seen[slot] = mark
        return False


class Memo(Generic[_K, _V]):
    """What came twice, in two generations of at most ``size`` entries.

    Users look into ``young`` themselves. When it is full it becomes the old generation, of which only what is used
    again survives.
    """

    __slots__ = ("_old", "_sights", "_size", "young")

    def __init__(self, size: int) -> None:
        self.young: dict[_K, _V] = {}
        self._old: dict[_K, _V] = {}
        self._sights = Sights()
        self._size = size

    def find(self, key: _K) -> _V | None:
        """The value, if either generation has it."""
        value = self.young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def offer(self, key: _K, value: _V) -> bool:
        """Remember the value if the key was seen before, and say so."""
        if not self._sights.again(hash(key)):
            return False
        self.put(key, value)
        return True

    def put(self, key: _K, value: _V) -> None:
        if len(self.young) >= self._size:
            self._old, self.young = self.young, {}
        self.young[key] = value

    def clear(self) -> None:
        self.young.clear()
        self._old.clear()


class Block:
    """What a header block says.

    ``fields``: pairs of lower-case name and value, in order; unchecked where ``malformed`` says why the message is malformed,
    cut where ``too_large`` says that the list exceeded the limits. ``derived`` is room for the head made of it.
    ``shared``: the same object is returned for the next equal block.
    """

    __slots__ = ("derived", "fields", "malformed", "shared", "too_large")

    def __init__(self, fields: Fields, malformed: str | None, too_large: bool) -> None:
        self.fields = fields
        self.malformed = malformed
        self.too_large = too_large
        self.shared = False
        self.derived: object = None


class Decoder:
    """The receiving side of one direction.

    ``max_table_size``: bytes, our SETTINGS_HEADER_TABLE_SIZE; the table begins with the protocol's default of 4096 until the
    peer chooses. ``max_list_size``: bytes of names and values and 32 per field. ``max_fields``: fields of a block.
    """

    def __init__(self, max_table_size: int = DEFAULT_TABLE, max_list_size: int = 65536, max_fields: int = 1024) -> None:
        self.max_table_size = max_table_size
        self.max_list_size = max_list_size
        self.max_fields = max_fields
        self._limit = DEFAULT_TABLE  # what the peer chose by a size update
        self._table: list[Field] = []  # the newest entry is last
        self._size = 0
        self._widest = 128  # no entry, static or dynamic, is or was larger
        self._tainted = False  # a faulty entry is or was in the table
        self._suspect = False  # a faulty literal is in the current block
        self._blocks: Memo[bytes, Block] = Memo(MEMO_BLOCKS)
        self._names: Memo[bytes, bytes] = Memo(MEMO_STRINGS)
        self._values: Memo[bytes, bytes] = Memo(MEMO_STRINGS)

    def decode(self, data: bytes) -> Block:
        """Decode one block. Raises :class:`HeaderCodecError`."""
        block = self._blocks.young.get(data)
        if block is not None:
            return block
        block = self._blocks.find(data)
        if block is not None:
            return block
        try:
            return self._decode(data)
        except IndexError:
            raise HeaderCodecError("a header block that ends within a field, or an index that is not in the table") from None
        except HuffmanError as error:
            raise HeaderCodecError(str(error)) from None

    def _decode(self, data: bytes) -> Block:
        """The loop over the fields; what is frequent is written out here. IndexError: see :meth:`decode`."""
        fields: list[Any] = []  # see Sensitive
        table = self._table
        values = self._values.young
        at = self._updates(data)
        changed = at > 0
        end = len(data)
        while at < end:
            first = data[at]
            at += 1
            if first >= 0x80:  # an indexed field
                if first < 0xBE:
                    if first == 0x80:
                        raise HeaderCodecError("index 0")
                    fields.append(STATIC[first - 0x80])
                elif first < 0xFF:
                    fields.append(table[0xBD - first])
                else:
                    index, at = integer(data, at, 0x7F)
                    fields.append(table[STATIC_SIZE - index])
                continue
            full = 0x3F if first >= 0x40 else 0x0F
            if 0x20 <= first < 0x40:
                raise HeaderCodecError("a table size update inside of a block, or too many")
            index = first & full
            if index == full:
                index, at = integer(data, at, full)
            if index == 0:
                name, at = self._name(data, at)
            else:
                name = STATIC[index][0] if index <= STATIC_SIZE else table[STATIC_SIZE - index][0]
            length = data[at] & 0x7F
            stop = at + 1 + length
            raw = data[at:stop]
            value = values.get(raw)
            if value is None:
                if length == 0x7F or stop > end:
                    start, stop = _bounds(data, at)
                    value = self._value(data[at:stop], start - at)
                else:
                    value = self._value(raw, 1)
            at = stop
            field = (name, value)
            if 0x10 <= first < 0x20:
                fields.append(Sensitive(field))
                continue
            fields.append(field)
            if first >= 0x40:
                self._insert(field)
                changed = True
        return self._finish(data, fields, changed)

    def _finish(self, data: bytes, fields: list[Any], changed: bool) -> Block:
        count = len(fields)
        fits = count
        if count > self.max_fields or count * self._widest + 2 * len(data) > self.max_list_size:
            fits = self._fitting(fields)
        block = Block(tuple(fields[:fits]), None, fits < count)
        if self._suspect or self._tainted:
            self._suspect = False
            faults = (field_fault(field) for field in block.fields)
            block.malformed = next((fault for fault in faults if fault is not None), None)
        if changed:
            self._blocks.clear()
        elif len(data) <= MEMO_LENGTH:
            block.shared = self._blocks.offer(data, block)
        return block

    def _fitting(self, fields: list[Field]) -> int:
        """How many of the fields are within the limits."""
        room = self.max_list_size
        for at, (name, value) in enumerate(fields[: self.max_fields]):
            room -= len(name) + len(value) + ENTRY_OVERHEAD
            if room < 0:
                return at
        return min(len(fields), self.max_fields)

    def _updates(self, data: bytes) -> int:
        """Table size updates, which stand at the beginning of a block (RFC 7541 §4.2); returns where the fields begin."""
        at = count = 0
        while count < _MAX_UPDATES and at < len(data) and data[at] & 0xE0 == 0x20:
            size = data[at] & 0x1F
            at += 1
            if size == 0x1F:
                size, at = integer(data, at, 0x1F)
            if size > self.max_table_size:
                raise HeaderCodecError(f"a table size update to {size}, we allow {self.max_table_size}")
            self._limit = size
            self._evict()
            count += 1
        return at

    def _name(self, data: bytes, at: int) -> tuple[bytes, int]:
        """A literal name and where it ends."""
        start, end = _bounds(data, at)
        raw = data[at:end]
        name = self._names.find(raw)
        if name is None:
            name = huffman_decode(data[start:end]) if raw[0] >= 0x80 else data[start:end]
            if good_name(name) is None:
                self._suspect = True
            elif end - at <= MEMO_LENGTH:
                self._names.offer(raw, name)
        return name, end

    def _value(self, raw: bytes, start: int) -> bytes:
        """The value of a string literal that was not found at once; its text begins at ``start``."""
        value = self._values.find(raw)
        if value is None:
            value = huffman_decode(raw[start:]) if raw[0] >= 0x80 else raw[start:]
            if len(value.translate(None, _SUSPECT)) != len(value) and good_value(value) is None:
                self._suspect = True
            elif len(raw) <= MEMO_LENGTH:
                self._values.offer(raw, value)
        return value

    def _insert(self, field: Field) -> None:
        """A new entry at the front of the table, which is the list's end (RFC 7541 §4.4)."""
        if self._suspect:
            self._tainted = True
        size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        if size > self._widest:
            self._widest = size
        self._table.append(field)
        self._size += size
        if self._size > self._limit:
            self._evict()

    def _evict(self) -> None:
        table, drop = self._table, 0
        while self._size > self._limit:
            name, value = table[drop]
            self._size -= len(name) + len(value) + ENTRY_OVERHEAD
            drop += 1
        del table[:drop]


def _bounds(data: bytes, at: int) -> tuple[int, int]:
    """Where the text of the string literal at ``at`` begins and ends (RFC 7541 §5.2)."""
    length = data[at] & 0x7F
    at += 1
    if length == 0x7F:
        length, at = integer(data, at, 0x7F)
    if at + length > len(data):
        raise HeaderCodecError("a header block that ends within a string")
    return at, at + length


_LENGTHS = tuple(bytes((size,)) for size in range(127))
_NAME_INDEX = {STATIC[at][0]: at for at in range(STATIC_SIZE, 0, -1)}
_STATIC_PAIRS = {STATIC[at]: coded(at, 7, 0x80) for at in range(STATIC_SIZE, 0, -1)}
# What stands in front of the value in a literal without indexing. Names that may be secret take the long way.
_STATIC_NAMES = {
    name: coded(at, 4, 0) for name, at in _NAME_INDEX.items() if name not in SECRET_NAMES and name not in COOKIE_NAMES
}


def _plain(text: bytes) -> bytes:
    """A string literal that is not Huffman-coded."""
    size = len(text)
    return _LENGTHS[size] + text if size < 127 else coded(size, 7, 0) + text


class Encoder:
    """The sending side of one direction. ``max_table_size``: bytes we are ready to keep, whatever the peer allows."""

    def __init__(self, max_table_size: int = DEFAULT_TABLE) -> None:
        self.max_table_size = max_table_size
        self._limit = min(DEFAULT_TABLE, max_table_size)
        self._lowest: int | None = None  # of the limits since the last block, if there were any
        self._table: list[Field] = []  # the newest entry is last
        self._size = 0
        self._pair_at: dict[Field, int] = {}  # positions in the table
        self._name_at: dict[bytes, int] = {}
        self._pairs: dict[Field, bytes] = dict(_STATIC_PAIRS)  # codes of pairs that have an index
        self._names: dict[bytes, bytes] = dict(_STATIC_NAMES)  # what stands in front of the value
        self._sights = Sights()  # of pairs and of names
        self._repeats = False  # the current block is going to come again
        self._blocks: Memo[int, tuple[Fields, bytes]] = Memo(MEMO_BLOCKS)

    def resize(self, max_size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE, in bytes: obeyed at once, announced by the next block (RFC 7541 §4.2)."""
        limit = min(max_size, self.max_table_size)
        if limit == self._limit:
            return
        self._lowest = limit if self._lowest is None else min(limit, self._lowest)
        self._limit = limit
        kept, size = self._table, self._size
        while size > limit:
            name, value = kept[0]
            size -= len(name) + len(value) + ENTRY_OVERHEAD
            kept = kept[1:]
        self._table, self._size = kept, size
        self._pair_at = {field: at for at, field in enumerate(kept)}
        self._name_at = {field[0]: at for at, field in enumerate(kept)}
        self._forget()

    def encode(self, fields: Fields, *, shared: bool = False) -> bytes:
        """Encode one block. ``shared``: the very same tuple is going to come again, so that its block is worth keeping."""
        if shared:
            known = self._blocks.find(id(fields))
            if known is not None:
                return known[1]
        if self._lowest is not None:
            self._repeats = shared
            return self._announcement(self._lowest) + self._encode(fields)
        entries = len(self._table)
        if type(fields) is Grafted:
            block = self.encode(fields.stem, shared=True)
            self._repeats = False
            block += self._encode(fields[-1:])
        else:
            self._repeats = shared
            block = self._encode(fields)
        if shared and entries == len(self._table):
            self._blocks.put(id(fields), (fields, block))
        return block

    def _announcement(self, lowest: int) -> bytes:
        """The size updates, the smallest first."""
        self._lowest = None
        return (coded(lowest, 5, 0x20) if lowest < self._limit else b"") + coded(self._limit, 5, 0x20)

    def _encode(self, fields: Fields) -> bytes:
        out: list[bytes] = []
        pairs: tuple[Any, ...] = fields  # see Sensitive
        for field in pairs:
            code = self._pairs.get(field)
            out.append(self._other(field) if code is None else code)
        return b"".join(out)

    def _other(self, field: Any) -> bytes:
        """A pair whose code is not at hand."""
        name, value = field
        if type(field) is Sensitive:
            return _never(name, value)
        at = self._pair_at.get(field)
        if at is not None:
            code = self._pairs[field] = coded(STATIC_SIZE + len(self._table) - at, 7, 0x80)
            return code
        start = self._names.get(name)
        if start is None:
            start = self._start(name, value)
            if start is None:
                return _never(name, value)
        # A name without an index (the literal begins with 0) earns one for its first pair.
        if (
            self._room(name, value)
            and not (start[0] and name in FLEETING_NAMES)
            and (self._repeats or self._sights.again(hash(field if start[0] else name)))
        ):
            return self._index(name, value)
        size = len(value)
        return start + _LENGTHS[size] + value if size < 127 else start + _plain(value)

    def _start(self, name: bytes, value: bytes) -> bytes | None:
        """What stands in front of the value in a literal without indexing; None for a pair that is never indexed."""
        if name in SECRET_NAMES or (name in COOKIE_NAMES and len(value) < SHORT_COOKIE):
            return None
        index = self._name_index(name)
        if not index:
            return b"\x00" + _plain(name)
        start = coded(index, 4, 0)
        if name not in COOKIE_NAMES:  # for these the answer depends on the value
            self._names[name] = start
        return start

    def _name_index(self, name: bytes) -> int:
        """0 if no table has the name."""
        index = _NAME_INDEX.get(name)
        if index is None:
            at = self._name_at.get(name)
            index = 0 if at is None else STATIC_SIZE + len(self._table) - at
        return index

    def _room(self, name: bytes, value: bytes) -> bool:
        return self._size + len(name) + len(value) + ENTRY_OVERHEAD <= self._limit

    def _index(self, name: bytes, value: bytes) -> bytes:
        """A literal with incremental indexing. All indexes shift, hence all that is remembered is void."""
        index = self._name_index(name)
        self._pair_at[name, value] = self._name_at[name] = len(self._table)
        self._table.append((name, value))
        self._size += len(name) + len(value) + ENTRY_OVERHEAD
        self._forget()
        return (coded(index, 6, 0x40) if index else b"\x40" + _plain(name)) + _plain(value)

    def _forget(self) -> None:
        self._pairs = dict(_STATIC_PAIRS)
        self._names = dict(_STATIC_NAMES)
        self._blocks.clear()


def _never(name: bytes, value: bytes) -> bytes:
    """A literal that nobody on the way may index (RFC 7541 §6.2.3)."""
    index = _NAME_INDEX.get(name)
    return (coded(index, 4, 0x10) if index else b"\x10" + _plain(name)) + _plain(value)
