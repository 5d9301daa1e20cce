"""Where faults of a text are: to the character, in the words of the field, and never at odds with the grammar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dtab as d
from dtab.fault import locate

READERS: dict[str, Callable[[str], Any]] = {
    "path": d.read_path, "prefix": d.read_prefix, "tree": d.read_tree, "dentry": d.read_dentry, "dtab": d.read_dtab,
}  # fmt: skip
PIECES = [
    "/", "a", "/foo", "/a/b", "*", "/*", "=>", "=", ">", ";", "|", "&", "(", ")", "!", "~", "$", ".", "0.5", "7*", "1.2.3",
    " ", "\n", "#", "# c\n", "\\x", "\\x41", "\\", "\\x4", "x", "\u00a0", "\u2003", "é", "5.", "/$/inet/80", "/a => /b", ",",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("path", "", "'/' expected but end of input found at '[]'"),
        ("path", ".", "'/' expected but '.' found at '[.]'"),
        ("path", "\\x41", "'/' expected but '\\' found at '[\\]x41'"),
        ("path", "/foo/", "label char expected but end of input found at '/foo/[]'"),
        ("path", "/foo//bar", "label char expected but '/' found at '/foo/[/]bar'"),
        ("path", "/foo/ bar", "label char expected but ' ' found at '/foo/[ ]bar'"),
        ("path", "/ foo", "end of input expected but 'f' found at '/ [f]oo'"),
        ("path", "/\\X41", "'x' expected but 'X' found at '/\\[X]41'"),
        ("path", "/\\x", "hex char expected but end of input found at '/\\x[]'"),
        ("path", "/\\x4", "hex char expected but end of input found at '/\\x4[]'"),
        ("path", "/\\xg0", "hex char expected but 'g' found at '/\\x[g]0'"),
        ("path", "/a#b c", "end of input expected but 'c' found at '/a#b [c]'"),
        ("path", "/caf\u00e9", "end of input expected but '\u00e9' found at '/caf[\u00e9]'"),
        ("prefix", "/a/*b", "end of input expected but 'b' found at '/a/*[b]'"),
        ("prefix", "/a*", "end of input expected but '*' found at '/a[*]'"),
        ("prefix", "/*/", "label char expected but end of input found at '/*/[]'"),
        ("tree", "", "simple expected but end of input found at '[]'"),
        ("tree", "/a |", "simple expected but end of input found at '/a |[]'"),
        ("tree", "/a | | /b", "simple expected but '|' found at '/a | [|] /b'"),
        ("tree", "0.5 /a", "'*' expected but '/' found at '0.5 [/]a'"),
        ("tree", "0.5 * 0.5 * /a", "simple expected but '0' found at '0.5 * [0].5 * /a'"),
        ("tree", ". * /a", "weight expected but '.' found at '.[ ]* /a'"),
        ("tree", "1..2 * /a", "number char expected but '.' found at '1.[.]2 * /a'"),
        ("tree", "-1 * /a", "simple expected but '-' found at '[-]1 * /a'"),
        ("tree", "(/a", "')' expected but end of input found at '(/a[]'"),
        ("tree", "/a)", "end of input expected but ')' found at '/a[)]'"),
        ("tree", "$foo", "end of input expected but 'f' found at '$[f]oo'"),
        ("tree", "/a/*", "label char expected but '*' found at '/a/[*]'"),
        ("dentry", "/a = > /b", "'>' expected but ' ' found at '/a =[ ]> /b'"),
        ("dentry", "/a /b", "'=' expected but '/' found at '/a [/]b'"),
        ("dentry", "/a => ", "simple expected but end of input found at '/a => []'"),
        ("dtab", ";", "'/' expected but ';' found at '[;]'"),
        ("dtab", "/a=>/b;;", "'/' expected but ';' found at '/a=>/b;[;]'"),
        ("dtab", "/a=>/b,/c=>/d", "end of input expected but ',' found at '/a=>/b[,]/c=>/d'"),
        ("dtab", "/a => /b\n/c => /d", "end of input expected but '/' found at '/a => /b\n[/]c => /d'"),
        ("dtab", "/a #=> /b", "'=' expected but end of input found at '/a #=> /b[]'"),
    ],
)
def test_a_fault_is_told_to_the_character(kind: str, text: str, message: str) -> None:
    with pytest.raises(d.DtabSyntaxError) as caught:
        READERS[kind](text)
    assert str(caught.value) == message


@settings(max_examples=400)
@given(st.sampled_from(sorted(READERS)), texts)
def test_the_walk_and_the_grammar_agree(kind: str, text: str) -> None:
    walked_through = locate(text, kind)
    whole = walked_through.offset == len(text) and walked_through.expected == "end of input"
    try:
        READERS[kind](text)
    except d.DtabSyntaxError:
        assert not whole
    else:
        assert whole


@settings(max_examples=200)
@given(st.sampled_from(sorted(READERS)), texts, texts)
def test_a_fault_depends_on_nothing_behind_it(kind: str, text: str, tail: str) -> None:
    error = locate(text, kind)
    if error.offset < len(text) - 1:
        again = locate(text[: error.offset + 1] + tail, kind)
        assert (again.offset, again.expected, again.found) == (error.offset, error.expected, error.found)
