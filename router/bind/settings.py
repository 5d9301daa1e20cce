"""What a router is made of: plain values and factories for a logical name, for a bound name, and for all of it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from dtab import Path
from router.balance.pool import PoolSettings
from router.balance.roster import Roster
from router.filters.adaptive import AdaptiveConfig
from router.filters.budget import BudgetConfig
from router.filters.hedge import HedgePolicy
from router.filters.retry import RetryPolicy
from router.interpreters.default import Interpreter
from router.model.backoff import constant
from router.model.metrics import Metrics
from router.model.stack import Module
from router.model.verdict import Classifier
from router.spi import Accrual, Balancing, Connect, Identifier
from router.tracing.tracing import Tracing


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
