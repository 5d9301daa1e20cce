"""YAML (and JSON) text to nodes that know their place: PyYAML's node tree, read with YAML 1.2's idea of plain values."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from router.config.errors import Problem

MAX_BYTES = 4 << 20
MAX_NODES = 200_000
MAX_DEPTH = 100

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_BLANK: Any = re.compile(r"\s*").match
_QUOTED_BLANK: Any = re.compile(r"(?:\s|\\(?:[nrt]|(?=\s)))*").match
_PROPERTIES: Any = re.compile(r"(?:[&!]\S*\s+(?:#[^\r\n]*\s+)*)*").match  # an anchor, a tag, comments after them
_INT = re.compile(r"[-+]?[0-9]+").fullmatch
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?").fullmatch
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = {"", "~", "null", "Null", "NULL"}


def compose(text: str) -> tuple[Any, list[Problem]]:
    """The root node, or None and the problems that prevent one."""
    if len(text) > MAX_BYTES:
        return None, [Problem(f"the file is larger than {MAX_BYTES} bytes")]
    try:
        deep = _too_deep(text)
        if deep is not None:
            return None, [Problem(f"nested more than {MAX_DEPTH} levels deep", deep.line + 1, deep.column + 1)]
        root = yaml.compose(text, Loader=_Loader)
    except UnicodeEncodeError as error:
        return None, [Problem(f"not Unicode text: {error.reason} at character {error.start}")]
    except yaml.YAMLError as error:
        if isinstance(error, yaml.reader.ReaderError):
            before = text.partition(chr(error.character))[0]  # libyaml's position counts bytes
            what = f"the character U+{error.character:04X} is not allowed"
            return None, [Problem(f"not YAML: {what}", before.count("\n") + 1, len(before) - before.rfind("\n"))]
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        return None, [Problem(f"not YAML: {getattr(error, 'problem', None) or error}", line, column)]
    if root is None:
        return None, [Problem("the file is empty", 1, 1)]
    if not isinstance(root, yaml.MappingNode):
        return None, [Problem("a configuration is a mapping of keys such as 'routers'", 1, 1)]
    if _count(root) > MAX_NODES:
        return None, [Problem("the file is too large once its aliases are expanded", 1, 1)]
    return root, []


def _too_deep(text: str) -> Any:
    """The mark where nesting exceeds MAX_DEPTH, or None. Composing recurses in C: deep nesting would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return event.start_mark
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


def _count(root: Any) -> int:
    """Nodes as often as they are referred to; stops counting above the limit."""
    stack, count = [root], 0
    while stack and count <= MAX_NODES:
        node = stack.pop()
        count += 1
        if isinstance(node, yaml.MappingNode):
            stack += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            stack += node.value
    return count


def is_mapping(node: Any) -> bool:
    """Whether the node is a mapping."""
    return isinstance(node, yaml.MappingNode)


def is_sequence(node: Any) -> bool:
    """Whether the node is a list."""
    return isinstance(node, yaml.SequenceNode)


def place(node: Any) -> tuple[int, int]:
    """Line and column, from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def entries(node: Any) -> Iterator[tuple[str, Any, Any]]:
    """(key, key's node, value's node) of a mapping, in order, duplicates included."""
    for key, value in node.value:
        yield (key.value if isinstance(key, yaml.ScalarNode) else "?"), key, value


def items(node: Any) -> list[Any]:
    """The nodes of a list."""
    return list(node.value)


def scalar(node: Any) -> Any:
    """The value of a scalar: str, int, float, bool or None; or the node itself where it is none."""
    if not isinstance(node, yaml.ScalarNode):
        return node
    text: str = node.value
    if node.style:
        return text
    if text in _NULLS:
        return None
    if text in _WORDS:
        return _WORDS[text]
    if _INT(text) and len(text) <= 18:  # longer ones fit no key, and int() refuses thousands of digits
        return int(text)
    return float(text) if _FLOAT(text) else text


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if is_mapping(value):
        return "a mapping"
    if is_sequence(value):
        return "a list"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)


def text_places(node: Any, source: str) -> Callable[[int, int], tuple[int, int]]:
    """A function from line and column of a scalar's text to line and column of the file (all from 1).

    Folding, indentation and chomping change blanks and line ends only, so the other characters are paired with those of
    the file in order. Where an escape defeats that, the answer is the scalar's beginning.
    """
    text: str = node.value
    offsets = [at for at, char in enumerate(text) if not char.isspace()]
    origins = _origins(node, source, [text[at] for at in offsets])
    rows = [0] + [at + 1 for at, char in enumerate(text) if char == "\n"]
    starts = [0] + [found.end() for found in _BREAK.finditer(source)]

    def find(line: int, column: int) -> tuple[int, int]:
        if not origins:
            return place(node)
        nth = bisect_left(offsets, rows[line - 1] + column - 1)
        at = origins[nth] if nth < len(origins) else origins[-1] + 1
        row = bisect_right(starts, at)
        return row, at - starts[row - 1] + 1

    return find


def _origins(node: Any, source: str, chars: list[str]) -> list[int]:
    """Where in the file each of a scalar's visible characters stands; empty where they cannot be paired."""
    style, end = node.style, node.end_mark.index
    at = _PROPERTIES(source, node.start_mark.index).end()
    if style in ("|", ">"):
        found = _BREAK.search(source, at)
        at = found.end() if found is not None else end
    elif style:
        at += 1
    blank = _QUOTED_BLANK if style == '"' else _BLANK
    origins = []
    for char in chars:
        at = blank(source, at).end()
        origins.append(at)
        escaped = source[at : at + 2] == "''" if style == "'" else style == '"' and source[at : at + 1] == "\\"
        at += escaped
        if at >= end or source[at] != char:
            return []
        at += 1
    return origins
