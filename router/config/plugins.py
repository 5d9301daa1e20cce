"""Finding plugins by entry point and kind."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from router.config.errors import did_you_mean
from router.spi import GROUPS, Plugin, ProtocolPlugin


class PluginError(Exception):
    """No such kind, two of them, or one that cannot be loaded; the text says what to do."""


class Registry:
    """The plugins of this environment, loaded when first asked for. ``extra`` adds some without entry points (tests)."""

    def __init__(self, extra: dict[str, list[Plugin]] | None = None) -> None:
        self._points: dict[tuple[str, str], list[EntryPoint]] = {}
        self._loaded: dict[tuple[str, str], Plugin] = {}
        for category, group in GROUPS.items():
            for point in entry_points(group=group):
                found = self._points.setdefault((category, point.name), [])
                if not any(other.value == point.value for other in found):
                    found.append(point)
        for category, plugins in (extra or {}).items():
            for plugin in plugins:
                self._loaded[category, plugin.kind] = plugin

    def kinds(self, category: str) -> list[str]:
        """The kinds of a category, sorted."""
        found = {kind for have, kind in [*self._points, *self._loaded] if have == category}
        return sorted(found)

    def get(self, category: str, kind: str) -> Plugin:
        """The plugin of that kind. Raises :class:`PluginError`."""
        known = self._loaded.get((category, kind))
        if known is not None:
            return known
        points = self._points.get((category, kind), [])
        if not points:
            kinds = self.kinds(category)
            listed = ", ".join(kinds) or "none (is waypost installed?)"
            raise PluginError(f"unknown {category} {kind!r}; there are {listed}{did_you_mean(kind, kinds)}")
        if len(points) > 1:
            owners = " and ".join(str(point.value) for point in points)
            raise PluginError(f"two plugins call themselves {category} {kind!r}: {owners}")
        plugin = self._load(category, points[0])
        self._loaded[category, kind] = plugin
        return plugin

    def _load(self, category: str, point: EntryPoint) -> Plugin:
        owner = point.dist.name if point.dist is not None else "an unknown distribution"
        try:
            plugin: Any = point.load()
        except Exception as error:
            raise PluginError(f"{category} {point.name!r} of {owner} cannot be loaded: {error!r}") from error
        if not isinstance(plugin, Plugin) or plugin.kind != point.name:
            raise PluginError(f"{category} {point.name!r} of {owner} is not a Plugin of that kind ({point.value})")
        return plugin

    def protocol(self, name: str) -> ProtocolPlugin:
        """The protocol of that name."""
        made: ProtocolPlugin = self.get("protocol", name).make(None, None)
        return made
