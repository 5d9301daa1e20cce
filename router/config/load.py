"""A configuration file to :class:`~router.config.schema.Config`, or to the list of everything that is wrong with it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path as FilePath
from typing import Any

import attrs

from dtab import Path, PathPattern
from router.config import nodes
from router.config.access_log import LinkerdAccessLog
from router.config.errors import Problem, did_you_mean
from router.config.later import NAMERD_KEYS
from router.config.params import static_params
from router.config.plugins import PluginError, Registry
from router.config.reader import INVALID, Reader, camel
from router.config.schema import (
    Admin,
    ClientBase,
    Config,
    Router,
    RouterBase,
    Scoped,
    Server,
    ServerBase,
    ServiceBase,
    Usage,
    worker_count,
)
from router.spi import ProtocolPlugin


@attrs.frozen
class Loaded:
    """What came of a file. ``config`` is None when there is a fatal problem; not ``readable``: there was no file to judge."""

    name: str
    source: str
    config: Config | None
    problems: tuple[Problem, ...]
    readable: bool = True

    def refused(self, problems: list[Problem]) -> Loaded:
        """With what was found wrong later; itself where that is nothing."""
        return attrs.evolve(self, config=None, problems=(*self.problems, *problems)) if problems else self

    def render(self) -> str:
        """Every problem, for a terminal."""
        return "\n".join([problem.render(self.name, self.source) for problem in self.problems])


def load_file(name: str, registry: Registry) -> Loaded:
    """Load a file; ``-`` is standard input. A file that cannot be read is a problem like others."""
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else FilePath(name).open("rb") as file:
            data = file.read(nodes.MAX_BYTES + 1)
        if len(data) > nodes.MAX_BYTES:
            return Loaded(name, "", None, (Problem(f"the file is larger than {nodes.MAX_BYTES} bytes"),))
        text = data.decode("utf-8-sig")
    except OSError as error:
        return Loaded(name, "", None, (Problem(f"cannot read the file: {error.strerror}"),), readable=False)
    except UnicodeDecodeError as error:
        return Loaded(name, "", None, (Problem(f"the file is not UTF-8: {error.reason} at byte {error.start}"),))
    return load_text(text, name, registry)


def load_text(text: str, name: str, registry: Registry) -> Loaded:
    """Load a text. Opens nothing."""
    text = text.removeprefix("\ufeff")
    root, problems = nodes.compose(text)
    if root is None:
        return Loaded(name, text, None, tuple(problems))
    loader = _Loader(Reader(text, registry))
    config = loader.config(root)
    found = sorted(loader.reader.problems, key=lambda problem: (problem.line, problem.column))
    fatal = any(problem.fatal for problem in found)
    return Loaded(name, text, None if fatal else config, tuple(found))


class _Loader:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.registry = reader.registry
        self._ports: dict[int, list[tuple[str, int]]] = {}

    def config(self, root: Any) -> Config | None:
        """The whole file."""
        reader = self.reader
        found = reader.mapping(root, "")
        assert found is not None
        if NAMERD_KEYS & set(found):
            reader.problem(root, "this is a configuration of namerd, not of linkerd: it has no routers", "")
            return None
        values = reader.given(root, "config", "", _Top, skip=("routers", "namers", "telemetry"))
        if "routers" not in found:
            reader.problem(root, "no routers: a configuration needs at least one", "")
            return None
        routers = self._routers(found["routers"][1])
        namers = self._plugins("namer", found["namers"][1], "namers") if "namers" in found else []
        telemeters = self._plugins("telemeter", found["telemetry"][1], "telemetry") if "telemetry" in found else []
        if values is None or INVALID in routers or INVALID in (*namers, *telemeters):
            return None
        admin, workers = values.get("admin", Admin()), values.get("workers", 1)
        return Config(tuple(routers), tuple(namers), admin, workers, tuple(telemeters))

    def _plugins(self, category: str, node: Any, where: str) -> list[Any]:
        if not nodes.is_sequence(node):
            return [self.reader.problem(node, f"expected a list, got {nodes.kind_of(nodes.scalar(node))}", where)]
        return [self.reader.plugin(category, part, f"{where}.{at}") for at, part in enumerate(nodes.items(node))]

    # -- routers --------------------------------------------------------------------------------------------

    def _routers(self, node: Any) -> list[Any]:
        if not nodes.is_sequence(node) or not nodes.items(node):
            return [self.reader.problem(node, "no routers: expected a list with at least one", "routers")]
        routers = [self._router(part, f"routers.{at}") for at, part in enumerate(nodes.items(node))]
        labels: dict[str, Router] = {}
        for at, (router, part) in enumerate(zip(routers, nodes.items(node), strict=True)):
            if isinstance(router, Router):
                other = labels.setdefault(router.label, router)
                if other is not router:
                    text = f"two routers have the label {router.label!r} (first at line {other.line}); give one a 'label'"
                    self.reader.problem(part, text, f"routers.{at}")
        return routers

    def _router(self, node: Any, where: str) -> Any:
        reader = self.reader
        found = reader.mapping(node, where)
        if found is None:
            return INVALID
        protocol = self._protocol(found, node, where)
        reader.protocol = protocol.name if protocol is not None else ""
        possible = self._all_protocols() if protocol is None else [protocol]
        values = reader.given(node, "router", where, RouterBase, LinkerdAccessLog, *[one.router_config for one in possible])
        base = reader.build(RouterBase, values, node, where)
        if protocol is None:
            self._unknown_protocol(values or {}, possible, where)
            return INVALID
        assert base is not INVALID  # the protocol is all that it requires
        own = reader.build(protocol.router_config, values, node, where)
        servers = self._servers(base.servers, protocol, node, where)
        base = attrs.evolve(
            base,
            servers=(),
            access_log=base.access_log or self._linkerds_log(found, values, protocol),
            service=self._scoped(base.service, "service", f"{where}.service", ServiceBase),
            client=self._scoped(base.client, "client", f"{where}.client", ClientBase, *self._client_classes(protocol)),
        )
        if INVALID in (own, base.service, base.client) or INVALID in servers:
            return INVALID
        line, column = nodes.place(node)
        return Router(base, protocol, own, tuple(servers), line, column)

    def _linkerds_log(self, found: dict[str, tuple[Any, Any]], values: Any, protocol: ProtocolPlugin) -> Any:
        """What Linkerd's keys for access logs amount to; keys of the other protocol's routers are problems."""
        known = attrs.fields_dict(LinkerdAccessLog)
        given = {name: value for name, value in (values or {}).items() if name in known}
        for name in given:
            if protocol.name not in known[name].metadata["of"].split():
                key = camel(name)
                text = f"{key!r} is for other routers than {protocol.name}; there is 'accessLog', which is for all"
                self.reader.problem(found[key][0], text, key)
        return LinkerdAccessLog(**given).linkerds

    def _unknown_protocol(self, values: dict[str, Any], possible: list[ProtocolPlugin], where: str) -> None:
        """Find what is wrong below a router whose protocol is not known, by the keys of all protocols."""
        clients = [one.client_config for one in possible]
        self._scoped(values.get("service", Scoped()), "service", f"{where}.service", ServiceBase)
        self._scoped(values.get("client", Scoped()), "client", f"{where}.client", ClientBase, *clients)
        servers = values.get("servers")
        for at, node in enumerate(nodes.items(servers) if nodes.is_sequence(servers) else []):
            self.reader.given(node, "server", f"{where}.servers.{at}", ServerBase, *[one.server_config for one in possible])

    def _protocol(self, found: dict[str, tuple[Any, Any]], node: Any, where: str) -> ProtocolPlugin | None:
        if "protocol" not in found:
            return None
        value = found["protocol"][1]
        name = nodes.scalar(value)
        if not isinstance(name, str) or self.reader.found("protocol", name, value, f"{where}.protocol") is None:
            return None
        return self.registry.protocol(name)

    def _all_protocols(self) -> list[ProtocolPlugin]:
        """Those that can be loaded; who names one of the others is told."""
        protocols = []
        for name in self.registry.kinds("protocol"):
            try:
                protocols.append(self.registry.protocol(name))
            except PluginError:
                continue
        return protocols

    def _client_classes(self, protocol: ProtocolPlugin) -> list[type[Any]]:
        """Keys of the router's own client protocol, and of those that it can be told to use instead."""
        return list(dict.fromkeys([protocol.client_config, *[other.client_config for other in self._all_protocols()]]))

    def _servers(self, node: Any, protocol: ProtocolPlugin, router: Any, where: str) -> list[Any]:
        reader = self.reader
        if not node:
            return [self._server(None, router, protocol, f"{where}.servers.0")]
        if not nodes.is_sequence(node) or not nodes.items(node):
            return [reader.problem(node, "expected a list with at least one server", f"{where}.servers")]
        return [self._server(part, part, protocol, f"{where}.servers.{at}") for at, part in enumerate(nodes.items(node))]

    def _server(self, node: Any, at: Any, protocol: ProtocolPlugin, where: str) -> Any:
        reader = self.reader
        if node is None:
            base, own = ServerBase(), protocol.server_config()
        else:
            values = reader.given(node, "server", where, ServerBase, protocol.server_config)
            base = reader.build(ServerBase, values, node, where)
            own = reader.build(protocol.server_config, values, node, where)
        if INVALID in (base, own):
            return INVALID
        if base.port is None:
            base = attrs.evolve(base, port=protocol.port)
        self._check_port(base, at, where)
        return Server(base, own, nodes.place(at)[0])

    def _check_port(self, base: ServerBase, node: Any, where: str) -> None:
        assert base.port is not None
        line = nodes.place(node)[0]
        for ip, other in self._ports.setdefault(base.port, []) if base.port else []:
            if ip == base.ip or {"0.0.0.0", "::"} & {ip, base.ip}:
                text = f"port {base.port} on {base.ip} is taken by the server at line {other}"
                self.reader.problem(node, text, f"{where}.port")
                return
        self._ports.setdefault(base.port, []).append((base.ip, line))

    # -- service and client ---------------------------------------------------------------------------------

    def _scoped(self, node: Any, level: str, where: str, *classes: type[Any]) -> Any:
        """Global keys, or ``io.l5d.static`` with a list of prefixes."""
        if isinstance(node, Scoped):
            return node
        reader = self.reader
        found = reader.mapping(node, where)
        if found is None:
            return INVALID
        kind = nodes.scalar(found["kind"][1]) if "kind" in found else "io.l5d.global"
        if kind == "io.l5d.global":
            values = reader.given(node, level, where, *classes, skip=("kind",))
            return INVALID if values is None else Scoped(((PathPattern("/"), values),))
        if kind != "io.l5d.static":
            known = ["io.l5d.global", "io.l5d.static"]
            shown = repr(kind) if isinstance(kind, str) else nodes.kind_of(kind)
            text = f"unknown kind {shown}; there are {', '.join(known)}{did_you_mean(str(kind), known)}"
            return reader.problem(found["kind"][1], text, f"{where}.kind")
        if "configs" not in found or not nodes.is_sequence(found["configs"][1]):
            return reader.problem(node, "io.l5d.static needs a list of 'configs'", where)
        for key, (key_node, _) in found.items():
            if key not in ("kind", "configs"):
                reader.problem(key_node, f"unknown key {key!r}{did_you_mean(key, ['kind', 'configs'])}", where)
        parts = nodes.items(found["configs"][1])
        made = [self._prefixed(part, level, f"{where}.configs.{at}", *classes) for at, part in enumerate(parts)]
        return INVALID if INVALID in made else Scoped(tuple(made))

    def _prefixed(self, node: Any, level: str, where: str, *classes: type[Any]) -> Any:
        found = self.reader.mapping(node, where)
        if found is None:
            return INVALID
        prefix = nodes.scalar(found["prefix"][1]) if "prefix" in found else None
        if not isinstance(prefix, str):
            return self.reader.problem(node, "missing required key 'prefix' (a path pattern)", where)
        values = self.reader.given(node, level, where, *classes, skip=("prefix",))
        return INVALID if values is None else (PathPattern(prefix), values)


@attrs.frozen
class _Top:
    """Keys of the file besides routers and namers."""

    admin: Admin = attrs.field(factory=Admin)
    usage: Usage = attrs.field(factory=Usage)
    workers: Any = attrs.field(default=1, validator=worker_count)


def effective(scoped: Scoped, path: Path, *classes: type[Any]) -> list[Any]:
    """What is configured for a name: one instance per class, from all matching configs in order."""
    merged = static_params(scoped.configs, path)
    made = []
    for cls in classes:
        names = {field.name for field in attrs.fields(cls)}
        made.append(cls(**{key: value for key, value in merged.items() if key in names}))
    return made
