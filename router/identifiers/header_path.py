"""``io.l5d.header.path``: a header that holds a URL path, by default ``:path``, is the name.

The query and one trailing slash are dropped. gRPC routes by service with one segment (``/pkg.Service``) and by method
with two.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from dtab import Path
from router.identifiers.names import Names, at_least_one, field, header_name, segments_end
from router.model.headers import RequestHead
from router.spi import Identifier, IdentifierContext, Plugin


@attrs.frozen
class Config:
    """``header``: its name. ``segments``: how many to use, at least 1; all if not given."""

    header: str = attrs.field(default=":path", validator=header_name)
    segments: int | None = attrs.field(default=None, validator=at_least_one)


def make(config: Config, context: IdentifierContext) -> Identifier:
    """Identify by ``config.header``; unidentified are requests without it or with fewer segments than configured."""
    read = field(config.header)
    if config.segments is None:
        return _whole(read, config.header, context.prefix)
    return _first(read, config.header, config.segments, context.prefix)


def _whole(read: Callable[[RequestHead], bytes | None], header: str, prefix: Path) -> Identifier:
    def name(target: bytes) -> Path | str:
        path = target.removesuffix(b"/")
        elements = path[1:].split(b"/")
        if not path.startswith(b"/") or b"" in elements:
            return f"{header} is missing a destination path, or it has an empty segment"
        return Path((*prefix, *elements))

    names = Names(name)
    return lambda head: names[(read(head) or b"").partition(b"?")[0]]


def _first(read: Callable[[RequestHead], bytes | None], header: str, count: int, prefix: Path) -> Identifier:
    short = f"{header} must have at least {count} segment(s)"
    named: Names[bytes, Path] = Names(lambda used: Path((*prefix, *used[1:].split(b"/"))))

    def name(target: bytes) -> Path | str:
        end = segments_end(target, count)
        return named[target[:end]] if end >= 0 else short

    # By the whole value too, since gRPC has few of them; where it has many, this table is cleared and the other is not.
    names = Names(name)
    return lambda head: names[read(head) or b""]


PLUGIN = Plugin("io.l5d.header.path", Config, make)
