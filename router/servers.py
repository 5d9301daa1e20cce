"""The servers of a router: a listener each, with the stack above the router's services and the protocols that it speaks."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import attrs

from router import settings
from router.access_log.forms import read_form
from router.access_log.json_line import JsonLine
from router.access_log.record import Line
from router.access_log.writer import FileSettings, Writer
from router.bind.router import RouterCore
from router.bind.routes import Routes
from router.bind.segments import ServerParams, server_stack
from router.config.access_log import read_policy
from router.config.plugins import Registry
from router.config.schema import Router
from router.filters.access_log import AccessLog
from router.filters.admission import Gate
from router.filters.deadline import DeadlineConfig, Deadlines
from router.filters.shedding import Shedding
from router.model.host import Host
from router.model.metrics import Metrics
from router.spi import ProtocolPlugin, Recorder, Server, ServerContext, Upgrade
from router.tracing.tracing import Tracing

if TYPE_CHECKING:
    from router.app import Worker


class Servers:
    """Opens the servers of one router."""

    def __init__(self, worker: Worker, registry: Registry, router: Router, core: RouterCore, tracing: Tracing | None) -> None:
        self.worker = worker
        self.registry = registry
        self.router = router
        self.metrics = core.settings.metrics
        self._core = core
        self._tracing = tracing

    def open(self, server: Any, sock: socket.socket) -> None:
        """Listen on ``sock`` as ``server`` says."""
        from protocols.wire.detect import Front
        from protocols.wire.listener import ACCEPTS_PER_TURN, Listener
        from protocols.wire.proxy import ProxyProtocol

        worker, protocol = self.worker, self.router.protocol
        host, port = sock.getsockname()[:2]
        metrics = self.metrics.scope("server", host, str(port))
        limit = settings.limit_part(server.base.max_concurrent_requests, worker.workers)
        gate = self._gate(limit, metrics, f"server {host}:{port}")
        log = self._access_log(f"{host}:{port}")
        params = ServerParams(
            metrics,
            server.base.max_call_depth,
            Deadlines(DeadlineConfig(self.router.base.timeout_status), metrics),
            gate,
            log,
            self._recent(f"{host}:{port}"),
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
        service = server_stack(tuple(edge), tuple(own)).make(params, self._core.route)

        def serve(plugin: ProtocolPlugin, config: Any) -> Server:
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

    def _access_log(self, server: str) -> AccessLog | None:
        keys = self.router.base.access_log
        if keys is None:
            return None
        writer = self.worker.log_files.get(keys.file)
        if writer is None:
            file = FileSettings(keys.file, read_policy(keys.roll_policy), keys.append, keys.rotate_count)
            writer = self.worker.log_files[keys.file] = Writer(self.worker.host, file, self.metrics.scope("access_log"))
        form = read_form(keys.format, self.router.label, server, Routes(self._core.settings.interpreter))
        return AccessLog(form.keeper(writer), keys.sample)

    def _recent(self, server: str) -> tuple[AccessLog, ...]:
        """For each recorder of the worker, what fills it."""
        form = JsonLine(self.router.label, server, Routes(self._core.settings.interpreter))
        host = self.worker.host
        return tuple([AccessLog(form.keeper(_Kept(recorder, host)), recorder.sample) for recorder in self.worker.recorders])

    def _gate(self, limit: int | None, metrics: Metrics, where: str) -> Gate | None:
        """Linkerd's limit of a server: no queue, and a reset (REFUSED_STREAM) on HTTP/2. ``nacks`` is Linkerd's name."""
        if limit is None:
            return None
        shedding = Shedding(self.worker.host, metrics, where, None)
        metrics.total("nacks", lambda: shedding.total)
        return Gate(self.worker.host, limit, 0, shedding, metrics)


class _Kept:
    """A recorder keeps few records, and has them at once: a :class:`router.access_log.record.Room`."""

    def __init__(self, recorder: Recorder, host: Host) -> None:
        self._recorder = recorder
        self._host = host
        self.over: list[tuple[Line, Any, float]] = []
        self.now = host.timers.now
        self.full = 1

    def look(self) -> None:
        """Make a line of the one that waits."""
        line, taken, now = self.over.pop()
        self._recorder.keep(line(taken, now, self._host.wall_ns()))


def _inherited(own: Any, router: Any) -> Any:
    """A server's configuration; what was left at its default is taken from the router's keys of the same name."""
    names = {field.name: field.default for field in attrs.fields(type(own))}
    shared = [field.name for field in attrs.fields(type(router)) if field.name in names]
    changes = {name: getattr(router, name) for name in shared if getattr(own, name) == names[name]}
    return attrs.evolve(own, **changes) if changes else own
