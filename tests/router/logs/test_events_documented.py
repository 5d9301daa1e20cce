"""The table of events in docs/operations.md is the events of the code, with their levels."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from router.admin.control import LOGGERS

ROOT = Path(__file__).parents[3]
LEVELS = {"emit": "info", "warn": "warning", "fail": "error"}
APART = {"log", "log_dropped", "log_failed", "log_suppressed", "python_warning", "object_crashed", "thread_crashed"}
"""Made in router/logs itself, by other means."""


def emitted() -> dict[str, set[str]]:
    """Levels, by the names of events."""
    found: dict[str, set[str]] = {}
    for path in [*(ROOT / "router").rglob("*.py"), *(ROOT / "protocols").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in LEVELS and node.args and isinstance(node.args[0], ast.Constant):
                    found.setdefault(node.args[0].value, set()).add(LEVELS[called])
                elif called == "log_event" and isinstance(node.args[1], ast.Constant):
                    assert isinstance(node.args[0], ast.Attribute)
                    found.setdefault(node.args[1].value, set()).add(node.args[0].attr.lower())
                elif called == "tell":  # of announce.problems
                    found |= {"config_warning": {"warning"}, "config_refused": {"error"}}
    return found


def documented() -> dict[str, set[str]]:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8").partition("## Events")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?`) \| (\w+) \|", page, re.MULTILINE)
    return {name: {level} for names, level in rows for name in re.findall(r"`(\w+)`", names)}


def test_each_event_is_in_the_table_and_the_table_has_no_others() -> None:
    """A new event wants a row there, and its first word a logger in router/admin/control.py."""
    assert {name: levels for name, levels in documented().items() if name not in APART} == emitted()
    assert documented().keys() >= APART


def test_each_has_a_logger_whose_level_can_be_set() -> None:
    first_words = {name.partition("_")[0] for name in emitted()} - {"start", "stopped", "stopping", "process"}
    assert {f"waypost.{word}" for word in first_words} <= set(LOGGERS)
