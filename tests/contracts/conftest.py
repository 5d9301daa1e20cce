"""Every implementation that this environment has registered; a stranger's package would be tested with ours."""

from __future__ import annotations

from router.config.plugins import Registry
from router.spi import Plugin

REGISTRY = Registry()


def plugins(category: str) -> list[Plugin]:
    return [REGISTRY.get(category, kind) for kind in REGISTRY.kinds(category)]
