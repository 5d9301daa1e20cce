"""From a configuration to running routers: what a worker runs, started and ended.

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
from router.access_log.writer import Writer
from router.assembly import Assembly
from router.bind.router import RouterCore
from router.config.plugins import Registry
from router.config.schema import Config
from router.interpreters.default import Interpreter, InterpreterContext
from router.model.host import Host, loop_clock
from router.model.metrics import Metrics
from router.namers.inet import InetResolver
from router.spi import NamerContext, Recorder
from router.tls import Credentials
from router.tracing.exporter import Exporter

FLUSH = 0.5
# When to look for cycles. Exchanges leave none, but come and go by the hundred: Python's 700 objects between two looks are
# fewer than a read can bring, and looking at each read cost a tenth of the time. A look at so many takes 0.3 ms.
COLLECT = (10_000, 10, 10)

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
    before = gc.get_threshold()
    try:
        async with trio.open_nursery() as nursery:
            host = Host(nursery, loop_clock())
            poller = Poller(host.crashed, host.turn)
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
        gc.set_threshold(*before)
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
        Assembly(worker, registry, router, listen).start(context)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


def make_namers(config: Config, host: Host, metrics: Metrics) -> tuple[SystemNamers, list[tuple[Path, Any]]]:
    """The system namers, and the configured ones: the last one in the file is asked first."""
    namers: list[tuple[Path, Any]] = []
    for chosen in reversed(config.namers):
        prefix = Path.of("#").join(read_path(chosen.config.prefix))
        context = NamerContext(host, metrics.scope("namer", chosen.config.prefix.lstrip("/")))
        namers.append((prefix, chosen.plugin.make(chosen.config, context)))
    return SystemNamers(InetResolver(host)), namers
