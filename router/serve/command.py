"""``waypost run``: a supervisor between the operator's signals and the workers.

SIGTERM and SIGINT drain within ``shutdownGraceMs``, a second one stops now; SIGHUP reloads. SIGUSR1, by which log rotation
tells others to open their files again, is taken and needs nothing: writers see when their file was moved.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import trio

from router.config.load import Loaded
from router.config.tls import ServerTls
from router.logs.setup import LogSettings
from router.serve import announce
from router.serve.door import ServeAdmin
from router.serve.sockets import activated
from router.serve.supervisor import ReloadError, Supervisor
from router.serve.watch import Watch


async def supervise(loaded: Loaded, load: Callable[[], Loaded], logs: LogSettings, watch: Watch | None = None) -> bool:
    """Serve ``loaded`` until told to stop; whether everything had ended by then.

    ``load`` reads the configuration again, ``watch`` sees when that is worth it. Raises OSError for a port that cannot be had,
    :class:`~router.serve.slot.StartError` for workers that do not start.
    """
    serve, identify = _when_asked("router.admin.app"), _when_asked("router.admin.identifier")
    supervisor = Supervisor(load, logs, activated(os.environ), serve, identify)
    events = supervisor.events
    announce.problems(events, loaded)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            generation = await nursery.start(supervisor.run, loaded)
            announce.ready(events, generation, supervisor.admin.address)
            await _until_stopped(signals, supervisor, watch)
            grace = supervisor.generation.config.admin.shutdown_grace_ms / 1000 if supervisor.generation else 0.0
            events.emit("draining", shown="waypost: draining", grace_s=grace)
            drained = await _drain(signals, supervisor, grace)
            nursery.cancel_scope.cancel()
    events.emit("stopped", shown="", drained=drained)
    return drained


def _when_asked(module: str) -> ServeAdmin:
    """``serve`` of a module that is imported when the first client comes: HTTP server and framework are a fifth of the
    supervisor's memory."""

    async def serve(supervisor: Supervisor, sock: socket.socket, tls: ServerTls | None) -> None:
        await trio.lowlevel.wait_readable(sock)
        found = await trio.to_thread.run_sync(import_module, module)
        await found.serve(supervisor, sock, tls)

    return serve


async def _until_stopped(signals: Any, supervisor: Supervisor, watch: Watch | None) -> None:
    """Reload at each SIGHUP and change of the file, until another signal comes, or the admin interface is told."""
    async with trio.open_nursery() as nursery:
        if watch is not None:
            nursery.start_soon(watch.run, partial(_reload, supervisor))
        nursery.start_soon(_heed, signals, supervisor)
        await supervisor.stopping.wait()
        nursery.cancel_scope.cancel()


async def _heed(signals: Any, supervisor: Supervisor) -> None:
    async with trio.open_nursery() as nursery:
        async for number in signals:
            if number == signal.SIGHUP:
                nursery.start_soon(_reload, supervisor)
            elif number != signal.SIGUSR1:
                supervisor.stopping.set()


async def _reload(supervisor: Supervisor) -> None:
    with suppress(ReloadError):  # which was told
        await supervisor.reload()


async def _drain(signals: Any, supervisor: Supervisor, grace: float) -> bool:
    """Whether everything ended before a second signal, and before its time was over."""
    over = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_second, signals, supervisor, nursery.cancel_scope)
        await supervisor.stop(grace)
        over = True
        nursery.cancel_scope.cancel()
    return over and not supervisor.events.counts["worker_cut_off"]


async def _second(signals: Any, supervisor: Supervisor, scope: trio.CancelScope) -> None:
    async for number in signals:
        if number in (signal.SIGTERM, signal.SIGINT):
            supervisor.events.warn("stopping_now", shown="waypost: stopping now", signal=signal.Signals(number).name)
            scope.cancel()
