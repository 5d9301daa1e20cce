"""What a worker tells about itself: metrics, and the state of names and clients. JSON values, made in small pieces, so that
nobody's question holds an exchange up.

Bounds: ``PIECE`` metrics or clients between two turns of the loop.
"""

from __future__ import annotations

import json
import os
import resource
from typing import Any

import attrs
import trio

from dtab import AddrPending, Path, read_dtab, read_path
from dtab.explain import addr_json, to_json
from router.app import Worker
from router.explain import settled
from router.filters.context import local_dtab
from router.model.failure import Failure
from router.model.headers import RequestHead
from router.serve.channel import Handler
from router.spi import Enumerating, Watching
from router.telemeters.snapshot import Snapshot

PIECE = 50


class Answers:
    """The handlers of the questions about ``worker``."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.handlers: dict[str, Handler] = {
            "metrics": self.metrics,
            "clients": self.clients,
            "delegate": self.delegate,
            "identify": self.identify,
            "bound_names": self.bound_names,
            "namer_state": self.namer_state,
            "events": self.events,
            "requests": self.requests,
        }
        process = worker.metrics.scope("process")
        process.gauge("resident_bytes", _resident)
        process.gauge("open_fds", _open_fds)
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

    async def identify(
        self, routers: list[str], method: str, authority: str, path: str, fields: list[list[str]], version: str
    ) -> dict[str, Any]:
        """How these routers would name a request: the name and the dtab under which it would be bound, or why there is none.
        Characters stand for bytes."""
        pairs = tuple([(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields])
        major, _, minor = version.partition(".")
        asked, host, target = method.encode("latin-1"), authority.encode("latin-1"), path.encode("latin-1")
        head = RequestHead(asked, b"http", host, target, pairs, version=(int(major), int(minor or 0)))
        return {label: self._identified(label, head) for label in routers}

    def _identified(self, label: str, head: RequestHead) -> dict[str, str]:
        try:
            local = local_dtab(head, {})
        except Failure as failure:
            return {"error": failure.why}
        found = self._worker.routers[label].settings.identify(head)
        if isinstance(found, str):
            return {"error": found}
        path = found if isinstance(found, Path) else found[0]
        return {"path": path.show(), "dtab": (self._worker.interpreters[label].dtab + local).show()}

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


def _open_fds() -> float:
    """The limit, where none is left to look with."""
    try:
        return float(len(os.listdir("/proc/self/fd")))
    except OSError:
        return float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _resident() -> float:
    with open("/proc/self/statm", "rb") as file:
        return float(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
