"""``io.l5d.path``: the first segments of the request's path are the name.

``/users/v1/list`` with two segments gives ``/svc/users/v1``. With ``consume`` the request goes on without them:
``/users/v1/list/?page=2`` becomes ``/list/?page=2``, and a path that is used up becomes ``/``.
"""

from __future__ import annotations

import attrs

from dtab import Path
from router.identifiers.names import Names, at_least_one, segments_end
from router.model.headers import RequestHead
from router.spi import Identifier, IdentifierContext, Plugin


@attrs.frozen
class Config:
    """``segments``: how many, at least 1. ``consume``: whether to take them off the request's path."""

    segments: int = attrs.field(default=1, validator=at_least_one)
    consume: bool = False


def make(config: Config, context: IdentifierContext) -> Identifier:
    """Identify by path; one with fewer segments than configured, or an empty one among them, is unidentified."""
    prefix, count = context.prefix, config.segments
    short = f"not enough segments in path ({count} needed)"
    names: Names[bytes, Path] = Names(lambda used: Path((*prefix, *used[1:].split(b"/"))))

    def identify(head: RequestHead) -> Path | str:
        end = segments_end(head.path, count)
        return names[head.path[:end]] if end >= 0 else short

    def consume(head: RequestHead) -> tuple[Path, RequestHead] | str:
        end = segments_end(head.path, count)
        if end < 0:
            return short
        rest = head.path[end:]
        return names[head.path[:end]], head.replace(path=rest if rest.startswith(b"/") else b"/" + rest)

    return consume if config.consume else identify


PLUGIN = Plugin("io.l5d.path", Config, make)
