"""Text to paths, prefixes, trees, dentries and dtabs, by ``grammar.lark``.

lark finds out *that* a text is wrong and what was acceptable; :func:`_locate` moves the place to the character that does
not fit where lark's tokens are coarser than that (inside of a path, an arrow or a number).
Bounds: ``MAX_TEXT`` characters, ``tree.MAX_NESTING`` levels of parentheses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from dtab.errors import DtabSyntaxError
from dtab.path import Path, Prefix
from dtab.table import Dentry, Dtab
from dtab.tree import EMPTY, FAIL, MAX_NESTING, NEG, Alt, Leaf, NameTree, Union, Weighted

MAX_TEXT = 1 << 20
_escape = re.compile(r"\\x([0-9A-Fa-f]{2})")
_label = re.compile(r"(?:[0-9A-Za-z_:.#$%\-]|\\x[0-9A-Fa-f]{2})")


def _element(text: str) -> bytes:
    if "\\" not in text:
        return text.encode("ascii")
    return _escape.sub(lambda match: chr(int(match[1], 16)), text).encode("latin-1")


def _elements(text: str) -> list[str]:
    return text[1:].split("/") if len(text) > 1 else []


class _Build(Transformer[Token, Any]):
    """Grammar rules to values."""

    def PATH(self, token: Token) -> Path:  # noqa: N802 - the terminal's name
        return Path([_element(text) for text in _elements(token)])

    def PREFIX(self, token: Token) -> tuple[Prefix, Token]:  # noqa: N802
        parts = [None if text == "*" else _element(text) for text in _elements(token)]
        return Prefix(parts), token

    def NUMBER(self, token: Token) -> float:  # noqa: N802
        return float(token)

    def leaf(self, parts: list[Any]) -> NameTree[Path]:
        return Leaf(parts[0])

    def fail(self, _: list[Any]) -> NameTree[Path]:
        return FAIL

    def neg(self, _: list[Any]) -> NameTree[Path]:
        return NEG

    def empty(self, _: list[Any]) -> NameTree[Path]:
        return EMPTY

    def group(self, parts: list[Any]) -> Any:
        return parts[0]

    def weighted(self, parts: list[Any]) -> Weighted[Path]:
        return Weighted(parts[0], parts[1])

    def unweighted(self, parts: list[Any]) -> Weighted[Path]:
        return Weighted(1.0, parts[0])

    def single(self, parts: list[Any]) -> Any:
        return parts[0].tree

    def union(self, parts: list[Any]) -> NameTree[Path]:
        return Union(tuple(parts))

    def alt(self, parts: list[Any]) -> NameTree[Path]:
        return Alt(tuple(parts))

    def dentry(self, parts: list[Any]) -> Dentry:
        prefix, token = parts[0]
        return Dentry(prefix, parts[1], line=token.line, column=token.column)

    def start_dtab(self, parts: list[Any]) -> Dtab:
        return Dtab(tuple([part for part in parts if isinstance(part, Dentry)]))

    def start_prefix(self, parts: list[Any]) -> Prefix:
        prefix: Prefix = parts[0][0]
        return prefix


@lru_cache(maxsize=1)
def _parser() -> Lark:
    grammar = (files("dtab") / "grammar.lark").read_text("utf-8")
    starts = ["start_path", "start_prefix", "start_tree", "start_dentry", "start_dtab"]
    return Lark(grammar, parser="lalr", lexer="contextual", start=starts, transformer=_Build(), maybe_placeholders=False)


def _read(text: str, start: str) -> Any:
    if len(text) > MAX_TEXT:
        raise DtabSyntaxError(text[:80], 80, f"at most {MAX_TEXT} characters", f"a text of {len(text)}")
    _check_nesting(text)
    try:
        value = _parser().parse(text, start=start)
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    return value[0] if start == "start_prefix" and isinstance(value, tuple) and len(value) == 2 else value


_parentheses = re.compile(r"[()]|#[^\n]*|/[0-9A-Za-z_:.#$%\-\\/*]*").finditer  # or what may hold one, or a "#"


def _check_nesting(text: str) -> None:
    """Refuse what would nest the parser's recursive consumers too deeply."""
    if text.count("(") <= MAX_NESTING:
        return
    depth = 0
    for found in _parentheses(text):
        depth += (found[0] == "(") - (found[0] == ")")
        if depth > MAX_NESTING:
            raise DtabSyntaxError(text, found.start(), f"at most {MAX_NESTING} levels of parentheses", "one more")


# What the parser would have accepted, in words; the first that applies is told.
_EXPECTED = (
    ("PATH", "LPAR", "simple"),
    ("__ANON_0", "__ANON_0", "'='"),
    ("STAR", "STAR", "'*'"),
    ("PREFIX", "PREFIX", "'/'"),
    ("PATH", "PATH", "'/'"),
    ("RPAR", "RPAR", "')'"),
    ("$END", "$END", "end of input"),
)


def _syntax_error(text: str, error: UnexpectedInput) -> DtabSyntaxError:
    if isinstance(error, UnexpectedToken):
        accepted = set(error.accepts or error.expected)
        at = len(text) if error.token.type == "$END" else int(error.token.start_pos or 0)
    elif isinstance(error, UnexpectedCharacters):
        accepted, at = set(error.allowed or ()), int(error.pos_in_stream or 0)
    else:
        assert isinstance(error, UnexpectedEOF)
        accepted, at = set(error.expected), len(text)
    if "RPAR" in accepted and text.count("(", 0, at) <= text.count(")", 0, at):
        accepted = {"$END"}  # the parser's tables do not know how many parentheses are open
    words = [word for first, second, word in _EXPECTED if first in accepted and second in accepted]
    at, expected = _locate(text, at, words[0] if words else "end of input")
    found = f"'{text[at]}'" if at < len(text) else "end of input"
    if expected == "weight":
        found = "'.'"
    return DtabSyntaxError(text, at, expected, found)


def _locate(text: str, at: int, expected: str) -> tuple[int, str]:
    """The character that does not fit, given where lark's token begins."""
    char = text[at : at + 1]
    if char == "=" and expected == "'='":
        return at + 1, "'>'"
    if char == ".":
        return (at, "number char") if text[at - 1 : at].isdigit() or "." in text[:at][-1:] else (at + 1, "weight")
    if char == "\\" or (char == "/" and (expected in ("'/'", "simple") or _in_path(text, at))):
        return _in_label(text, at)
    return at, expected


def _in_path(text: str, at: int) -> bool:
    """Whether a path ends right before ``at``, with an element."""
    before = text[:at]
    return bool(before) and (before[-1] == "*" or _label.fullmatch(before[-1]) is not None) and "/" in before


def _in_label(text: str, at: int) -> tuple[int, str]:
    """Walk through a path from ``at``, which is a slash or a backslash, to what is wrong in it."""
    while at < len(text):
        if text[at] == "/" or _label.match(text, at):
            at += 4 if text[at] == "\\" else 1
        elif text[at] == "\\":
            if text[at + 1 : at + 2] != "x":
                return at + 1, "'x'"
            at += 2
            return (at + 1 if text[at : at + 1] in _HEX else at), "hex char"
        else:
            break
    return at, "label char"


_HEX = tuple("0123456789abcdefABCDEF")


def read_path(text: str) -> Path:
    """A path. Raises :class:`DtabSyntaxError`, as all readers here."""
    path: Path = _read(text, "start_path")
    return path


def read_prefix(text: str) -> Prefix:
    """A prefix, in which elements may be ``*``."""
    prefix: Prefix = _read(text, "start_prefix")
    return prefix


def read_tree(text: str) -> NameTree[Path]:
    """A name tree of paths."""
    tree: NameTree[Path] = _read(text, "start_tree")
    return tree


def read_dentry(text: str) -> Dentry:
    """One dentry."""
    dentry: Dentry = _read(text, "start_dentry")
    return dentry


def read_dtab(text: str) -> Dtab:
    """A dtab. Each dentry knows its line and column in ``text``."""
    table: Dtab = _read(text, "start_dtab")
    return table
