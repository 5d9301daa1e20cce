"""Validators of the telemeters' keys."""

from __future__ import annotations

from typing import Any

import attrs

from router.tracing.post import read_url


def share(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    """0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"must be between 0 and 1, not {value:g}")


def port(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    """A port that one can connect to."""
    if not 1 <= value <= 65535:
        raise ValueError(f"a port is between 1 and 65535, not {value}")


def url(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    """A URL to post to."""
    read_url(value)
