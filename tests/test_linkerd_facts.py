"""Every test that docs/linkerd-facts.md names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
TEXT = (TOP / "docs" / "linkerd-facts.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
ROWS = [line.split("|") for line in TEXT.splitlines() if re.match(r"\| \d", line)]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    tree = ast.parse((TOP / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_fact_is_pinned() -> None:
    assert len(ROWS) >= 30
    for row in ROWS:
        assert len(row) == 7, row
        assert re.search(r"`tests/[\w/]+\.py::\w+`", row[5]), row
