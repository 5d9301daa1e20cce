"""What each of several workers gets of what is configured for all of them."""

from __future__ import annotations

from typing import Any

import pytest

from dtab import read_path
from router.app import running
from router.config.load import load_text
from router.config.plugins import Registry
from router.config.schema import Budget
from router.settings import budget_config, limit_part, part, seconds

TEXT = """
routers:
- protocol: http
  label: web
  dtab: /svc => /$/inet/127.0.0.1/1
  servers: [{port: 0, maxConcurrentRequests: 9}]
  service: {retries: {budget: {minRetriesPerSec: 10, percentCanRetry: 0.5}}}
  client:
    maxConcurrentRequests: 10
    maxPendingRequests: 3
    adaptiveConcurrency: {minLimit: 3, maxLimit: 100}
    requeueBudget: {minRetriesPerSec: 1}
    hostConnectionPool: {minSize: 1, maxSize: 6, maxWaiters: 100}
"""


async def client_of(workers: int) -> Any:
    """The settings of a client in one of that many workers."""
    registry = Registry()
    loaded = load_text(TEXT, "test.yaml", registry)
    assert loaded.config is not None, loaded.render()
    async with running(loaded.config, registry, workers=workers) as worker:
        core = worker.routers["web"]
        return core.settings.client(read_path("/$/inet/127.0.0.1/1")), core.settings.service(read_path("/svc/a"))


@pytest.mark.parametrize(
    ("workers", "limit", "pending", "adaptive", "pool", "requeues", "retries"),
    [(1, 10, 3, (3, 100), (1, 6, 100), 1.0, 10.0), (4, 3, 1, (1, 25), (1, 2, 25), 0.25, 2.5)],
)
async def test_limits_and_reserves_are_divided(
    workers: int,
    limit: int,
    pending: int,
    adaptive: tuple[int, int],
    pool: tuple[int, int, int],
    requeues: float,
    retries: float,
) -> None:
    client, service = await client_of(workers)
    assert (client.limit, client.pending) == (limit, pending)
    assert (client.adaptive.low, client.adaptive.high) == adaptive
    assert (client.pool.min_size, client.pool.max_connections, client.pool.max_waiters) == pool
    assert client.requeues.min_retries_per_sec == requeues
    assert (service.budget.min_retries_per_sec, service.budget.percent_can_retry) == (retries, 0.5)


def test_parts_are_never_too_small() -> None:
    assert [part(whole, 4) for whole in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert limit_part(None, 4) is None
    assert budget_config(Budget(0, 0.2, 10), 3).min_retries_per_sec == 0
    assert (seconds(None), seconds(1500)) == (None, 1.5)
