"""``io.l5d.rewrite``: names that match a pattern become another name, with the captures filled in."""

from __future__ import annotations

import attrs

from dtab import Namer, PathPattern
from dtab.namer import RewritingNamer
from router.spi import NamerContext, Plugin


@attrs.frozen
class Config:
    """``pattern``: such as ``/{service}/api``. ``name``: such as ``/srv/{service}``. ``prefix``: below ``/#``."""

    pattern: str
    name: str
    prefix: str = "/io.l5d.rewrite"


def make(config: Config, context: NamerContext) -> Namer:
    """The namer."""
    return RewritingNamer(PathPattern(config.pattern), config.name)


PLUGIN = Plugin("io.l5d.rewrite", Config, make)
