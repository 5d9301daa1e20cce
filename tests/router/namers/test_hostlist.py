"""The text of an address file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.namers.hostlist import MAX_BYTES, Entry, HostListError, parse


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (b"", ()),
        (b"\n  \n# nothing\n", ()),
        (b"127.0.0.1 8080", (Entry("127.0.0.1", 8080),)),
        (b"127.1 8080\r\n", (Entry("127.1", 8080),)),
        (b"\t::1   8080  \n", (Entry("::1", 8080),)),
        (b"a.example 80 # why\n", (Entry("a.example", 80),)),
        (b"a 80 * 0.23\nb 81*2\n", (Entry("a", 80, 0.23), Entry("b", 81, 2.0))),
        (b"a 80 * 0\n", (Entry("a", 80, 0.0),)),
    ],
)
def test_reads(text, entries):
    assert parse(text) == entries


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"a", 1, "expected `host port`"),
        (b"ok 80\n\na 80 81", 3, "found `a 80 81`"),
        (b"a 80 * ", 1, "expected"),
        (b"a 80 * x", 1, "a weight is a number"),
        (b"a 80 * -1", 1, "a weight is a number"),
        (b"a 80 * inf", 1, "a weight is a number"),
        (b"a 80 * nan", 1, "a weight is a number"),
        (b"a 0", 1, "a port is a number from 1 to 65535, not `0`"),
        (b"a 65536", 1, "a port"),
        (b"a http", 1, "a port"),
        ("a \u0661".encode(), 1, "a port"),
        (b"a \xff", 1, "a port"),
        (b"x" * (MAX_BYTES + 1), 0, "more than"),
    ],
)
def test_refuses_with_line_and_reason(text, line, words):
    with pytest.raises(HostListError) as refused:
        parse(text)
    assert refused.value.line == line
    assert words in str(refused.value)
    assert len(str(refused.value)) < 300


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data):
    try:
        for entry in parse(data):
            assert 0 < entry.port < 65536
            assert entry.weight >= 0
    except HostListError:
        pass
