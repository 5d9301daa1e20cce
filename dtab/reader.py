"""Text to paths, prefixes, trees, dentries and dtabs, by ``grammar.lark``.

lark finds out *that* a text is wrong, :func:`dtab.fault.locate` at which character, and what would have been right there.
Bounds: ``MAX_TEXT`` characters, ``tree.MAX_NESTING`` levels of parentheses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput

from dtab.errors import DtabSyntaxError
from dtab.fault import locate
from dtab.path import Path, Prefix
from dtab.table import Dentry, Dtab
from dtab.tree import EMPTY, FAIL, MAX_NESTING, NEG, Alt, Leaf, NameTree, Union, Weighted

MAX_TEXT = 1 << 20
_escape = re.compile(r"\\x([0-9A-Fa-f]{2})")


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
    except UnexpectedInput:
        raise locate(text, start.removeprefix("start_")) from None
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
