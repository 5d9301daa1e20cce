"""YAML (and JSON) text to nodes that know their place: PyYAML's node tree, read with YAML 1.2's idea of plain values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from router.config.errors import Problem

MAX_BYTES = 4 << 20
MAX_NODES = 200_000
MAX_DEPTH = 100

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
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


def text_place(node: Any, source: str, line: int, column: int) -> tuple[int, int]:
    """Where in the file line ``line``, column ``column`` of a scalar's text stands (both from 1).

    Exact for literal blocks and for one-line plain and quoted scalars; else the beginning of the scalar.
    """
    start_line, start_column = place(node)
    if node.style in ("|", ">"):
        lines = source.splitlines()
        at = start_line + line  # the block begins in the line after its indicator
        if node.style == ">" or not 0 < at <= len(lines):
            return start_line, start_column
        first = lines[start_line] if start_line < len(lines) else ""
        indent = len(first) - len(first.lstrip(" "))
        return at, column + indent
    if line == 1 and node.start_mark.line == node.end_mark.line:
        return start_line, start_column + column - 1 + bool(node.style)
    return start_line, start_column
