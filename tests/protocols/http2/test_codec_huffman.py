"""The Huffman decoder against hpack's, in both of its ways."""

from __future__ import annotations

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import example, given
from hypothesis import strategies as st

from protocols.http2 import huffman
from protocols.http2.huffman import HuffmanError, huffman_decode

encode = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126)).map(str.encode)


def outcome(data: bytes) -> bytes | None:
    try:
        return huffman_decode(data)
    except HuffmanError:
        return None


def expected(data: bytes) -> bytes | None:
    try:
        return bytes(decode_huffman(data))
    except HPACKDecodingError:
        return None


@given(st.binary() | printable)
def test_what_is_encoded_comes_back(text: bytes) -> None:
    assert huffman_decode(encode(text)) == text
    assert huffman._walk(encode(text)) == text


@given(st.binary(max_size=12))
@example(b"")
@example(b"\xff")
@example(b"\xff\xff\xff\xff")
def test_any_bytes_are_judged_as_by_hpack(data: bytes) -> None:
    assert outcome(data) == expected(data)


@given(printable, st.integers(0, 15), st.integers(0, 0xFFFF))
def test_any_ending_is_judged_as_by_hpack(text: bytes, cut: int, tail: int) -> None:
    """Every end of a string matters: the padding is checked by what follows it."""
    bits = int.from_bytes(b"\x01" + encode(text) + b"\xff\xff", "big") >> cut
    data = ((bits << 16) | tail).to_bytes(bits.bit_length() // 8 + 3, "big").lstrip(b"\x00")[1:]
    assert outcome(data) == expected(data)


@pytest.mark.parametrize("symbol", range(256))
def test_each_symbol_with_each_padding(symbol: int) -> None:
    for before in range(8):
        text = b"0" * before + bytes((symbol,))  # a zero has five bits, so that all phases occur
        data = encode(text)
        assert outcome(data) == text
        assert outcome(data + b"\xff") is None
        assert outcome(data[:-1] + bytes((data[-1] ^ 1,))) == expected(data[:-1] + bytes((data[-1] ^ 1,)))


@pytest.mark.parametrize("pair", sorted(huffman._PADDINGS))
@pytest.mark.parametrize("rare", [b"\\", b"\xff", b"\\0000000", b"\x01"])
def test_a_long_word_behind_what_looks_like_the_end(pair: bytes, rare: bytes) -> None:
    assert huffman_decode(encode(pair + rare)) == pair + rare
    assert huffman_decode(encode(b"0" + pair)) == b"0" + pair


def test_ordinary_text_takes_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huffman, "_walk", lambda data: pytest.fail("walked"))
    text = bytes(set(range(32, 127)) - {0x5C})
    for length in range(1, 16):
        assert huffman_decode(encode(text * length)) == text * length


def test_eos_and_padding_are_named() -> None:
    with pytest.raises(HuffmanError, match="EOS"):
        huffman_decode(b"\xff\xff\xff\xfc")
    with pytest.raises(HuffmanError, match="padding"):
        huffman_decode(encode(b"a") + b"\xff")
    with pytest.raises(HuffmanError, match="padding"):
        huffman_decode(b"\x18")  # "a" and three zero bits


def test_a_failure_leaves_nothing_behind() -> None:
    for bad in (b"\xff\xff\xff\xff\xff", b"\x00\x00\x00\x01", b"\xfe"):
        with pytest.raises(HuffmanError):
            huffman_decode(bad)
        assert huffman_decode(encode(b"next")) == b"next"
