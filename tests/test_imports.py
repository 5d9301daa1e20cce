"""The layers of docs/architecture.md as a test: who may import what."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STDLIB = set(sys.stdlib_module_names)
MODEL = {"router.model", "router.spi"}
SIBLINGS = {
    "router.config", "router.bind", "router.balance", "router.filters", "router.identifiers", "router.classifiers",
    "router.namers", "router.interpreters", "router.backoffs", "router.accruals", "router.telemeters",
}  # fmt: skip

# package -> what it may import besides the standard library and itself; the longest matching name applies.
ALLOWED: dict[str, set[str]] = {
    "dtab": {"attrs", "lark"},
    "router.model": {"attrs", "trio", "dtab"},
    "router.spi": {"attrs", "trio", "dtab", "router.model"},
    "router.dtab_headers": {"dtab", "router.model"},
    **{sibling: {"attrs", "trio", "dtab", "router.dtab_headers", *MODEL} for sibling in SIBLINGS},
    "router.access_log": {"attrs", "router.config.access_log", "router.tracing.forms", *MODEL},
    "router.tracing": {"attrs", "trio", "dtab", "opentelemetry", *MODEL},
    "router.telemeters": {"attrs", "trio", "prometheus_client", *MODEL},
    "router.logs": {"attrs", *MODEL},
    "router.admin": {"attrs", "trio", "starlette", "hypercorn", "dtab", "router"},
    "router.config": {"attrs", "yaml", "dtab", *MODEL},
    "router.bind": {"attrs", "dtab", "router.filters", "router.balance", "router.interpreters", "router.tracing", *MODEL},
    "router.app": {"attrs", "trio", "dtab", "router", "protocols.wire"},
    "router.assembly": {"attrs", "trio", "dtab", "router", "protocols.wire"},
    "router.servers": {"attrs", "trio", "dtab", "router", "protocols.wire"},
    "router.serve": {"attrs", "trio", "dtab", "router", "protocols.wire"},
    "router.tls": {"attrs", "trio", "router", "protocols.wire"},
    "router.settings": {"router"},
    "router.explain": {"attrs", "trio", "dtab", "router"},
    "router.cli": {"click", "trio", "dtab", "router"},
    "router": set(),
    "protocols.wire": {"trio", "router.model"},
    "protocols.http1": {"attrs", "trio", "protocols.wire", "dtab.path", *MODEL},
    "protocols.http2": {"attrs", "trio", "hpack", "hyperframe", "h2", "protocols.wire", "dtab.path", *MODEL},
    "protocols.grpc": {"attrs", "trio", "protocols.wire", "protocols.http2", "dtab.path", *MODEL},
    "protocols": set(),
}  # fmt: skip


def modules() -> list[Path]:
    return [path for package in ("dtab", "router", "protocols") for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def rule_for(name: str) -> tuple[str, set[str]]:
    package = max((package for package in ALLOWED if within(name, package)), key=len)
    return package, ALLOWED[package]


@pytest.mark.parametrize("path", modules(), ids=lambda path: name_of(path))
def test_imports_point_down(path: Path) -> None:
    name = name_of(path)
    package, allowed = rule_for(name)
    for imported in imports_of(path):
        if imported.partition(".")[0] in STDLIB or within(imported, package):
            continue
        assert any(within(imported, one) for one in allowed), f"{name} must not import {imported}"


def test_a_wrong_import_would_be_found() -> None:
    _, allowed = rule_for("router.filters.stats")
    assert not any(within("router.balance.pool", one) for one in allowed)
