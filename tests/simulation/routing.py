"""From policies to a router: what a configuration file would set, as values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from dtab import AddrBound, Bound, Dtab, Leaf, Ok, Source, constant, read_path
from router.accruals.policies import CONSECUTIVE_FAILURES, SUCCESS_RATE, SUCCESS_RATE_WINDOWED
from router.balance import aperture, ewma, heap, p2c, round_robin
from router.balance.pool import PoolSettings
from router.balance.roster import Roster
from router.bind.router import RouterCore
from router.bind.settings import ClientSettings, RouterSettings, ServiceSettings
from router.classifiers.http import NON_RETRYABLE_5XX, RETRYABLE_READ_5XX
from router.filters.adaptive import AdaptiveConfig
from router.filters.budget import BudgetConfig
from router.filters.hedge import HedgePolicy
from router.filters.retry import RetryPolicy
from router.model.backoff import Backoff
from router.model.backoff import constant as always
from router.model.metrics import Metrics
from router.spi import AccrualContext, BalancerContext, Connect
from tests.simulation.endpoints import Machine, Network
from tests.simulation.world import World

BALANCERS: dict[str, Any] = {"p2c": p2c, "ewma": ewma, "heap": heap, "roundRobin": round_robin, "aperture": aperture}
ACCRUALS = {
    "io.l5d.consecutiveFailures": CONSECUTIVE_FAILURES,
    "io.l5d.successRate": SUCCESS_RATE,
    "io.l5d.successRateWindowed": SUCCESS_RATE_WINDOWED,
}
STREAMS = 100
PATH, CLIENT = read_path("/svc/web"), read_path("/#/sim/web")


@attrs.frozen
class Policies:
    """The keys of ``service`` and ``client`` that concern reliability. Seconds. ``balancing`` and ``accrual``: the
    configuration of the kind. ``accrual`` None is the kind ``none``."""

    balancer: str = "p2c"
    balancing: dict[str, Any] = attrs.field(factory=dict)
    retries: bool = False
    budget: BudgetConfig = attrs.field(factory=BudgetConfig)
    max_retries: int = 24
    backoff: Backoff = attrs.field(factory=lambda: always(0.0))
    requeues: BudgetConfig = attrs.field(factory=BudgetConfig)
    accrual: str | None = None
    accruing: dict[str, Any] = attrs.field(factory=dict)
    fail_fast: bool = False
    attempt_timeout: float | None = None
    total_timeout: float | None = None
    hedge: HedgePolicy | None = None
    adaptive: AdaptiveConfig | None = None


class _Interpreter:
    """Binds every path to one client, whose addresses a test changes."""

    dtab = Dtab()

    def __init__(self, addr: Any) -> None:
        self._tree = constant(Leaf(Bound(CLIENT, addr)))

    def bind(self, path: Any, local: Any) -> Any:
        return self._tree


class Router:
    """A router in front of ``machines``; ``route`` is its service, ``addresses`` its discovery."""

    def __init__(self, world: World, machines: list[Machine], policies: Policies, connect: Connect | None = None) -> None:
        self.metrics = Metrics()
        self.addresses: Source[Any] = Source()
        self.discover(machines)
        self._world = world
        classify = (RETRYABLE_READ_5XX if policies.retries else NON_RETRYABLE_5XX).make(None, None)
        self.core = RouterCore(
            world.host,
            RouterSettings(
                label="sim",
                identify=lambda head: PATH,
                interpreter=_Interpreter(self.addresses),  # type: ignore[arg-type]
                classify=classify,
                service=lambda path: _service(policies),
                client=lambda path: self._client(policies, connect or Network(world, machines, STREAMS).connect),
                metrics=self.metrics,
            ),
        )

    def discover(self, machines: list[Machine]) -> None:
        """Discovery says that these are the endpoints."""
        self.addresses.set(Ok(AddrBound(frozenset(machine.endpoint for machine in machines))))

    def _client(self, policies: Policies, connect: Connect) -> ClientSettings:
        now = self._world.now
        kind = BALANCERS[policies.balancer]
        accrual: Callable[[], Any] | None = None
        if policies.accrual is not None:
            plugin = ACCRUALS[policies.accrual]
            config = plugin.config(**policies.accruing)
            accrual = lambda: plugin.make(config, AccrualContext(now))  # noqa: E731
        balancing = kind.Config(**policies.balancing)
        return ClientSettings(
            connect=connect,
            balancing=lambda: kind.make(balancing, BalancerContext(now)),
            attempt_timeout=policies.attempt_timeout,
            adaptive=policies.adaptive,
            requeues=policies.requeues,
            accrual=accrual,
            fail_fast=policies.fail_fast,
            roster=Roster(balancing.slow_start_secs, balancing.enable_probation),
            pool=PoolSettings(per_connection=STREAMS, max_connections=10),
        )


def _service(policies: Policies) -> ServiceSettings:
    return ServiceSettings(
        total_timeout=policies.total_timeout,
        retries=RetryPolicy(policies.backoff, max_retries=policies.max_retries),
        budget=policies.budget,
        hedge=policies.hedge,
    )
