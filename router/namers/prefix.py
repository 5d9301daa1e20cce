"""Where a namer is found: below ``/#`` and its ``prefix``."""

from __future__ import annotations

from typing import Any

import attrs

from dtab import DtabSyntaxError, Path, read_path


def is_prefix(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
    """Validator: the text of a path with at least one element."""
    try:
        if read_path(value):
            return
        reason = "it has no elements"
    except DtabSyntaxError as error:
        reason = str(error)
    raise ValueError(f"{attribute.name} must be a path such as /io.l5d.fs: {reason}")


def full_prefix(text: str) -> Path:
    """The path before every name of a namer: ``/#/io.l5d.fs``."""
    return Path.of("#").join(read_path(text))
