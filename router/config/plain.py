"""A configuration as plain values, to be shown."""

from __future__ import annotations

from typing import Any

import yaml


def plain(text: str) -> Any:
    """The values of a text that was loaded, as JSON has them."""
    return yaml.safe_load(text)
