"""A router: from a request to the service that conducts it.

Theory of operation

1. Identify the request (a path), then look up (path, the request's own dtab) in a cache of *entries*. A head that is going
   to come again remembers its entry, so that a repeated request costs one comparison.
2. An entry observes what its path is bound to. Each new tree is compiled into a choice among clients' services
   (:mod:`router.bind.clients`); exchanges under way keep the one they have. Before the first answer exchanges wait, at most
   ``binding_timeout``.
3. Bounds: ``paths`` entries. When there are more, the idle one that was used longest ago makes room; with none idle the new
   entry serves its exchange only. Entries idle for ``idle_ttl`` go, and with them their metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from dtab import Bound, Dtab, Failed, NameTree, Ok, Path, State
from router.bind.clients import Client, Clients
from router.bind.dyn import DynBinding, QueueFullError
from router.bind.pick import compile_pick
from router.bind.segments import PATH, PathParams
from router.bind.settings import RouterSettings
from router.filters.budget import Budget, BudgetConfig
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.service import Conducting, Service
from router.model.strand import Waiter

NO_LOCAL = Dtab()


class Entry:
    """One (path, local dtab): its service, its binding, the clients that its present tree leads to."""

    __slots__ = ("active", "binding", "clients", "closed", "key", "metrics", "observation", "service", "used")

    def __init__(self, key: tuple[Path, Dtab], metrics: Metrics) -> None:
        self.key = key
        self.metrics = metrics
        self.binding: DynBinding[Callable[[], Service | None]] = DynBinding()
        self.clients: list[Client] = []
        self.service: Service
        self.observation: Any = None
        self.active = 0
        self.used = 0.0
        self.closed = False


class RouterCore:
    """See the theory of operation. ``route`` is the service below the server stack."""

    def __init__(self, host: Host, settings: RouterSettings) -> None:
        self.host = host
        self.settings = settings
        self._entries: dict[tuple[Path, Dtab], Entry] = {}
        self._clients = Clients(host, settings)
        self._budgets: WeakValueDictionary[Path, Budget] = WeakValueDictionary()
        self._sweeper: Any = None
        settings.metrics.gauge("bindings", lambda: len(self._entries))

    # -- requests -------------------------------------------------------------------------------------------

    async def route(self, exchange: Exchange) -> None:
        """Identify, look up, conduct."""
        head = exchange.request
        routed = head.routed
        if routed is not None and routed[0] is self and exchange.local_dtab is None and not routed[1].closed:
            entry: Entry = routed[1]
            exchange.path = entry.key[0]
        else:
            entry = self._find(exchange)
        entry.active += 1
        entry.used = exchange.received_at
        try:
            await entry.service(exchange)
        finally:
            entry.active -= 1
            if entry.closed and not entry.active:
                self._release(entry)

    def _find(self, exchange: Exchange) -> Entry:
        head = exchange.request
        found = self.settings.identify(head)
        if isinstance(found, str):
            raise Failure(Kind.UNIDENTIFIED, found, Blame.CLIENT)
        if isinstance(found, Path):
            path = found
        else:
            path, exchange.request = found
        exchange.path = path
        local = exchange.local_dtab
        key = (path, NO_LOCAL if local is None else local)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._make_entry(key)
        if local is None and head.shared and exchange.request is head:
            head.routed = (self, entry)
        return entry

    # -- entries --------------------------------------------------------------------------------------------

    def _make_entry(self, key: tuple[Path, Dtab]) -> Entry:
        settings = self.settings
        path, local = key
        configured = settings.service(path)
        metrics = settings.metrics.scope("service", path.show().lstrip("/"))
        entry = Entry(key, metrics)
        budget = self._budget(path, configured.budget)
        params = PathParams(
            metrics,
            configured.classify or settings.classify,
            configured.total_timeout,
            settings.max_timeout,
            configured.retries,
            budget,
            configured.hedge,
        )
        entry.service = PATH.make(params, self._pick_service(entry))
        if self._make_room():
            self._entries[key] = entry
        else:
            entry.closed = True  # full of busy ones: this one lives as long as its exchange
        tree = settings.interpreter.bind(path, local or None)
        entry.observation = tree.observe(lambda state: self._bound(entry, state))
        return entry

    def _budget(self, path: Path, configured: BudgetConfig) -> Budget:
        """The retry budget of a logical name: one, whatever dtabs its requests bring; it lives as long as its entries."""
        budget = self._budgets.get(path)
        if budget is None:
            budget = self._budgets[path] = Budget(configured, self.host.timers.now)
        return budget

    def _make_room(self) -> bool:
        if len(self._entries) < self.settings.paths:
            return True
        idle = [entry for entry in self._entries.values() if not entry.active]
        if not idle:
            return False
        self._evict(min(idle, key=lambda entry: entry.used))
        return True

    def _evict(self, entry: Entry) -> None:
        self._entries.pop(entry.key, None)
        entry.closed = True
        self._release(entry)

    def _release(self, entry: Entry) -> None:
        """An entry that is closed and idle lets go of everything."""
        if entry.observation is not None:
            entry.observation.close()
            entry.observation = None
            entry.binding.close()
            self._clients.let_go(entry.clients)
            entry.clients = []
            if not any(other.key[0] == entry.key[0] for other in self._entries.values()):
                entry.metrics.remove()

    def _bound(self, entry: Entry, state: State[NameTree[Bound]]) -> None:
        """What the path is bound to has changed."""
        if isinstance(state, Failed):
            entry.binding.failed(state.error)
        if not isinstance(state, Ok):
            return
        clients, services = self._clients.hold(state.value, *entry.key)
        pick = compile_pick(state.value, lambda bound: services[bound.id, bound.residual])
        before, entry.clients = entry.clients, clients
        entry.binding.named(pick)
        self._clients.let_go(before)

    def _pick_service(self, entry: Entry) -> Service:
        binding = entry.binding

        async def picked_late(exchange: Exchange) -> None:
            await picked(exchange, await self._wait(exchange, entry))

        def picked(exchange: Exchange, pick: Callable[[], Service | None]) -> Conducting:
            service = pick()
            if service is None:
                raise Failure(Kind.UNBOUND, self._unbound_text(exchange), Blame.ROUTER)
            return service(exchange)

        def pick_service(exchange: Exchange) -> Conducting:
            pick = binding.current
            return picked_late(exchange) if pick is None else picked(exchange, pick)

        return pick_service

    async def _wait(self, exchange: Exchange, entry: Entry) -> Callable[[], Service | None]:
        """Wait for the first answer."""
        waiter = entry.binding.request()
        limit = self.settings.binding_timeout
        text = f"Exceeded {limit:g}.seconds binding timeout while resolving name: {exchange.path.show()}"
        expired = Failure(Kind.BINDING_TIMEOUT, text, Blame.ROUTER, retryable=True)
        timer = self.host.timers.after(limit, _throw, (waiter, expired))
        try:
            return await waiter
        except Failure:
            raise
        except QueueFullError:
            why = f"too many requests wait for {exchange.path.show()} to be resolved"
            raise Failure(Kind.OVERLOADED, why, retryable=True, rejected=True) from None
        except Exception as error:
            raise Failure(Kind.UNBOUND, f"cannot resolve {exchange.path.show()}: {error}", Blame.ROUTER) from error
        finally:
            timer.cancel()
            entry.binding.cancel(waiter)

    def _unbound_text(self, exchange: Exchange) -> str:
        lines = ["Unable to route request!", "", f"service name: {exchange.path.show()}"]
        tables = (("dtab", None), ("base dtab", self.settings.interpreter.dtab), ("override dtab", exchange.local_dtab))
        for title, table in tables:  # the first is that of an interpreter with a table of its own
            lines += [f"{title}:", *[f"  {dentry.show().replace('=>', ' => ', 1)}" for dentry in table or ()]]
        return "\n".join(lines)

    # -- time -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to sweep out what is idle."""
        self._sweeper = self.host.timers.after(max(self.settings.idle_ttl / 2, 0.01), self._sweep)

    def _sweep(self, _: Any) -> None:
        now = self.host.timers.now()
        before = now - self.settings.idle_ttl
        for entry in self._entries.values():
            if entry.active:
                entry.used = now  # idleness begins with the end of its last exchange, give or take half of idle_ttl
        for entry in [entry for entry in self._entries.values() if not entry.active and entry.used < before]:
            self._evict(entry)
        self._clients.sweep(before)
        self.start()

    def close(self) -> None:
        """Let go of everything; exchanges under way finish."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for entry in list(self._entries.values()):
            self._entries.pop(entry.key, None)
            entry.closed = True
            if not entry.active:
                self._release(entry)
        self._clients.close()

    @property
    def clients(self) -> dict[Path, Client]:
        """The clients by bound id."""
        return self._clients.by_id


def _throw(what: tuple[Waiter[Any], Failure]) -> None:
    what[0].throw(what[1])
