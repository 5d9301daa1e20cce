"""A worker process: the supervisor says what to serve, and on which sockets; everything else is :mod:`router.app`.

Started as ``python -m router.serve.worker FD LEVEL FORMAT NUMBER``, where FD is one end of a socket pair; its number, and how
it logs, are known before anything can go wrong. When the other end is gone, so is the supervisor: the worker drains and ends. A
signal to a worker is taken for one of the operator's: SIGTERM drains; SIGINT, which a terminal sends to everybody, is the
supervisor's business. SIGABRT prints where every thread is.
"""

from __future__ import annotations

import faulthandler
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

import trio

from dtab import read_dtab
from router.app import Listen, Worker, running
from router.config.load import load_text
from router.config.plugins import Registry
from router.logs.setup import LogSettings, installed, set_level, sweep
from router.logs.sinks import PipeSink
from router.model.events import log_event
from router.serve.answers import Answers
from router.serve.channel import Channel, Handler, RefusedError
from router.serve.heap import keep_freed


class WorkerProcess:
    """What the supervisor can ask for: the methods of ``handlers``."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._worker: Worker | None = None
        self._stop = trio.Event()
        self._grace = 0.0
        self.handlers: dict[str, Handler] = {
            "start": self.start,
            "ping": self.ping,
            "dtabs": self.dtabs,
            "drain": self.drain,
            "log_level": self.log_level,
        }

    async def start(self, name: str, text: str, fds: Sequence[tuple[str, int, int]], workers: int) -> dict[str, Any]:
        """Serve the configuration ``text``, on inherited sockets ``(ip, port, fd)`` in the order of its servers.

        Returns ``{"addresses": [[router label, ip, port], ...]}``. Raises :class:`RefusedError`.
        """
        registry = Registry()
        loaded = load_text(text, name, registry)
        if loaded.config is None:
            raise RefusedError(loaded.render())
        self._grace = loaded.config.admin.shutdown_grace_ms / 1000
        sockets = iter([socket.socket(fileno=fd) for _, _, fd in fds])
        worker = await self._nursery.start(self._run, loaded.config, registry, lambda ip, port: next(sockets), workers)
        self._worker = worker
        self.handlers.update(Answers(worker).handlers)
        return {"addresses": worker.addresses}

    async def _run(self, config: Any, registry: Registry, listen: Listen, workers: int, task_status: Any) -> None:
        async with running(config, registry, listen, workers=workers) as worker:
            task_status.started(worker)
            await self._stop.wait()
        self._nursery.cancel_scope.cancel()

    async def ping(self) -> None:
        """Answer, to show that the loop turns."""
        sweep()

    async def dtabs(self, dtabs: dict[str, str]) -> None:
        """New dtabs, by router label; the routers stay as they are."""
        assert self._worker is not None
        for label, text in dtabs.items():
            self._worker.interpreters[label].replace(read_dtab(text))

    async def log_level(self, logger: str, level: str) -> None:
        """Log what is at least so grave."""
        set_level(logger, level)

    async def drain(self, grace: float) -> int:
        """Accept nothing more, and let exchanges finish for at most ``grace`` seconds; how many connections are left then."""
        self._grace = 0.0  # what is not over by then will not be waited for again
        worker = self._worker
        if worker is None:
            return 0
        await worker.drain(grace)
        return sum(server.connections for server in worker.servers)

    async def finish(self) -> None:
        """Drain, unless that was done, and end."""
        await self.drain(self._grace)
        self._stop.set()
        if self._worker is None:
            self._nursery.cancel_scope.cancel()


async def serve(fd: int) -> None:
    """Serve the supervisor at the other end of ``fd`` until it goes."""
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=fd)))
    async with stream, trio.open_nursery() as nursery:
        process = WorkerProcess(nursery)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            nursery.start_soon(_on_signal, signals, process)
            await Channel(stream, process.handlers).run()
            await process.finish()


async def _on_signal(signals: Any, process: WorkerProcess) -> None:
    async for _ in signals:
        log_event(logging.INFO, "worker_told_to_stop", {"signal": "SIGTERM"})
        await process.finish()


def main() -> None:
    """The entry point of ``python -m router.serve.worker FD LEVEL FORMAT NUMBER``."""
    fd, level, form, number = sys.argv[1:]
    stderr = sys.stderr.fileno()
    faulthandler.enable(stderr)
    keep_freed()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with installed(LogSettings(form, level), PipeSink(stderr), int(number)):
        trio.run(serve, int(fd))


if __name__ == "__main__":
    main()
