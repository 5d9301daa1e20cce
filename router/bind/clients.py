"""The clients of a router: below a bound id one balancer, with its pools, limits and budget, and what leads to it.

Theory of operation

1. A *client* is shared by all names that are bound to its id, whatever their dtabs: made when a first tree leads to it, and
   kept for ``idle_ttl`` after the last of these trees has gone.
2. What depends on the name as well (the residual path, the dtab that goes on with the request) is in the *service* that is
   made for each name, id and residual when a tree comes: a stack of closures over the client. Per request nothing is made.
3. A tree that replaces another holds its clients before the other lets go: those in both are not made anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from dtab import Bound, Dtab, Leaf, NameTree, Path, Union
from router.balance.balancer import Balancer
from router.balance.breaker import BreakerSettings, BreakerStats
from router.balance.pool import Pool
from router.balance.pool_stats import PoolStats
from router.balance.tunnels import Sessions, WithTunnels, for_tunnels
from router.bind.segments import CLIENT, ClientParams
from router.bind.settings import ClientSettings, RouterSettings
from router.filters.adaptive import AdaptiveLimit
from router.filters.admission import Gate
from router.filters.budget import Budget
from router.filters.shedding import Shedding
from router.model.exchange import Exchange
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.service import Conducting, Service
from router.model.stack import Stack


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


class Clients:
    """All clients of a router; ``by_id``: by bound id."""

    def __init__(self, host: Host, settings: RouterSettings) -> None:
        self.host = host
        self.settings = settings
        self.by_id: dict[Path, Client] = {}

    def hold(self, tree: NameTree[Bound], path: Path, local: Dtab) -> tuple[list[Client], dict[tuple[Path, Path], Service]]:
        """What ``tree`` leads to, for requests of ``path`` that brought ``local``: the clients, to be given back to
        :meth:`let_go`, and services by bound id and residual."""
        clients: list[Client] = []
        services: dict[tuple[Path, Path], Service] = {}
        for bound in _leaves(tree):
            key = (bound.id, bound.residual)
            if key not in services:
                client = self.by_id.get(bound.id) or self._make(bound)
                client.refs += 1
                clients.append(client)
                services[key] = self._service(client, bound, path, local)
        return clients, services

    def let_go(self, clients: list[Client]) -> None:
        """Give back what :meth:`hold` returned."""
        for client in clients:
            client.refs -= 1
            client.idle_since = self.host.timers.now()

    def sweep(self, before: float) -> None:
        """Close the clients that nothing has led to since ``before``, and remove their metrics."""
        for path in [path for path, client in self.by_id.items() if not client.refs and client.idle_since < before]:
            client = self.by_id.pop(path)
            client.balancer.close()
            client.metrics.remove()

    def close(self) -> None:
        """Close all of them; exchanges under way finish."""
        for client in self.by_id.values():
            client.balancer.close()

    def _service(self, client: Client, bound: Bound, path: Path, local: Dtab) -> Service:
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
        return _noting(bound, stack.make(params, client.balancer.conduct))

    def _make(self, bound: Bound) -> Client:
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
        client = self.by_id[bound.id] = Client(balancer, configured, metrics, requeues, gate, adaptive)
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


def _leaves(tree: NameTree[Bound]) -> Iterator[Bound]:
    if isinstance(tree, Leaf):
        yield tree.value
    elif isinstance(tree, Union):
        for branch in tree.branches:
            yield from _leaves(branch.tree)


def _noting(bound: Bound, service: Service) -> Service:
    def bound_service(exchange: Exchange) -> Conducting:
        exchange.bound = bound
        return service(exchange)

    return bound_service
