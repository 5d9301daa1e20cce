"""Nodes to attrs classes, every problem noted with its place.

A class's attributes are the keys, in camel case in the file. Types are taken from annotations, values are never coerced,
validators are run one by one so that each problem points at its own value.
"""

from __future__ import annotations

import math
import types
import typing
from types import SimpleNamespace
from typing import Any

import attrs

from dtab import Dtab, DtabSyntaxError, Path, read_dtab, read_path
from router.config import nodes
from router.config.errors import Problem, did_you_mean
from router.config.later import KINDS, LATER, REMOVED
from router.config.plugins import PluginError, Registry
from router.config.schema import Chosen
from router.config.tls import FileName
from router.spi import Plugin

INVALID: Any = object()
_ABBREVIATIONS = {"kb": "KB"}


def camel(name: str) -> str:
    """``root_dir`` as it is written in files: ``rootDir``; ``max_headers_kb``: ``maxHeadersKB``."""
    first, *rest = name.split("_")
    return first + "".join(_ABBREVIATIONS.get(word, word.capitalize()) for word in rest)


class Reader:
    """Reads nodes of one file; ``problems`` fills up on the way. ``protocol``: of the router being read, once known."""

    def __init__(self, source: str, registry: Registry) -> None:
        self.source = source
        self.registry = registry
        self.protocol = ""
        self.problems: list[Problem] = []
        self._mappings: dict[int, dict[str, tuple[Any, Any]]] = {}

    def problem(self, node: Any, message: str, where: str, severity: str = "error") -> Any:
        """Note a problem; returns INVALID."""
        line, column = nodes.place(node)
        self.problems.append(Problem(message, line, column, where, severity))
        return INVALID

    # -- mappings -------------------------------------------------------------------------------------------

    def mapping(self, node: Any, where: str) -> dict[str, tuple[Any, Any]] | None:
        """Key to (key's node, value's node); duplicates and other nodes are problems, noted once however often asked."""
        known = self._mappings.get(id(node))
        if known is not None:
            return known
        if not nodes.is_mapping(node):
            self.problem(node, f"expected a mapping, got {nodes.kind_of(nodes.scalar(node))}", where)
            return None
        found: dict[str, tuple[Any, Any]] = {}
        for key, key_node, value in nodes.entries(node):
            if key in found:
                line = nodes.place(found[key][0])[0]
                self.problem(key_node, f"duplicate key {key!r} (first at line {line})", where)
            else:
                found[key] = (key_node, value)
        self._mappings[id(node)] = found
        return found

    def given(
        self, node: Any, level: str, where: str, *classes: type[Any], skip: tuple[str, ...] = (), name: str = ""
    ) -> dict[str, Any] | None:
        """The values of the keys that are there, by attribute name. Keys that no class has are problems.

        ``name``: what people call the level, where that is not its own name.
        """
        found = self.mapping(node, where)
        if found is None:
            return None
        known: dict[str, tuple[attrs.Attribute[Any], Any]] = {}
        for cls in classes:
            hints = typing.get_type_hints(cls)
            known |= {camel(field.name): (field, hints[field.name]) for field in attrs.fields(cls)}
        values: dict[str, Any] = {}
        for key, (key_node, value) in found.items():
            if key in skip:
                continue
            if key not in known:
                self._unknown(key, key_node, level, where, [*known, *skip], name or level)
                continue
            field, hint = known[key]
            made = self._field(field, hint, value, f"{where}.{key}".lstrip("."))
            if made is not INVALID:
                values[field.name] = made
        return values

    def _unknown(self, key: str, node: Any, level: str, where: str, known: list[str], name: str) -> None:
        full = f"{where}.{key}".lstrip(".")
        if key in REMOVED.get(level, {}):
            self.problem(node, f"'{key}' {REMOVED[level][key]}", full)
        elif key in LATER.get(level, ()):
            self.problem(node, f"'{key}' is not supported yet", full, "unsupported")
        elif key == "experimental" and level != "config":
            return
        else:
            self.problem(node, f"unknown key {key!r} in {name}{did_you_mean(key, known)}", full)

    def build(self, cls: type[Any], values: dict[str, Any] | None, node: Any, where: str) -> Any:
        """An instance of ``cls`` from its part of ``values``; missing required keys are problems."""
        if values is None:
            return INVALID
        own: dict[str, Any] = {}
        complete = True
        for field in attrs.fields(cls):
            if field.name in values:
                own[field.name] = values[field.name]
            elif field.default is attrs.NOTHING:
                complete = False
                key = camel(field.name)
                if not (nodes.is_mapping(node) and any(name == key for name, _, _ in nodes.entries(node))):
                    self.problem(node, f"missing required key {key!r}", where)
        if not complete or not self._agree(cls, own, node, where):
            return INVALID
        try:
            return cls(**own)
        except ValueError as error:  # values of which no single one is at fault
            return self.problem(node, str(error), where)

    def _agree(self, cls: type[Any], own: dict[str, Any], node: Any, where: str) -> bool:
        """Whether values go together; validators that look at others than their own are told at their key's line."""
        agreed = True
        fields = attrs.fields(cls)
        whole = SimpleNamespace(**{field.name: own.get(field.name, field.default) for field in fields})
        places = {key: value for key, _, value in nodes.entries(node)} if nodes.is_mapping(node) else {}
        for field in fields:
            if field.validator is not None and field.name in own:
                try:
                    field.validator(whole, field, own[field.name])
                except ValueError as error:
                    key = camel(field.name)
                    self.problem(places.get(key, node), str(error), f"{where}.{key}".lstrip("."))
                    agreed = False
        return agreed

    def instance(self, cls: type[Any], node: Any, level: str, where: str, skip: tuple[str, ...] = ()) -> Any:
        """An instance of ``cls`` from a mapping."""
        return self.build(cls, self.given(node, level, where, cls, skip=skip), node, where)

    # -- values ---------------------------------------------------------------------------------------------

    def _field(self, field: attrs.Attribute[Any], hint: Any, node: Any, where: str) -> Any:
        category = field.metadata.get("plugin")
        if field.metadata.get("own"):
            return node
        if category is not None:
            if field.metadata.get("list") and nodes.is_sequence(node):
                chosen = [self.plugin(category, part, f"{where}.{at}") for at, part in enumerate(nodes.items(node))]
                return INVALID if INVALID in chosen else chosen
            made = self.plugin(category, node, where)
            return made if made is INVALID or not field.metadata.get("list") else [made]
        value = self.value(hint, node, where)
        if "idle" in field.metadata and value is not INVALID:
            self.problem(node, f"has no effect: {field.metadata['idle']}", where, "warning")
        named = field.metadata.get("names")
        if named is not None and isinstance(value, str):
            return value if self.found(named, value, node, where) is not None else INVALID
        if value is INVALID or field.validator is None:
            return value
        try:
            field.validator(None, field, value)
        except ValueError as error:
            return self.problem(node, str(error), where)
        return value

    def value(self, hint: Any, node: Any, where: str) -> Any:
        """A value of the annotated type."""
        origin = typing.get_origin(hint)
        if origin in (types.UnionType, typing.Union):
            kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
            if nodes.scalar(node) is None:
                return None
            return self.value(kinds[0], node, where)
        if origin in (tuple, list):
            return self._list(typing.get_args(hint)[0], node, where)
        if hint is Dtab:
            return self._dtab(node, where)
        if hint is Path:
            return self._path(node, where)
        if hint is FileName:
            name = self._plain(str, node, where)
            return name if name is INVALID else FileName(name, *nodes.place(node))
        if attrs.has(hint):
            return self.instance(hint, node, where.rpartition(".")[2], where)
        return self._plain(hint, node, where)

    def _list(self, hint: Any, node: Any, where: str) -> Any:
        if not nodes.is_sequence(node):
            return self.problem(node, f"expected a list, got {nodes.kind_of(nodes.scalar(node))}", where)
        made = [self.value(hint, part, f"{where}.{at}") for at, part in enumerate(nodes.items(node))]
        return INVALID if INVALID in made else tuple(made)

    def _plain(self, hint: Any, node: Any, where: str) -> Any:
        value = nodes.scalar(node)
        if hint is float and type(value) is int:
            return float(value)
        if hint is int and type(value) is float and value.is_integer() and abs(value) < 1e18:
            return int(value)
        if hint is Any or (type(value) is hint and value not in (math.inf, -math.inf)):
            return value
        wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
        bare = value is None or hasattr(value, "start_mark")
        shown = nodes.kind_of(value) if bare else f"{value!r} ({nodes.kind_of(value)})"
        return self.problem(node, f"expected {wanted}, got {shown}", where)

    def _dtab(self, node: Any, where: str) -> Any:
        text = nodes.scalar(node)
        if text is None:
            return Dtab()
        if not isinstance(text, str):
            return self.problem(node, f"expected a dtab, got {nodes.kind_of(text)}", where)
        try:
            table = read_dtab(text)
        except DtabSyntaxError as error:
            line, column = nodes.text_places(node, self.source)(error.line, error.column)
            self.problems.append(Problem(f"dtab: {error.told}", line, column, where))
            return INVALID
        placed = []
        find = nodes.text_places(node, self.source)
        for dentry in table:
            line, column = find(dentry.line, dentry.column)
            placed.append(attrs.evolve(dentry, line=line, column=column))
        return Dtab(tuple(placed))

    def _path(self, node: Any, where: str) -> Any:
        text = nodes.scalar(node)
        if not isinstance(text, str):
            return self.problem(node, f"expected a path, got {nodes.kind_of(text)}", where)
        try:
            return read_path(text)
        except DtabSyntaxError as error:
            line, column = nodes.text_places(node, self.source)(error.line, error.column)
            self.problems.append(Problem(f"path: {error.told}", line, column, where))
            return INVALID

    # -- plugins --------------------------------------------------------------------------------------------

    def found(self, category: str, kind: str, node: Any, where: str) -> Plugin | None:
        """The plugin that ``node`` names; None after a problem."""
        if kind in KINDS.get(category, ()) and kind not in self.registry.kinds(category):
            self.problem(node, f"{category} {kind!r} is not supported yet", where, "unsupported")
            return None
        try:
            return self.registry.get(category, kind)
        except PluginError as error:
            self.problem(node, str(error), where)
            return None

    def plugin(self, category: str, node: Any, where: str) -> Any:
        """What a mapping with ``kind`` chooses."""
        found = self.mapping(node, where)
        if found is None:
            return INVALID
        if "kind" not in found:
            return self.problem(node, f"missing required key 'kind' ({', '.join(self.registry.kinds(category))})", where)
        kind_node = found["kind"][1]
        kind = nodes.scalar(kind_node)
        if not isinstance(kind, str):
            return self.problem(kind_node, "expected the name of a kind", f"{where}.kind")
        plugin = self.found(category, kind, kind_node, f"{where}.kind")
        if plugin is None:
            return INVALID
        if self.protocol and plugin.protocols and self.protocol not in plugin.protocols:
            text = f"{category} {kind!r} is not for {self.protocol} routers"
            self.problem(kind_node, text, f"{where}.kind")
        values = self.given(node, "plugin", where, plugin.config, skip=("kind", "experimental"), name=kind)
        config = self.build(plugin.config, values, node, where)
        return config if config is INVALID else Chosen(plugin, config)
