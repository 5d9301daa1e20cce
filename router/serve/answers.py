"""What a worker tells about itself: metrics, and the state of names and clients. JSON values, made in small pieces, so that
nobody's question holds an exchange up.

Bounds: ``PIECE`` metrics or clients between two turns of the loop.
"""

from __future__ import annotations

import json
import os
from typing import Any

import attrs
import trio

from dtab import AddrPending, Path, read_dtab, read_path
from dtab.explain import addr_json, to_json
from router.app import Worker
from router.explain import settled
from router.serve.channel import Handler
from router.spi import Enumerating, Watching
from router.telemeters.snapshot import Snapshot

PIECE = 200


class Answers:
    """The handlers of the questions about ``worker``."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.handlers: dict[str, Handler] = {
            "metrics": self.metrics,
            "clients": self.clients,
            "delegate": self.delegate,
            "bound_names": self.bound_names,
            "namer_state": self.namer_state,
            "events": self.events,
            "requests": self.requests,
        }
        process = worker.metrics.scope("process")
        process.gauge("resident_bytes", _resident)
        process.gauge("open_fds", lambda: float(len(os.listdir("/proc/self/fd"))))
        process.gauge("timers", worker.host.timers.pending)
        process.gauge("tasks", lambda: trio.lowlevel.current_statistics().tasks_living)
        process.total("crashes", lambda: worker.host.crashes)

    async def metrics(self) -> list[str]:
        """All metrics, as the JSON texts of several snapshots."""
        slots = self._worker.metrics.slots()
        texts = []
        for at in range(0, len(slots), PIECE):
            texts.append(json.dumps(Snapshot().take(slots[at : at + PIECE]).to_json()))
            await trio.lowlevel.checkpoint()
        return texts

    async def clients(self) -> dict[str, Any]:
        """By router and bound name: what the balancer knows of each endpoint."""
        found: dict[str, Any] = {}
        for label, core in self._worker.routers.items():
            found[label] = {}
            for path, client in list(core.clients.items()):
                found[label][path.show()] = [_endpoint(target) for target in client.balancer.targets]
                await trio.lowlevel.checkpoint()
        return found

    async def delegate(self, router: str, path: str, dtab: str) -> dict[str, Any]:
        """The delegation tree of ``path`` in Linkerd's form, with ``dtab`` preferred to the router's. Raises
        :class:`dtab.DtabError` for text that is none."""
        interpreter = self._worker.interpreters[router]
        table = interpreter.dtab + read_dtab(dtab)
        node, addrs, _ = await settled(interpreter.delegator, table, read_path(path))
        return to_json(node, lambda bound: addrs.get(bound.id, AddrPending()))

    async def bound_names(self) -> list[str]:
        """The bound names in use, and those that namers can tell of."""
        found = {path.show() for core in self._worker.routers.values() for path in list(core.clients)}
        for prefix, namer in self._worker.namers:
            if isinstance(namer, Enumerating):
                found.update(await trio.to_thread.run_sync(_shown, prefix, namer))
        return sorted(found)

    async def namer_state(self, prefix: str) -> list[dict[str, Any]]:
        """What the namers with that prefix (``/io.l5d.fs``, or ``/$/inet``) know of the names that they watch."""
        found = []
        full = (prefix, "/#" + prefix)
        for namer in [namer for path, namer in self._worker.namers if path.show() in full and isinstance(namer, Watching)]:
            for at, watched in enumerate(namer.watched()):
                found.append({**attrs.asdict(watched, recurse=False), "addr": watched.addr and addr_json(watched.addr)})
                if not at % PIECE:
                    await trio.lowlevel.checkpoint()
        return found

    async def events(self) -> list[Any]:
        """The last events, the oldest first."""
        return [[event.at, event.name, dict(event.fields)] for event in self._worker.host.events.recent]

    async def requests(self) -> list[Any]:
        """Of each recorder, how many records it keeps, and those that it has, the oldest first."""
        return [[recorder.capacity, recorder.recent] for recorder in self._worker.recorders]


def _endpoint(target: Any) -> dict[str, Any]:
    endpoint, breaker = target.endpoint, target.breaker
    return {
        "ip": endpoint.host,
        "port": endpoint.port,
        "weight": round(target.weight, 6),
        "load": target.load,
        "connections": target.pool.sessions,
        "state": "alive" if breaker is None else breaker.state.value,
        "meta": dict(endpoint.meta),
    }


def _shown(prefix: Path, namer: Enumerating) -> list[str]:
    return [prefix.join(name).show() for name in namer.names()]


def _resident() -> float:
    with open("/proc/self/statm", "rb") as file:
        return float(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
