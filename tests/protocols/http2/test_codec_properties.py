"""The codec against hpack's, over whole conversations.

Differences from ``hpack.Decoder``, all deliberate: a list above the limits marks the block and does not raise; more than two
size updates in a block are an error; our limit for the table does not have to be acknowledged by an update below 4096.
"""

from __future__ import annotations

from typing import Any

import hpack
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protocols.http2.codec import Decoder, Encoder, HeaderCodecError, Memo, Sensitive
from protocols.http2.tables import ENTRY_OVERHEAD, STATIC, Grafted
from router.model.headers import Field, Fields

pytestmark = pytest.mark.slow  # a second each

TABLE = 8192
Step = int | tuple[Fields, bool]  # a resize, or a block and whether the sender's hint (Huffman, or shared) is on

names = st.sampled_from([name for name, _ in STATIC[1:]]) | st.text("abc-", min_size=1, max_size=4).map(str.encode)
values = st.sampled_from([b"", b"GET", b"application/grpc", b"x" * 200, b"\xff\\", b"gzip, deflate"]) | st.text(
    st.characters(max_codepoint=126), max_size=12
).map(str.encode)
fields = st.builds(
    lambda name, value, secret: Sensitive((name, value)) if secret else (name, value), names, values, st.booleans()
)
lists = st.lists(fields, max_size=8).map(tuple)
sizes = st.sampled_from([0, 40, 100, 300, 4096, TABLE])


@st.composite
def conversations(draw: st.DrawFn) -> list[Step]:
    """Steps that draw their blocks from a few lists, so that much repeats."""
    pool = draw(st.lists(lists, min_size=1, max_size=4))
    block = st.tuples(st.sampled_from(pool), st.booleans())
    steps = draw(st.lists(block | sizes, min_size=1, max_size=25))
    # hpack's encoder announces every resize, we refuse more than two in a block
    return [step for at, step in enumerate(steps) if not (at > 1 and all(isinstance(s, int) for s in steps[at - 2 : at + 1]))]


def oracle() -> hpack.Decoder:
    decoder = hpack.Decoder(max_header_list_size=1 << 30)
    decoder.max_allowed_table_size = TABLE
    return decoder


def plain(pairs: Any) -> list[Field]:
    return [(bytes(name), bytes(value)) for name, value in pairs]


def secrets(pairs: Any) -> list[bool]:
    return [isinstance(field, (Sensitive, hpack.NeverIndexedHeaderTuple)) for field in pairs]


def sent_by_hpack(steps: list[Step]) -> list[tuple[Fields, bytes]]:
    encoder, out = hpack.Encoder(), []
    for step in steps:
        if isinstance(step, int):
            if step != encoder.header_table_size:  # hpack's encoder forgets to announce the first of two equal ones
                encoder.header_table_size = step
        else:
            headers = [(name, value, type(field) is Sensitive) for field in step[0] for name, value in [field]]
            out.append((step[0], encoder.encode(headers, huffman=step[1])))
    return out


def check_decoder(decoder: Decoder) -> None:
    assert decoder._size == sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in decoder._table) <= decoder._limit
    assert all(type(field) is tuple for field in decoder._table)


@given(conversations())
def test_we_decode_what_hpack_encodes(steps: list[Step]) -> None:
    decoder, reference = Decoder(TABLE), oracle()
    for sent, data in sent_by_hpack(steps):
        block = decoder.decode(data)
        expected = list(reference.decode(data, raw=True))
        assert plain(block.fields) == plain(sent) == plain(expected)
        assert secrets(block.fields) == secrets(expected)
        assert decoder._table == list(reversed(reference.header_table.dynamic_entries))
        check_decoder(decoder)


@given(conversations())
def test_hpack_and_we_decode_what_we_encode(steps: list[Step]) -> None:
    encoder, decoder, reference = Encoder(TABLE), Decoder(TABLE), oracle()
    for step in steps:
        if isinstance(step, int):
            encoder.resize(step)
            continue
        data = encoder.encode(step[0], shared=step[1])
        got = list(reference.decode(data, raw=True))
        assert plain(got) == plain(step[0]) == plain(decoder.decode(data).fields)
        assert all(kept or not secret for kept, secret in zip(secrets(got), secrets(step[0]), strict=True))
        assert encoder._table == decoder._table == list(reversed(reference.header_table.dynamic_entries))
        assert encoder._size == sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in encoder._table)
        assert encoder._size <= encoder._limit


@given(conversations(), st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1))
def test_a_field_that_is_grafted_on_a_block_is_decoded_behind_it(steps: list[Step], grafts: list[tuple[int, bool]]) -> None:
    encoder, reference = Encoder(TABLE), oracle()
    kept: dict[int, Grafted] = {}
    stems = [step[0] for step in steps if not isinstance(step, int)] or [()]
    for at, (number, shared) in enumerate([*grafts, *grafts]):
        step = steps[at % len(steps)] if steps else 100
        if isinstance(step, int):
            encoder.resize(step)
        fields = kept.get(number)
        if fields is None:
            stem = stems[number % len(stems)]
            fields = kept[number] = Grafted((*stem, (b"grpc-timeout", b"%dm" % number)))
            fields.stem = stem
        data = encoder.encode(fields, shared=shared)
        assert plain(reference.decode(data, raw=True)) == plain(fields)
        assert encoder._table == list(reversed(reference.header_table.dynamic_entries))


def with_memos(decoder: Decoder, size: int) -> Decoder:
    decoder._blocks, decoder._names, decoder._values = Memo(size), Memo(size), Memo(size)
    return decoder


@given(conversations())
def test_memos_change_nothing_but_the_price(steps: list[Step]) -> None:
    """One decoder remembers, one changes generations all the time, one forgets everything before each block."""
    decoder, hasty, forgetful = Decoder(TABLE, 1000), with_memos(Decoder(TABLE, 1000), 1), Decoder(TABLE, 1000)
    for _, data in sent_by_hpack(steps):
        blocks = [d.decode(data) for d in (decoder, hasty, with_memos(forgetful, 1))]
        assert len({(tuple(plain(b.fields)), b.malformed, b.too_large) for b in blocks}) == 1
        assert decoder._table == hasty._table == forgetful._table


def judged(decoder: Decoder, data: bytes) -> list[Field] | None:
    try:
        return plain(decoder.decode(data).fields)
    except HeaderCodecError:
        return None


def judged_by_hpack(decoder: hpack.Decoder, data: bytes) -> list[Field] | None:
    try:
        return plain(decoder.decode(data, raw=True))
    except hpack.HPACKError:
        return None


def compare(blocks: list[bytes]) -> None:
    """Block by block up to the first that is refused."""
    decoder, reference = Decoder(TABLE, 1 << 30, 1 << 30), oracle()
    for data in blocks:
        expected = judged_by_hpack(reference, data)
        got = judged(decoder, data)
        if got is None and expected is not None:
            assume(not _many_updates(data))
        assert got == expected
        if got is None:
            return
        check_decoder(decoder)


def _many_updates(data: bytes) -> bool:
    at = count = 0
    while at < len(data) and data[at] & 0xE0 == 0x20:
        at += 1
        if data[at - 1] == 0x3F:
            while data[at] >= 0x80:
                at += 1
            at += 1
        count += 1
    return count > 2


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_random_blocks_are_judged_as_by_hpack(blocks: list[bytes]) -> None:
    compare(blocks + blocks)


edits = st.tuples(st.integers(0, 400), st.sampled_from(["set", "insert", "delete", "cut"]), st.integers(0, 255))


def edited(data: bytes, at: int, kind: str, byte: int) -> bytes:
    at = at % (len(data) + 1)
    if kind == "cut":
        return data[:at]
    return data[:at] + (b"" if kind == "delete" else bytes((byte,))) + data[at + (kind != "insert") :]


@settings(max_examples=200)
@given(conversations(), st.lists(st.tuples(st.integers(0, 30), edits), min_size=1, max_size=4))
def test_mutated_blocks_are_judged_as_by_hpack(steps: list[Step], mutations: list[tuple[int, tuple[int, str, int]]]) -> None:
    blocks = [data for _, data in sent_by_hpack(steps)]
    assume(blocks)
    for which, edit in mutations:
        at = which % len(blocks)
        blocks[at] = edited(blocks[at], *edit)
    compare(blocks)
