"""``io.l5d.static``: every request has the same name."""

from __future__ import annotations

from typing import Any

import attrs

from dtab import DtabSyntaxError, Path, read_path
from router.spi import Identifier, IdentifierContext, Plugin


def _parse(text: str) -> Path:
    """``path: /foo/bar``; the leading slash may be left out, as in Linkerd's examples."""
    return read_path(text if text.startswith("/") else "/" + text)


def _is_path(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
    try:
        _parse(value)
    except DtabSyntaxError as error:
        raise ValueError(f"{attribute.name} must be a path such as /web: {error}") from None


@attrs.frozen
class Config:
    """``path``: the name, behind the router's ``dstPrefix``."""

    path: str = attrs.field(validator=_is_path)


def make(config: Config, context: IdentifierContext) -> Identifier:
    """Identify everything as ``config.path``."""
    name = context.prefix.join(_parse(config.path))
    return lambda head: name


PLUGIN = Plugin("io.l5d.static", Config, make)
