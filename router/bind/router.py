"""A router: from a request to the service that conducts it.

Theory of operation

1. Identify the request (a path), then look up (path, the request's own dtab) in a cache of *entries*. A head that is going
   to come again remembers its entry, so that a repeated request costs one comparison.
2. An entry observes what its path is bound to. Each new tree is compiled into a choice among clients' services; exchanges
   under way keep the one they have. Before the first answer exchanges wait, at most ``binding_timeout``.
3. A *client* is the balancer of one bound id, shared by all entries that lead to it and kept for ``idle_ttl`` after the last
   of them has gone.
4. Bounds: ``paths`` entries. When there are more, the idle one that was used longest ago makes room; with none idle the new
   entry serves its exchange only. Entries idle for ``idle_ttl`` go, and with them their metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import attrs

from dtab import Bound, Dtab, Failed, Leaf, NameTree, Ok, Path, State, Union
from router.balance.balancer import Balancer
from router.balance.breaker import BreakerSettings, BreakerStats
from router.balance.pool import Pool, PoolSettings
from router.balance.pool_stats import PoolStats
from router.balance.roster import Roster
from router.balance.tunnels import Sessions, WithTunnels, for_tunnels
from router.bind.dyn import DynBinding, QueueFullError
from router.bind.pick import compile_pick
from router.bind.segments import CLIENT, PATH, ClientParams, PathParams
from router.filters.adaptive import AdaptiveConfig, AdaptiveLimit
from router.filters.admission import Gate
from router.filters.budget import Budget, BudgetConfig
from router.filters.hedge import HedgePolicy
from router.filters.retry import RetryPolicy
from router.filters.shedding import Shedding
from router.interpreters.default import Interpreter
from router.model.backoff import constant
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.service import Conducting, Service
from router.model.stack import Module, Stack
from router.model.strand import Waiter
from router.model.verdict import Classifier
from router.spi import Accrual, Balancing, Connect, Identifier
from router.tracing.tracing import Tracing

NO_LOCAL = Dtab()


@attrs.frozen
class ServiceSettings:
    """What is configured for a logical name. Seconds."""

    total_timeout: float | None = None
    classify: Classifier | None = None
    retries: RetryPolicy = attrs.field(factory=lambda: RetryPolicy(constant(0.0)))
    budget: BudgetConfig = attrs.field(factory=BudgetConfig)
    hedge: HedgePolicy | None = None


@attrs.frozen
class ClientSettings:
    """What is configured for a bound name. Seconds; ``connect`` opens sessions by the protocol of its endpoints. ``limit``:
    requests under way, of all entries that lead here; ``pending``: how many may wait for that. ``plain`` opens connections for
    CONNECT, where that is allowed."""

    connect: Connect
    balancing: Callable[[], Balancing]
    attempt_timeout: float | None = None
    limit: int | None = None
    pending: int = 0
    adaptive: AdaptiveConfig | None = None
    requeues: BudgetConfig = attrs.field(factory=BudgetConfig)
    accrual: Callable[[], Accrual] | None = None
    fail_fast: bool = False
    roster: Roster = attrs.field(factory=Roster)
    pool: PoolSettings = attrs.field(factory=PoolSettings)
    modules: tuple[Module, ...] = ()
    forward_client_cert: bool = False
    plain: Connect | None = None


@attrs.frozen
class RouterSettings:
    """Everything that a router is made of."""

    label: str
    identify: Identifier
    interpreter: Interpreter
    classify: Classifier
    service: Callable[[Path], ServiceSettings]
    client: Callable[[Path], ClientSettings]
    metrics: Metrics
    binding_timeout: float = 10.0
    max_timeout: float | None = None
    paths: int = 1000
    idle_ttl: float = 600.0
    tracing: Tracing | None = None


class Client:
    """The balancer of a bound id. ``refs`` counts the trees that lead here."""

    __slots__ = ("adaptive", "balancer", "gate", "idle_since", "metrics", "refs", "requeues", "settings")

    def __init__(
        self,
        balancer: Balancer,
        settings: ClientSettings,
        metrics: Metrics,
        requeues: Budget,
        gate: Gate | None,
        adaptive: AdaptiveLimit | None,
    ) -> None:
        self.gate = gate
        self.adaptive = adaptive
        self.balancer = balancer
        self.settings = settings
        self.requeues = requeues
        self.metrics = metrics
        self.refs = 0
        self.idle_since = 0.0


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
        self._clients: dict[Path, Client] = {}
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
            self._let_go(entry.clients)
            entry.clients = []
            if not any(other.key[0] == entry.key[0] for other in self._entries.values()):
                entry.metrics.remove()

    def _bound(self, entry: Entry, state: State[NameTree[Bound]]) -> None:
        """What the path is bound to has changed."""
        if isinstance(state, Failed):
            entry.binding.failed(state.error)
        if not isinstance(state, Ok):
            return
        clients: list[Client] = []
        services: dict[tuple[Path, Path], Service] = {}
        _walk(state.value, lambda bound: self._client_service(entry, bound, clients, services))
        pick = compile_pick(state.value, lambda bound: services[bound.id, bound.residual])
        before, entry.clients = entry.clients, clients
        entry.binding.named(pick)
        self._let_go(before)

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

    # -- clients --------------------------------------------------------------------------------------------

    def _client_service(
        self, entry: Entry, bound: Bound, clients: list[Client], services: dict[tuple[Path, Path], Service]
    ) -> None:
        key = (bound.id, bound.residual)
        if key in services:
            return
        client = self._clients.get(bound.id) or self._make_client(bound)
        client.refs += 1
        clients.append(client)
        path, local = entry.key
        configured = client.settings
        params = ClientParams(
            client.metrics,
            configured.attempt_timeout,
            path,
            bound.id,
            bound.residual,
            local or None,
            client.requeues,
            lambda: len(client.balancer.targets),
            client.gate,
            client.adaptive,
            configured.forward_client_cert,
            self.settings.tracing,
        )
        stack = Stack(CLIENT.modules + configured.modules)
        services[key] = _noting(bound, stack.make(params, client.balancer.conduct))

    def _make_client(self, bound: Bound) -> Client:
        configured = self.settings.client(bound.id)
        metrics = self.settings.metrics.scope("client", bound.id.show().lstrip("/"))

        pool_stats = PoolStats(metrics, bound.id.show())

        def make_pool(endpoint: Any) -> Sessions:
            address = (endpoint.host, endpoint.port)
            pool = Pool(self.host, configured.connect, address, configured.pool, pool_stats)
            if configured.plain is None:
                return pool
            tunnels = Pool(self.host, configured.plain, address, for_tunnels(configured.pool), pool_stats)
            return WithTunnels(pool, tunnels)

        breakers = None
        if configured.accrual is not None:
            stats = BreakerStats(metrics)
            accrual, name = configured.accrual(), bound.id.show()
            breakers = BreakerSettings(self.host, accrual, stats, name, configured.fail_fast)
        timers, wait = self.host.timers, self.settings.binding_timeout
        balancer = Balancer(bound.addr, configured.balancing(), make_pool, timers, metrics, breakers, configured.roster, wait)
        requeues = Budget(configured.requeues, self.host.timers.now)
        gate, adaptive = self._limits(bound, configured, metrics)
        client = self._clients[bound.id] = Client(balancer, configured, metrics, requeues, gate, adaptive)
        return client

    def _limits(self, bound: Bound, configured: ClientSettings, metrics: Metrics) -> tuple[Gate | None, AdaptiveLimit | None]:
        """The limit of a client, and what moves it. To HTTP/2 clients its refusals are statuses that say when to come again."""
        limit, adaptive = configured.limit, configured.adaptive
        if adaptive is not None:
            limit = adaptive.high if limit is None else min(limit, adaptive.high)
        if limit is None:
            return None, None
        shedding = Shedding(self.host, metrics, bound.id.show(), 503)
        gate = Gate(self.host, limit, configured.pending, shedding, metrics)
        if adaptive is None:
            return gate, None
        return gate, AdaptiveLimit(attrs.evolve(adaptive, high=limit), gate, self.host, metrics)

    def _let_go(self, clients: list[Client]) -> None:
        for client in clients:
            client.refs -= 1
            client.idle_since = self.host.timers.now()

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
        for path in [path for path, client in self._clients.items() if not client.refs and client.idle_since < before]:
            client = self._clients.pop(path)
            client.balancer.close()
            client.metrics.remove()
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
        for client in self._clients.values():
            client.balancer.close()

    @property
    def clients(self) -> dict[Path, Client]:
        """The clients by bound id."""
        return self._clients


def _walk(tree: NameTree[Bound], visit: Callable[[Bound], None]) -> None:
    if isinstance(tree, Leaf):
        visit(tree.value)
    elif isinstance(tree, Union):
        for branch in tree.branches:
            _walk(branch.tree, visit)


def _noting(bound: Bound, service: Service) -> Service:
    def bound_service(exchange: Exchange) -> Conducting:
        exchange.bound = bound
        return service(exchange)

    return bound_service


def _throw(what: tuple[Waiter[Any], Failure]) -> None:
    what[0].throw(what[1])
