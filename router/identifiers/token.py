"""``io.l5d.header.token``: the value of a header, as it is, is one element of the name.

``Host: Foo.Bar:80`` gives ``/svc/Foo.Bar:80``, case and port kept. A value with a ``/`` in it is still one element.
"""

from __future__ import annotations

import attrs

from dtab import Path
from router.identifiers.names import Names, field, header_name
from router.spi import Identifier, IdentifierContext, Plugin


@attrs.frozen
class Config:
    """``header``: its name; ``Host`` and ``:authority`` are the same thing whatever the protocol."""

    header: str = attrs.field(default="Host", validator=header_name)


def make(config: Config, context: IdentifierContext) -> Identifier:
    """Identify by ``config.header``; a request without it, or with an empty one, is unidentified."""
    prefix, header = context.prefix, config.header
    read = field(header)

    def name(value: bytes | None) -> Path | str:
        if value:
            return Path((*prefix, value))
        return f"{header} header is {'missing' if value is None else 'empty'}"

    names = Names(name)
    return lambda head: names[read(head)]


PLUGIN = Plugin("io.l5d.header.token", Config, make)
