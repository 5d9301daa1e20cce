"""One router, put together from its configuration: how requests are named, and what is configured for a name when it is met.

What can be made once for the router is made at the start; services and clients are asked for by name, at bind time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtab import Path
from router import settings
from router.bind.router import RouterCore
from router.bind.settings import ClientSettings, RouterSettings, ServiceSettings
from router.config.load import effective
from router.config.plugins import Registry
from router.config.schema import ClientBase, Router, ServiceBase
from router.config.tls import ClientTls
from router.identifiers.first_of import first_of
from router.interpreters.default import Interpreter, InterpreterContext
from router.model.failure import Failure, Kind
from router.model.verdict import Classifier
from router.servers import Servers
from router.spi import (
    Accrual,
    AccrualContext,
    BalancerContext,
    Balancing,
    ClientContext,
    Connect,
    Identifier,
    IdentifierContext,
    ProtocolPlugin,
    Session,
)
from router.tls import FileFault
from router.tracing.tracing import Tracing

if TYPE_CHECKING:
    from router.app import Listen, Worker


class Assembly:
    """Puts one router together."""

    def __init__(self, worker: Worker, registry: Registry, router: Router, listen: Listen) -> None:
        self.worker = worker
        self._socket_for = listen
        self.registry = registry
        self.router = router
        self.metrics = worker.metrics.scope("rt", router.label)
        self._connects: dict[tuple[Any, ...], Connect] = {}
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
        servers = Servers(self.worker, self.registry, router, core, self._tracing)
        for server in router.servers:
            servers.open(server, self._socket_for(server.base.ip, server.port))

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
        made: Balancing = self._made(chosen, "balancer", "p2c", BalancerContext(self.worker.host.timers.now))
        return made

    def _accrual(self, chosen: Any) -> Accrual:
        context = AccrualContext(self.worker.host.timers.now)
        made: Accrual = self._made(chosen, "accrual", "io.l5d.consecutiveFailures", context)
        return made

    def _made(self, chosen: Any, group: str, default: str, context: Any) -> Any:
        """What was chosen, or the default of its group with its own defaults."""
        if chosen is not None:
            return chosen.plugin.make(chosen.config, context)
        plugin = self.registry.get(group, default)
        return plugin.make(plugin.config(), context)


def _never(failure: Failure) -> Connect:
    """A way to endpoints that does not exist."""

    async def connect(host: str, port: int) -> Session:
        raise failure

    return connect
