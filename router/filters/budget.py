"""Retry budgets: a share of the requests of the last seconds may be sent again, and a few per second in any case.

The token bucket of Finagle and Linkerd 1.x: each request deposits, each retry withdraws ``1 / percentCanRetry`` deposits, and
both are forgotten after ``ttl`` seconds. A constant reserve of ``minRetriesPerSec * ttl`` retries keeps quiet routers able to
retry. Retries do not deposit, so that retries never feed on retries: with the defaults amplification stays below 1.2
plus ten retries per second. Time is cut into ten slices, whatever the traffic.

Unlike theirs, a request that fails all the same takes its deposit back (:meth:`Budget.revoke`). Where hardly anything succeeds
retries are of no use, and a fifth more work is what keeps an overloaded service from recovering.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor

import attrs

SLICES = 10
DEPOSIT = 1000
EXACT = 1e-6  # of a deposit: less is rounding
LEAST_SHARE = 1e-6  # less is none


@attrs.frozen
class BudgetConfig:
    """``retries.budget`` and ``requeueBudget``, as in Linkerd."""

    min_retries_per_sec: float = 10
    percent_can_retry: float = 0.2
    ttl_secs: float = 10


class Budget:
    """One budget, on the clock ``now`` (seconds)."""

    __slots__ = ("__weakref__", "_at", "_deposit", "_now", "_reserve", "_slice", "_slices", "_sum", "_ttl", "_until",
                 "_withdrawal")  # fmt: skip

    def __init__(self, config: BudgetConfig, now: Callable[[], float]) -> None:
        share = config.percent_can_retry if config.percent_can_retry >= LEAST_SHARE else 0.0
        self._now = now
        self._deposit = DEPOSIT if share > 0 else 0
        self._withdrawal = DEPOSIT / share if share > 0 else DEPOSIT
        self._reserve = config.min_retries_per_sec * config.ttl_secs * self._withdrawal
        self._ttl = config.ttl_secs
        self._slice = config.ttl_secs / SLICES
        self._slices = [0.0] * SLICES
        self._at = 0
        self._sum = 0.0
        self._until = now() + self._slice

    def deposit(self, now: float) -> None:
        """A request came; ``now`` may lag a little."""
        if now >= self._until:
            self._turn()
        self._slices[self._at] += self._deposit
        self._sum += self._deposit

    def allows(self) -> bool:
        """Whether there is a retry left, as of the last deposit."""
        return self._sum + self._reserve + EXACT >= self._withdrawal

    def withdraw(self) -> bool:
        """Take one retry; False when there is none left."""
        if self.balance < 1:
            return False
        self._slices[self._at] -= self._withdrawal
        self._sum -= self._withdrawal
        return True

    def revoke(self, since: float) -> None:
        """Take back the deposit of a request that came at ``since`` and has failed for good, unless it is forgotten already."""
        now = self._now()
        if now - since < self._ttl:
            if now >= self._until:
                self._turn()
            self._slices[self._at] -= self._deposit
            self._sum -= self._deposit

    @property
    def balance(self) -> int:
        """How many retries there are now."""
        if self._now() >= self._until:
            self._turn()
        return floor((self._sum + self._reserve) / self._withdrawal + 1e-9)

    def _turn(self) -> None:
        """Forget what is older than the time to live."""
        gone = min(SLICES, int((self._now() - self._until) / self._slice) + 1)
        for _ in range(gone):
            self._at = (self._at + 1) % SLICES
            self._sum -= self._slices[self._at]
            self._slices[self._at] = 0.0
        self._until = self._now() + self._slice
        if gone == SLICES:
            self._sum = 0.0  # and no rounding errors are carried along
