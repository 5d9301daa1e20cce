"""What the pools of one client count, by Linkerd's names but for ``connect_failures``, ``stale_replays`` and ``expired/*``."""

from __future__ import annotations

from typing import Protocol

from router.model.metrics import Metrics


class Counted(Protocol):
    """A pool, as its figures are read."""

    @property
    def sessions(self) -> int: ...

    @property
    def idle(self) -> int: ...

    @property
    def waiting(self) -> int: ...


class PoolStats:
    """Counters, histograms and gauges. ``pools``: those that have sessions, or may have. ``client``: its name, for events."""

    def __init__(self, metrics: Metrics, client: str = "") -> None:
        self.client = client
        self.pools: set[Counted] = set()
        self._connects = metrics.counter("connects")
        self._failures = metrics.counter("connect_failures")
        self._latency = metrics.stat("connect_latency_ms")
        self._failed_latency = metrics.stat("failed_connect_latency_ms")
        self.cancelled = metrics.counter("cancelled_connects")
        self.replays = metrics.counter("stale_replays")
        self.waited = metrics.counter("pool_num_waited")
        self.too_many = metrics.counter("pool_num_too_many_waiters")
        expired = metrics.scope("expired")
        self._expired = {"idle": expired.counter("idle"), "lifetime": expired.counter("lifetime")}
        metrics.gauge("pool_size", lambda: sum(pool.sessions for pool in self.pools))
        metrics.gauge("pool_cached", lambda: sum(pool.idle for pool in self.pools))
        metrics.gauge("pool_waiters", lambda: sum(pool.waiting for pool in self.pools))

    def connected(self, milliseconds: float) -> None:
        """A connection has opened."""
        self._connects.value += 1
        self._latency.add(milliseconds)

    def failed(self, milliseconds: float) -> None:
        """A connection could not be opened."""
        self._failures.value += 1
        self._failed_latency.add(milliseconds)

    def expired(self, why: str) -> None:
        """A connection ends for its ``idle`` time or its ``lifetime``."""
        self._expired[why].value += 1
