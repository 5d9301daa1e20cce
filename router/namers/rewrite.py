"""``io.l5d.rewrite``: names that match a pattern become another name, with the captures filled in.

``/{service}/api`` and ``/srv/{service}`` make ``/srv/foo`` of ``/foo/api``, which is then looked up again. What is behind
the pattern is dropped; what does not match is Neg.
"""

from __future__ import annotations

import attrs

from dtab import Namer, PathPattern
from dtab.namer import RewritingNamer
from router.namers.prefix import is_prefix
from router.spi import NamerContext, Plugin


@attrs.frozen
class Config:
    """``prefix``: below ``/#``. ``pattern``: such as ``/{service}/api``. ``name``: such as ``/srv/{service}``."""

    pattern: str
    name: str
    prefix: str = attrs.field(default="/io.l5d.rewrite", validator=is_prefix)


def make(config: Config, context: NamerContext) -> Namer:
    """The namer."""
    return RewritingNamer(PathPattern(config.pattern), config.name)


PLUGIN = Plugin("io.l5d.rewrite", Config, make)
