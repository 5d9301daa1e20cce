"""Parameters by name: every configuration whose prefix matches applies, in order, later ones key by key over earlier ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dtab import Path, PathPattern
from router.config.tls import ClientTls


def static_params(configs: Iterable[tuple[PathPattern, Mapping[str, Any]]], path: Path) -> dict[str, Any]:
    """The parameters for ``path``, with the captures of each prefix filled into its own text values."""
    merged: dict[str, Any] = {}
    for pattern, params in configs:
        captures = pattern.match(path)
        if captures is not None:
            for key, value in params.items():
                merged[key] = _filled(pattern, captures, value)
    return merged


def _filled(pattern: PathPattern, captures: dict[str, str], value: Any) -> Any:
    if isinstance(value, ClientTls):
        return value.filled(lambda text: pattern.substitute(captures, text))
    return pattern.substitute(captures, value) if isinstance(value, str) else value
