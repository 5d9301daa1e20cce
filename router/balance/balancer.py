"""The endpoints of one bound name, and the choice among them.

Addresses come from the bound name's activity. Endpoints that survive a change keep their loads and connections; each
change makes a new immutable picker. Exchanges that come before the first answer wait for it.
"""

from __future__ import annotations

from collections.abc import Callable

from dtab import Activity, Addr, AddrBound, AddrFailed, AddrPending, Endpoint, Failed, Ok, State
from router.balance.endpoints import keep_known
from router.balance.pool import Pool
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.metrics import Metrics
from router.model.service import Service
from router.model.strand import Waiter
from router.spi import MakePicker, Pick


class EndpointTarget:
    """One endpoint: its load (exchanges under way), its weight, its pool."""

    __slots__ = ("available", "endpoint", "load", "pool", "service", "weight")

    def __init__(self, endpoint: Endpoint, pool: Pool, wrap: Callable[[Service], Service]) -> None:
        self.endpoint = endpoint
        self.pool = pool
        self.weight = endpoint.weight
        self.load = 0
        self.available = True
        self.service: Service = wrap(pool.conduct)


class Balancer:
    """Conducts exchanges with the endpoints of one name; ``conduct`` is the service."""

    def __init__(
        self,
        addr: Activity[Addr],
        make_picker: MakePicker,
        make_pool: Callable[[Endpoint], Pool],
        wrap: Callable[[Service], Service],
        metrics: Metrics,
    ) -> None:
        self._make_picker = make_picker
        self._make_pool = make_pool
        self._wrap = wrap
        self._known: Addr = AddrPending()
        self._targets: dict[Endpoint, EndpointTarget] = {}
        self._pick: Pick = make_picker(())
        self._waiters: dict[int, Waiter[None]] = {}
        metrics.gauge("endpoints", lambda: len(self._targets))
        metrics.gauge("connections", lambda: sum(target.pool.sessions for target in self._targets.values()))
        metrics.gauge("load", lambda: sum(target.load for target in self._targets.values()))
        self._observation = addr.observe(self._news)

    @property
    def targets(self) -> list[EndpointTarget]:
        """The endpoints in use."""
        return list(self._targets.values())

    async def conduct(self, exchange: Exchange) -> None:
        """Pick an endpoint and let it conduct the exchange."""
        target = self._pick()
        if target is None:
            await self._wait()
            target = self._pick()
            if target is None:
                raise self._no_endpoints()
        assert isinstance(target, EndpointTarget)
        exchange.endpoint = target.endpoint
        target.load += 1
        try:
            await target.service(exchange)
        finally:
            target.load -= 1

    async def _wait(self) -> None:
        """Wait for the first answer of discovery."""
        if not isinstance(self._known, AddrPending):
            return
        waiter: Waiter[None] = Waiter()
        self._waiters[id(waiter)] = waiter
        try:
            await waiter
        finally:
            self._waiters.pop(id(waiter), None)

    def _no_endpoints(self) -> Failure:
        known = self._known
        why = f": {known.cause}" if isinstance(known, AddrFailed) else ""
        return Failure(Kind.NO_ENDPOINTS, f"no endpoints are available{why}", Blame.UPSTREAM, retryable=True)

    def _news(self, state: State[Addr]) -> None:
        if isinstance(state, Ok):
            news: Addr = state.value
        else:
            news = AddrFailed(str(state.error)) if isinstance(state, Failed) else AddrPending()
        known = keep_known(self._known, news)
        if known != self._known:
            self._known = known
            self._update(known.endpoints if isinstance(known, AddrBound) else frozenset())
        if not isinstance(known, AddrPending):
            waiters, self._waiters = self._waiters, {}
            for waiter in waiters.values():
                waiter.wake(None)

    def _update(self, endpoints: frozenset[Endpoint]) -> None:
        """Keep what survives, close what is gone, make a new picker."""
        before = self._targets
        ordered = sorted(endpoints, key=lambda endpoint: (endpoint.host, endpoint.port))
        self._targets = {
            endpoint: before.get(endpoint) or EndpointTarget(endpoint, self._make_pool(endpoint), self._wrap)
            for endpoint in ordered
        }
        self._pick = self._make_picker(tuple(self._targets.values()))
        for endpoint, target in before.items():
            if endpoint not in self._targets:
                target.available = False
                target.pool.close()

    def close(self) -> None:
        """Stop watching; exchanges under way finish."""
        self._observation.close()
        for target in self._targets.values():
            target.pool.close()
