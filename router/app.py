"""From a configuration to running routers: the one place where everything meets.

Protocols, namers and the rest are plugins, found by kind; nothing here names one, except that a worker has one poller.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from dtab import Path, SystemNamers, read_path
from router import settings
from router.access_log.forms import JsonLine, renderer
from router.access_log.writer import FileSettings, Writer
from router.bind.router import ClientSettings, RouterCore, RouterSettings, ServiceSettings
from router.bind.routes import Routes
from router.bind.segments import ServerParams, server_stack
from router.config.access_log import read_policy
from router.config.load import effective
from router.config.plugins import Registry
from router.config.schema import ClientBase, Config, Router, ServiceBase
from router.config.tls import ClientTls
from router.filters.access_log import AccessLog
from router.filters.admission import Gate
from router.filters.deadline import DeadlineConfig
from router.filters.shedding import Shedding
from router.identifiers.first_of import first_of
from router.interpreters.default import Interpreter, InterpreterContext
from router.model.failure import Failure, Kind
from router.model.host import Host, loop_clock
from router.model.metrics import Metrics
from router.model.verdict import Classifier
from router.namers.inet import InetResolver
from router.spi import (
    Accrual,
    AccrualContext,
    BalancerContext,
    Balancing,
    ClientContext,
    Connect,
    Identifier,
    IdentifierContext,
    NamerContext,
    ProtocolPlugin,
    Recorder,
    ServerContext,
    Session,
    Upgrade,
)
from router.spi import Server as ProtocolServer
from router.tls import Credentials, FileFault
from router.tracing.exporter import Exporter
from router.tracing.tracing import Tracing

FLUSH = 0.5

Listen = Callable[[str, int], socket.socket]
"""Gives the listening socket of a server, by its IP address and port; asked once for each server, in their order."""


@attrs.define
class Worker:
    """What runs: routers and listeners, and what to look at them with. ``namers``: by prefix, in the order in which
    they are asked, and behind them what looks up host names. ``workers``: how many processes, this
    one among them, share the sockets and the limits."""

    host: Host
    poller: Any
    metrics: Metrics
    credentials: Credentials
    workers: int = 1
    routers: dict[str, RouterCore] = attrs.field(factory=dict)
    interpreters: dict[str, Interpreter] = attrs.field(factory=dict)
    servers: list[Any] = attrs.field(factory=list)
    listeners: list[Any] = attrs.field(factory=list)
    addresses: list[tuple[str, str, int]] = attrs.field(factory=list)
    log_files: dict[str, Writer] = attrs.field(factory=dict)
    recorders: list[Recorder] = attrs.field(factory=list)
    namers: list[tuple[Path, Any]] = attrs.field(factory=list)
    exporters: tuple[Exporter, ...] = ()

    async def drain(self, grace: float) -> None:
        """Accept nothing new, let exchanges finish for at most ``grace`` seconds. Tunnels, which nothing tells to finish, have
        half of that. Spans that are over then have ``FLUSH`` seconds to be exported."""
        for listener in self.listeners:
            listener.abort()
        for server in self.servers:
            server.drain()
        await self._gone(grace / 2)
        for server in self.servers:
            server.end_tunnels()
        await self._gone(grace / 2)
        for exporter in self.exporters:
            await exporter.flush(FLUSH / len(self.exporters))

    async def _gone(self, seconds: float) -> None:
        """Wait until there are no connections, for at most ``seconds``."""
        with trio.move_on_after(seconds):
            while any(server.connections for server in self.servers):  # noqa: ASYNC110 - many small events, looked at seldom
                await trio.sleep(0.01)


@asynccontextmanager
async def running(
    config: Config, registry: Registry, listen: Listen | None = None, *, workers: int = 1
) -> AsyncIterator[Worker]:
    """Routers that serve while the block runs. Raises OSError when a port cannot be had.

    ``listen`` and ``workers``: see :data:`Listen` and :class:`Worker`; by default sockets are opened here.
    """
    from protocols.wire.listener import listen as open_here
    from protocols.wire.poller import Poller

    poller: Poller | None = None
    try:
        async with trio.open_nursery() as nursery:
            host = Host(nursery, loop_clock())
            poller = Poller(host.crashed)
            metrics = Metrics()
            worker = Worker(host, poller, metrics, Credentials(host, metrics.scope("tls")), workers)
            try:
                _start(worker, config, registry, listen or open_here)
                yield worker
            finally:
                host.lag.stop()
                for core in worker.routers.values():
                    core.close()
                for writer in worker.log_files.values():
                    writer.close()
                worker.credentials.close()
                poller.abort_all()
                nursery.cancel_scope.cancel()
    finally:
        gc.unfreeze()
        if poller is not None:
            poller.close()


def _start(worker: Worker, config: Config, registry: Registry, listen: Listen) -> None:
    """Everything that serves; what lives as long as the worker is no business of the garbage collector any more."""
    host = worker.host
    host.nursery.start_soon(worker.poller.run)
    host.nursery.start_soon(host.timers.run)
    host.lag.start(worker.metrics)
    system, namers = make_namers(config, host, worker.metrics)
    worker.exporters = tuple(
        [
            Exporter(made.plugin.tracer(made.config), host, worker.metrics.scope("telemetry", made.plugin.kind))
            for made in config.telemeters
            if made.plugin.tracer is not None
        ]
    )
    for exporter in worker.exporters:
        host.nursery.start_soon(exporter.run)
    worker.recorders = [made.plugin.recorder(made.config) for made in config.telemeters if made.plugin.recorder is not None]
    worker.namers = [*namers, (Path.of("$", "inet"), system.resolve)]
    for router in config.routers:
        context = InterpreterContext(router.base.dtab, system, namers)
        _Assembly(worker, registry, router, listen).start(context)
    gc.collect()
    gc.freeze()


def make_namers(config: Config, host: Host, metrics: Metrics) -> tuple[SystemNamers, list[tuple[Path, Any]]]:
    """The system namers, and the configured ones: the last one in the file is asked first."""
    namers: list[tuple[Path, Any]] = []
    for chosen in reversed(config.namers):
        prefix = Path.of("#").join(read_path(chosen.config.prefix))
        context = NamerContext(host, metrics.scope("namer", chosen.config.prefix.lstrip("/")))
        namers.append((prefix, chosen.plugin.make(chosen.config, context)))
    return SystemNamers(InetResolver(host)), namers


class _Assembly:
    """Puts one router together."""

    def __init__(self, worker: Worker, registry: Registry, router: Router, listen: Listen) -> None:
        self.worker = worker
        self._socket_for = listen
        self.registry = registry
        self.router = router
        self.metrics = worker.metrics.scope("rt", router.label)
        self._connects: dict[tuple[Any, ...], Connect] = {}
        self._classifiers: dict[Any, Classifier] = {}
        self._sessions: set[Any] = set()
        self._plain = self._make_plain()
        self._tracing = self._make_tracing()

    def start(self, context: InterpreterContext) -> None:
        """Make the router and open its listeners."""
        router, base = self.router, self.router.base
        interpreter = Interpreter(context)
        if base.interpreter is not None:
            interpreter = base.interpreter.plugin.make(base.interpreter.config, context)
        made = RouterSettings(
            label=router.label,
            identify=self._identifier(),
            interpreter=interpreter,
            classify=self._default_classifier(),
            service=self._service,
            client=self._client,
            metrics=self.metrics,
            binding_timeout=base.binding_timeout_ms / 1000,
            max_timeout=settings.seconds(base.max_timeout_ms),
            paths=base.binding_cache.paths,
            idle_ttl=base.binding_cache.idle_ttl_secs,
            tracing=self._tracing,
        )
        core = RouterCore(self.worker.host, made)
        core.start()
        self.worker.routers[router.label] = core
        self.worker.interpreters[router.label] = interpreter
        self._read_credentials()
        for server in router.servers:
            self._listen(core, server)

    def _read_credentials(self) -> None:
        """Of clients, before the first exchange needs them."""
        for _, values in self.router.base.client.configs:
            tls: ClientTls | None = values.get("tls")
            if tls is not None and tls.enabled:
                name = values.get("protocol")
                protocol = self.router.protocol if name is None else self.registry.protocol(name)
                self.worker.credentials.client(tls, protocol.alpn)

    def _make_tracing(self) -> Tracing | None:
        """None where nothing is to be done: no telemeter takes spans, and no propagator is configured."""
        chosen, exporters = self.router.base.trace_propagator, self.worker.exporters
        if chosen is None and not exporters:
            return None
        return Tracing(self.router.label, chosen and chosen.plugin.make(chosen.config, None), exporters)

    def _identifier(self) -> Identifier:
        context = IdentifierContext(self.router.base.dst_prefix)
        chosen = self.router.base.identifier
        if not chosen:
            plugin = self.registry.get("identifier", self.router.protocol.identifier)
            return self._default_identifier(plugin, context)
        return first_of([one.plugin.make(one.config, context) for one in chosen])

    def _default_identifier(self, plugin: Any, context: IdentifierContext) -> Identifier:
        """gRPC's default names the service: the first segment of the path."""
        config = plugin.config(segments=1) if plugin.kind == "io.l5d.header.path" else plugin.config()
        made: Identifier = plugin.make(config, context)
        return made

    def _default_classifier(self) -> Classifier:
        plugin = self.registry.get("classifier", self.router.protocol.classifier)
        made: Classifier = plugin.make(plugin.config(), None)
        return made

    # -- by name --------------------------------------------------------------------------------------------

    def _service(self, path: Path) -> ServiceSettings:
        (base,) = effective(self.router.base.service, path, ServiceBase)
        chosen = base.response_classifier
        classify = None if chosen is None else chosen.plugin.make(chosen.config, None)
        return ServiceSettings(
            total_timeout=settings.seconds(base.total_timeout_ms),
            classify=classify,
            retries=settings.retry_policy(base),
            budget=settings.budget_config(base.retries.budget, self.worker.workers),
            hedge=settings.hedge_policy(base),
        )

    def _client(self, path: Path) -> ClientSettings:
        (base,) = effective(self.router.base.client, path, ClientBase)
        protocol = self.router.protocol if base.protocol is None else self.registry.protocol(base.protocol)
        (own,) = effective(self.router.base.client, path, protocol.client_config)
        workers = self.worker.workers
        return ClientSettings(
            connect=self._connect(protocol, own, base.tls),
            balancing=lambda: self._balancing(base.load_balancer),
            attempt_timeout=settings.seconds(base.request_attempt_timeout_ms),
            limit=settings.limit_part(base.max_concurrent_requests, workers),
            pending=settings.part(base.max_pending_requests, workers),
            adaptive=settings.adaptive_config(base, workers),
            requeues=settings.budget_config(base.requeue_budget, workers),
            accrual=lambda: self._accrual(base.failure_accrual),
            fail_fast=base.fail_fast,
            roster=settings.roster(base.load_balancer),
            pool=settings.pool_settings(base, protocol, workers),
            modules=protocol.client_modules,
            forward_client_cert=base.forward_client_cert,
            plain=self._plain,
        )

    def _connect(self, protocol: ProtocolPlugin, own: Any, tls: ClientTls | None) -> Connect:
        if tls is not None and tls.enabled:  # not kept: names may come from captures, and are as many as clients
            try:
                secure = self.worker.credentials.client(tls, protocol.alpn)
            except FileFault as fault:  # files that were good at the start, and are looked at again for another protocol
                return _never(Failure(Kind.CONNECT, str(fault)))
            return self._make_connect(protocol, own, secure)
        key = (protocol.name, own)
        if key not in self._connects:
            self._connects[key] = self._make_connect(protocol, own, None)
        return self._connects[key]

    def _make_connect(self, protocol: ProtocolPlugin, own: Any, secure: Any) -> Connect:
        worker, metrics = self.worker, self.metrics.scope("client")
        return protocol.connect(own, ClientContext(worker.host, worker.poller, metrics, secure, self._sessions))

    def _make_plain(self) -> Connect | None:
        """How CONNECT reaches endpoints, where a server allows it."""
        from protocols.wire.plain import connector

        allowed = any("connect" in server.base.tunnels for server in self.router.servers)
        return connector(self.worker.poller, self.worker.host.timers) if allowed else None

    def _balancing(self, chosen: Any) -> Balancing:
        context = BalancerContext(self.worker.host.timers.now)
        if chosen is not None:
            made: Balancing = chosen.plugin.make(chosen.config, context)
            return made
        plugin = self.registry.get("balancer", "p2c")
        default: Balancing = plugin.make(plugin.config(), context)
        return default

    def _accrual(self, chosen: Any) -> Accrual:
        context = AccrualContext(self.worker.host.timers.now)
        if chosen is not None:
            made: Accrual = chosen.plugin.make(chosen.config, context)
            return made
        plugin = self.registry.get("accrual", "io.l5d.consecutiveFailures")
        default: Accrual = plugin.make(plugin.config(), context)
        return default

    def _deadlines(self) -> DeadlineConfig:
        base = self.router.base
        return DeadlineConfig(base.timeout_status)

    # -- listeners ------------------------------------------------------------------------------------------

    def _listen(self, core: RouterCore, server: Any) -> None:
        from protocols.wire.detect import Front
        from protocols.wire.listener import ACCEPTS_PER_TURN, Listener
        from protocols.wire.proxy import ProxyProtocol

        worker, protocol = self.worker, self.router.protocol
        sock = self._socket_for(server.base.ip, server.port)
        host, port = sock.getsockname()[:2]
        metrics = self.metrics.scope("server", host, str(port))
        limit = settings.limit_part(server.base.max_concurrent_requests, worker.workers)
        gate = self._gate(limit, metrics, f"server {host}:{port}")
        log = self._access_log(core, f"{host}:{port}")
        params = ServerParams(
            metrics,
            server.base.max_call_depth,
            self._deadlines(),
            gate,
            log,
            self._recent(core, f"{host}:{port}"),
            self._tracing,
            server.base.clear_context,
            settings.forwarded(server.base.add_forwarded_header, self.router.label),
            server.base.timestamp_header,
            server.base.grpc_web,
        )
        upgrades: dict[bytes, Upgrade] = {}
        session = settings.session_limits(server.base.server_session)
        tunnels = frozenset([kind.encode() for kind in server.base.tunnels])

        spoken = [protocol, *[self.registry.protocol(name) for name in protocol.also]]
        edge = dict.fromkeys([module for plugin in spoken for module in plugin.edge_modules])
        own = dict.fromkeys([module for plugin in spoken for module in plugin.server_modules])
        service = server_stack(tuple(edge), tuple(own)).make(params, core.route)

        def serve(plugin: ProtocolPlugin, config: Any) -> ProtocolServer:
            context = ServerContext(worker.host, worker.poller, service, plugin.render, metrics, upgrades, session, tunnels)
            return plugin.serve(config, context)

        servers = [serve(protocol, _inherited(server.protocol, self.router.own))]
        servers += [serve(other, other.server_config()) for other in spoken[1:]]
        alpn = tuple([plugin.alpn for plugin in spoken if plugin.alpn])
        tls = None if server.base.tls is None else worker.credentials.server(server.base.tls, alpn, metrics)
        proxy = ProxyProtocol(worker.host, worker.poller, metrics, metrics.path) if server.base.proxy_protocol else None
        front = Front(worker.poller, worker.host.timers, servers, metrics, tls, proxy)
        worker.servers.append(front)
        batch = ACCEPTS_PER_TURN if worker.workers == 1 else 1
        worker.listeners.append(Listener(worker.host, worker.poller, sock, front.accept, metrics, batch))
        worker.addresses.append((self.router.label, host, port))

    def _access_log(self, core: RouterCore, server: str) -> AccessLog | None:
        keys = self.router.base.access_log
        if keys is None:
            return None
        writer = self.worker.log_files.get(keys.file)
        if writer is None:
            file = FileSettings(keys.file, read_policy(keys.roll_policy), keys.append, keys.rotate_count)
            writer = self.worker.log_files[keys.file] = Writer(self.worker.host, file, self.metrics.scope("access_log"))
        render = renderer(keys.format, self.router.label, server, Routes(core.settings.interpreter).of)
        return AccessLog(render, writer.write, keys.sample)

    def _recent(self, core: RouterCore, server: str) -> tuple[AccessLog, ...]:
        """For each recorder of the worker, what fills it."""
        route = Routes(core.settings.interpreter).of
        return tuple(
            [
                AccessLog(JsonLine(self.router.label, server, route), recorder.keep, recorder.sample)
                for recorder in self.worker.recorders
            ]
        )

    def _gate(self, limit: int | None, metrics: Metrics, where: str) -> Gate | None:
        """Linkerd's limit of a server: no queue, and a reset (REFUSED_STREAM) on HTTP/2. ``nacks`` is Linkerd's name."""
        if limit is None:
            return None
        shedding = Shedding(self.worker.host, metrics, where, None)
        metrics.total("nacks", lambda: shedding.total)
        return Gate(self.worker.host, limit, 0, shedding, metrics)


def _never(failure: Failure) -> Connect:
    """A way to endpoints that does not exist."""

    async def connect(host: str, port: int) -> Session:
        raise failure

    return connect


def _inherited(own: Any, router: Any) -> Any:
    """A server's configuration; what was left at its default is taken from the router's keys of the same name."""
    names = {field.name: field.default for field in attrs.fields(type(own))}
    shared = [field.name for field in attrs.fields(type(router)) if field.name in names]
    changes = {name: getattr(router, name) for name in shared if getattr(own, name) == names[name]}
    return attrs.evolve(own, **changes) if changes else own
