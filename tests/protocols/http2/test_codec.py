"""The rules of header blocks, one by one (RFC 7541, RFC 9113 §8.2.1)."""

from __future__ import annotations

import hpack
import pytest

from protocols.http2 import codec
from protocols.http2.codec import Decoder, Encoder, HeaderCodecError, Sensitive
from protocols.http2.tables import coded

GET = b"\x82"
STATUS_200 = b"\x88"


def literal(name: bytes, value: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + coded(len(name), 7, 0) + name + coded(len(value), 7, 0) + value


def pairs(block: codec.Block) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in block.fields]


# -- decoder: representations ---------------------------------------------------------------------------------


def test_examples_of_rfc_7541_appendix_c_4() -> None:
    decoder = Decoder()
    assert pairs(decoder.decode(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff"))) == [
        (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com"),
    ]  # fmt: skip
    assert pairs(decoder.decode(bytes.fromhex("828684be5886a8eb10649cbf")))[3:] == [
        (b":authority", b"www.example.com"), (b"cache-control", b"no-cache"),
    ]  # fmt: skip
    assert pairs(decoder.decode(bytes.fromhex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"))) == [
        (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ]  # fmt: skip


def test_the_empty_block() -> None:
    assert Decoder().decode(b"").fields == ()


def test_never_indexed_literals_stay_so() -> None:
    block = Decoder().decode(literal(b"x-token", b"s3cret", 0x10))
    (field,) = block.fields
    assert type(field) is Sensitive
    assert tuple(field) == (b"x-token", b"s3cret")
    encoder = Encoder()
    for _ in range(3):
        assert encoder.encode(block.fields) == literal(b"x-token", b"s3cret", 0x10)
    assert encoder.encode(block.fields, shared=True) == literal(b"x-token", b"s3cret", 0x10)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x80", "index 0"),
        (b"\xbe", "not in the table"),
        (b"\xff\x00", "not in the table"),
        (b"\x7e\x01a", "not in the table"),
        (b"\x0f\x80\x01\x01a", "not in the table"),
        (b"\xff", "ends within"),
        (b"\xff\x80", "ends within"),
        (b"\x40", "ends within"),
        (b"\x04", "ends within"),
        (b"\x04\x05abcd", "ends within"),
        (b"\x00\x05abcd", "ends within"),
        (b"\x04\x7f\x80\x01" + b"a" * 254, "ends within"),
        (b"\xff\x80\x80\x80\x80\x10", "too large"),
        (b"\xff\x80\x80\x80\x80\x80\x00", "too large"),
        (b"\x04\x7f\xff\xff\xff\xff\x7f", "too large"),
        (b"\x04\x81\x18", "padding"),
        (b"\x04\x84\xff\xff\xff\xff", "EOS"),
        (GET + b"\x20", "size update"),
        (b"\x20\x20\x20", "size update"),
        (b"\x3f\xe2\x1f", "we allow 4096"),
    ],
)
def test_what_leaves_the_table_undefined(data: bytes, why: str) -> None:
    with pytest.raises(HeaderCodecError, match=why):
        Decoder().decode(data)


def test_every_cut_of_a_literal_is_an_error() -> None:
    data = hpack.Encoder().encode([(b"x-name", b"v" * 200), (b"other", b"text")])
    whole = Decoder()
    whole.decode(data)  # with warm memos a cut must not be taken for something known
    whole.decode(data)
    starts = {0, len(hpack.Encoder().encode([(b"x-name", b"v" * 200)]))}
    for cut in set(range(len(data))) - starts:
        for decoder in (Decoder(), whole):
            with pytest.raises(HeaderCodecError):
                decoder.decode(data[:cut])


# -- decoder: the table ---------------------------------------------------------------------------------------


def test_the_table_begins_with_the_default_whatever_we_announce() -> None:
    decoder = Decoder(max_table_size=65536)
    for at in range(100):
        decoder.decode(literal(b"n%03d" % at, b"v" * 64, 0x40))
    assert len(decoder._table) == 4096 // 100
    small = Decoder(max_table_size=0)  # the peer has not seen our SETTINGS yet
    small.decode(literal(b"n", b"v", 0x40))
    assert pairs(small.decode(b"\xbe")) == [(b"n", b"v")]
    small.decode(b"\x20")
    with pytest.raises(HeaderCodecError):
        small.decode(b"\xbe")


def test_size_updates_evict_the_oldest() -> None:
    decoder = Decoder()
    decoder.decode(b"".join(literal(name, b"1", 0x40) for name in (b"a", b"b", b"c")))
    assert pairs(decoder.decode(coded(68, 5, 0x20) + b"\xbe\xbf")) == [(b"c", b"1"), (b"b", b"1")]
    with pytest.raises(HeaderCodecError):
        decoder.decode(b"\xc0")


def test_an_entry_larger_than_the_table_empties_it() -> None:
    decoder = Decoder()
    decoder.decode(literal(b"a", b"1", 0x40))
    assert pairs(decoder.decode(literal(b"b", b"x" * 5000, 0x40))) == [(b"b", b"x" * 5000)]
    assert decoder._table == []
    assert decoder._size == 0


def test_a_name_that_its_own_insertion_evicts() -> None:
    """RFC 7541 §4.4: the name may refer to an entry that has to go."""
    decoder = Decoder()
    decoder.decode(coded(40, 5, 0x20) + literal(b"name", b"1", 0x40))
    assert pairs(decoder.decode(b"\x7e\x011\xbe")) == [(b"name", b"1"), (b"name", b"1")]


# -- decoder: memo --------------------------------------------------------------------------------------------


def test_a_repeated_block_is_the_same_object_until_the_table_changes() -> None:
    decoder = Decoder()
    data = GET + literal(b"a", b"1")
    first, second = decoder.decode(data), decoder.decode(data)
    assert not first.shared
    assert second.shared
    assert decoder.decode(data) is second
    decoder.decode(literal(b"b", b"1", 0x40))
    assert decoder.decode(data) is not second
    assert decoder.decode(data).fields == second.fields


def test_an_index_means_what_it_means_now() -> None:
    decoder = Decoder()
    decoder.decode(literal(b"a", b"1", 0x40))
    for _ in range(3):
        assert pairs(decoder.decode(b"\xbe")) == [(b"a", b"1")]
    decoder.decode(literal(b"b", b"2", 0x40))
    assert pairs(decoder.decode(b"\xbe")) == [(b"b", b"2")]
    decoder.decode(b"\x20")
    with pytest.raises(HeaderCodecError):
        decoder.decode(b"\xbe")


def test_memos_are_bounded_and_unique_values_do_not_fill_them() -> None:
    decoder = Decoder()
    for at in range(3000):
        decoder.decode(literal(b"x-request-id", b"%064d" % at) + literal(b"x-%d" % at, b""))
    assert not decoder._blocks.young
    assert len(decoder._values.young) <= 2  # the empty value came again, of course
    assert len(decoder._names.young) <= 2
    for at in range(1000):
        for _ in range(2):
            decoder.decode(literal(b"x-%d" % at, b"%064d" % at))
    assert len(decoder._blocks.young) + len(decoder._blocks._old) <= 2 * codec.MEMO_BLOCKS
    for memo in (decoder._values, decoder._names):
        assert len(memo.young) + len(memo._old) <= 2 * codec.MEMO_STRINGS
    long = literal(b"x", b"a" * 5000)
    assert not any(decoder.decode(long).shared for _ in range(3))


def test_what_is_in_use_survives_the_generations() -> None:
    decoder = Decoder()
    useful = literal(b"useful", b"block")
    decoder.decode(useful)
    block = decoder.decode(useful)
    for at in range(10 * codec.MEMO_BLOCKS):
        for _ in range(2):
            decoder.decode(literal(b"n", b"%d" % at))
        assert decoder.decode(useful) is block


# -- decoder: malformed messages and limits -------------------------------------------------------------------


BAD_NAMES = (b"", b"Upper", b"a b", b"a\x00", b"a\x7f", b"a\xe9", b":", b"a:b", b"a\n")
BAD_VALUES = (b"\x00", b"b\rc", b"b\nc", b" b", b"b ", b"\tb", b"b\t", b" ", b"b\n")


@pytest.mark.parametrize(("name", "value"), [*((name, b"") for name in BAD_NAMES), *((b"a", value) for value in BAD_VALUES)])
@pytest.mark.parametrize("flags", [0x00, 0x10, 0x40])
def test_malformed_fields_mark_the_block_each_time(name: bytes, value: bytes, flags: int) -> None:
    for data in (literal(name, value, flags), hpack.Encoder().encode([(name, value)])):
        decoder = Decoder()
        for _ in range(4):
            block = decoder.decode(data + STATUS_200)
            assert block.malformed is not None
            assert pairs(block) == [(name, value), (b":status", b"200")]
            assert not decoder._suspect
        assert decoder.decode(GET).malformed is None


@pytest.mark.parametrize("value", [b"", b"a b", b"a\tb", b"\x01", b"\x7f", b"\xff", b'"quoted, text"', b"a" * 300])
def test_lawful_values(value: bytes) -> None:
    assert Decoder().decode(literal(b"name", value)).malformed is None


def test_a_malformed_entry_marks_every_block_that_uses_it() -> None:
    decoder = Decoder()
    decoder.decode(literal(b"Bad", b"1", 0x40) + literal(b"good", b"1", 0x40))
    assert decoder.decode(b"\xbe").malformed is None
    assert decoder.decode(b"\xbf").malformed is not None
    for _ in range(4):
        assert decoder.decode(b"\x0f\x30\x01v").malformed is not None  # its name with another value


def test_a_list_that_is_too_large_keeps_the_table_right() -> None:
    decoder = Decoder(max_list_size=200)
    data = literal(b"a", b"1", 0x40) + literal(b"big", b"x" * 150, 0x40) + literal(b"b", b"2", 0x40)
    block = decoder.decode(data)
    assert block.too_large
    assert pairs(block) == [(b"a", b"1")]
    after = decoder.decode(b"\xc0\xbe")
    assert pairs(after) == [(b"a", b"1"), (b"b", b"2")]
    assert not after.too_large


def test_the_limits_are_exact() -> None:
    exactly = literal(b"a", b"x" * 67)  # 100 bytes
    assert not Decoder(max_list_size=100).decode(exactly).too_large
    assert Decoder(max_list_size=99).decode(exactly).too_large
    assert not Decoder(max_fields=3).decode(GET * 3).too_large
    cut = Decoder(max_fields=3).decode(GET * 4)
    assert cut.too_large
    assert len(cut.fields) == 3
    assert cut.malformed is None


def test_many_references_to_a_large_entry_cost_little() -> None:
    decoder = Decoder()
    decoder.decode(literal(b"a", b"x" * 4000, 0x40))
    block = decoder.decode(b"\xbe" * 20_000)
    assert block.too_large
    assert len(block.fields) == 65536 // 4033


def test_a_few_references_to_a_large_entry_are_counted_too() -> None:
    decoder = Decoder()
    decoder.decode(literal(b"a", b"x" * 4000, 0x40))
    assert not decoder.decode(b"\xbe" * 16).too_large
    assert decoder.decode(b"\xbe" * 17).too_large


# -- encoder --------------------------------------------------------------------------------------------------


def test_pairs_seen_twice_are_indexed_and_unique_values_are_not() -> None:
    encoder = Encoder()
    constant = ((b":method", b"GET"), (b"user-agent", b"grpc-go/1.60"))
    sizes = [len(encoder.encode((*constant, (b"x-request-id", b"%032d" % at)))) for at in range(20)]
    assert sizes[-1] == 1 + 1 + 2 + 1 + 32  # method, user agent, name by index (two bytes), length and value
    assert encoder._table == [(b"user-agent", b"grpc-go/1.60"), (b"x-request-id", b"%032d" % 1)]


def test_nothing_is_evicted_and_the_table_is_bounded() -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    for at in range(400):
        for _ in range(2):
            fields = ((b"name-%d" % at, b"value"), (b":path", b"/%d" % at))
            assert list(map(tuple, decoder.decode(encoder.encode(fields), raw=True))) == list(fields)
    assert encoder._table[1] == (b":path", b"/0") or encoder._table[0] == (b":path", b"/0")
    assert encoder._size <= 4096
    assert len(encoder._pairs) <= 61 + len(encoder._table)
    assert len(encoder._names) <= 61 + len(encoder._table)


@pytest.mark.parametrize("shared", [False, True])
def test_timeouts_do_not_fill_the_table(shared: bool) -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    sizes = []
    for at in [*range(1000, 1200), 1100, 1100]:
        fields = ((b":path", b"/s/M"), (b"grpc-timeout", b"%dm" % at))
        block = encoder.encode(fields, shared=shared)
        sizes.append(len(block))
        assert tuple(decoder.decode(block, raw=True)) == fields
    assert set(sizes[3:]) <= {8, 9}, "the name is indexed, the pairs are not"


def test_a_shared_tuple_is_encoded_once_the_table_has_settled() -> None:
    encoder = Encoder()
    fields = ((b":path", b"/a"), (b"x-custom", b"1"))
    first = encoder.encode(fields, shared=True)
    second = encoder.encode(fields, shared=True)
    assert len(second) == 2 < len(first)
    assert encoder.encode(fields, shared=True) is second
    encoder.encode(((b"x-other", b"1"),), shared=True)  # shifts the indexes
    assert encoder.encode(fields, shared=True) != second
    assert len(encoder.encode(fields, shared=True)) == 2


def test_the_memo_of_shared_tuples_is_bounded_and_keeps_them_alive() -> None:
    encoder = Encoder(max_table_size=0)
    tuples = [((b"name", b"%d" % at),) for at in range(1000)]
    for fields in tuples:
        encoder.encode(fields, shared=True)
    memo = encoder._blocks
    assert len(memo.young) + len(memo._old) <= 2 * codec.MEMO_BLOCKS
    assert all(id(fields) == key for key, (fields, _) in memo.young.items())


@pytest.mark.parametrize("name", [b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"])
def test_credentials_and_short_cookies_are_never_indexed(name: bytes) -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    short = ((name, b"a=short"), (b"x", b"1"))
    for at in range(6):
        if at == 3:
            long = ((name, b"a=" + b"long" * 10),)
            for _ in range(3):
                encoder_bytes = encoder.encode(long)
                decoder.decode(encoder_bytes, raw=True)
        block = decoder.decode(encoder.encode(short, shared=at > 4), raw=True)
        assert type(next(iter(block))) is hpack.NeverIndexedHeaderTuple
    assert all(field[0] not in (b"authorization", b"proxy-authorization") for field in encoder._table)
    assert all(field != (name, b"a=short") for field in encoder._table)


def test_a_short_cookie_after_a_long_one() -> None:
    encoder = Encoder()
    encoder.encode(((b"cookie", b"session=0123456789abcdef"),))
    assert encoder.encode(((b"cookie", b"a=short"),)) == b"\x1f\x11\x07a=short"


def test_long_cookies_are_indexed_like_anything_else() -> None:
    encoder = Encoder()
    long = ((b"cookie", b"session=0123456789abcdef"),)
    sizes = [len(encoder.encode(long)) for _ in range(3)]
    assert sizes[-1] == 1


def test_a_resize_is_announced_once_smallest_first() -> None:
    encoder = Encoder()
    encoder.resize(4096)
    assert encoder.encode(((b":method", b"GET"),)) == GET
    encoder.resize(100)
    encoder.resize(50)
    encoder.resize(1000)
    assert encoder.encode(((b":method", b"GET"),)) == coded(50, 5, 0x20) + coded(1000, 5, 0x20) + GET
    assert encoder.encode(((b":method", b"GET"),)) == GET
    encoder.resize(0)
    assert encoder.encode(((b":method", b"GET"),), shared=True) == b"\x20" + GET
    assert encoder.encode(((b":method", b"GET"),), shared=True) == GET
    encoder.resize(1 << 30)
    assert encoder.encode(()) == coded(4096, 5, 0x20)


def test_what_survives_a_resize_is_still_used() -> None:
    encoder = Encoder()
    for name in (b"old", b"new"):
        encoder.encode(((name, b"1"),), shared=True)
    encoder.resize(40)
    assert encoder._table == [(b"new", b"1")]
    assert encoder.encode(((b"new", b"1"), (b"new", b"2"))) == coded(40, 5, 0x20) + b"\xbe" + b"\x0f\x2f\x012"


def test_a_resize_back_and_forth_between_blocks_still_evicts() -> None:
    encoder, decoder = Encoder(), Decoder()
    fields = ((b"x-custom", b"1"),)
    for _ in range(3):
        decoder.decode(encoder.encode(fields))
    assert len(encoder._table) == 1
    encoder.resize(0)
    encoder.resize(4096)
    block = encoder.encode(fields)
    assert block[:1] == b"\x20"
    assert decoder.decode(block).fields == fields
    assert decoder._table == encoder._table
