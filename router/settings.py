"""What is configured, as what stacks, pools and budgets are made with: seconds for milliseconds, this worker's part of what is
for all of them together.

Limits of requests and connections, and the retries that a budget has a second, are configured for a router; each of its
workers has an equal part, rounded up. What is a ratio (a percentage, a success rate) or belongs to one connection is as it is.
"""

from __future__ import annotations

from typing import Any

from router.balance.pool import PoolSettings
from router.balance.roster import Roster
from router.config.edge import AddForwardedHeader
from router.config.schema import Budget, ClientBase, ServiceBase, SessionConfig
from router.filters.adaptive import AdaptiveConfig
from router.filters.budget import BudgetConfig
from router.filters.forwarded import ForwardedConfig, Label
from router.filters.hedge import HedgePolicy
from router.filters.retry import RetryPolicy
from router.model.backoff import constant
from router.model.expiry import SessionLimits
from router.spi import ProtocolPlugin


def part(whole: int, workers: int) -> int:
    """One worker's part of a limit."""
    return -(-whole // workers)


def limit_part(whole: int | None, workers: int) -> int | None:
    """One worker's part of a limit, where there is one."""
    return None if whole is None else part(whole, workers)


def retry_policy(base: ServiceBase) -> RetryPolicy:
    """``retries`` but the budget."""
    chosen = base.retries.backoff
    return RetryPolicy(
        backoff=constant(0.0) if chosen is None else chosen.plugin.make(chosen.config, None),
        max_retries=base.retries.max_retries,
        request_bytes=base.retry_buffer_size.request_bytes,
        response_bytes=base.retry_buffer_size.response_bytes,
        patience=base.classification_timeout_ms / 1000,
    )


def adaptive_config(base: ClientBase, workers: int) -> AdaptiveConfig | None:
    """``adaptiveConcurrency``."""
    adaptive = base.adaptive_concurrency
    if adaptive is None:
        return None
    return AdaptiveConfig(part(adaptive.min_limit, workers), part(adaptive.max_limit, workers))


def hedge_policy(base: ServiceBase) -> HedgePolicy | None:
    """``hedging``."""
    hedging = base.hedging
    return None if hedging is None else HedgePolicy(seconds(hedging.delay_ms), hedging.percentile)


def roster(chosen: Any) -> Roster:
    """The keys that all kinds of balancers have; one of another package need not."""
    config = None if chosen is None else chosen.config
    return Roster(getattr(config, "slow_start_secs", 0.0), getattr(config, "enable_probation", False))


def pool_settings(base: ClientBase, protocol: ProtocolPlugin, workers: int) -> PoolSettings:
    """``hostConnectionPool`` and ``clientSession``."""
    given = base.host_connection_pool
    surplus, least = seconds(given.idle_time_ms), part(given.min_size, workers)
    if surplus is None and protocol.surplus_idle is not None:
        surplus, least = protocol.surplus_idle, max(1, least)
    return PoolSettings(
        per_connection=protocol.per_connection,
        max_connections=limit_part(given.max_size, workers) or protocol.max_connections,
        min_size=least,
        max_waiters=part(given.max_waiters, workers),
        surplus_idle=surplus,
        session=session_limits(base.client_session),
        connect_timeout=base.connect_timeout_ms / 1000,
    )


def session_limits(given: SessionConfig) -> SessionLimits:
    """``clientSession`` and ``serverSession``."""
    return SessionLimits(seconds(given.idle_time_ms), seconds(given.life_time_ms))


def budget_config(given: Budget, workers: int) -> BudgetConfig:
    """``retries.budget`` and ``requeueBudget``."""
    return BudgetConfig(given.min_retries_per_sec / workers, given.percent_can_retry, given.ttl_secs)


def seconds(milliseconds: int | None) -> float | None:
    """Milliseconds in seconds, where there are any."""
    return None if milliseconds is None else milliseconds / 1000


def forwarded(given: AddForwardedHeader | None, router: str) -> ForwardedConfig | None:
    """How ``Forwarded`` is written by a server of the router with that label."""
    if given is None:
        return None
    by, sender = [Label(one.kind, one.label or router) for one in (given.by, given.for_)]
    return ForwardedConfig(by, sender)
