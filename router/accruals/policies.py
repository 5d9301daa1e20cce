"""Linkerd's kinds: so many failures in a row, or a success rate that is too low over requests or over time.

Rates need something to go by: a full ``requests`` (by requests), ``MIN_REQUESTS`` in the window (by time).
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any

import attrs

from router.model.backoff import Backoff, equal_jitter
from router.spi import Accrual, AccrualContext, AccrualPolicy, Plugin

MIN_REQUESTS = 5
SLICES = 10
_BACKOFF = {"plugin": "backoff"}


class Consecutive:
    """``limit`` failures in a row."""

    __slots__ = ("_limit", "_row")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._row = 0

    def success(self) -> None:
        """Begin to count anew."""
        self._row = 0

    def failure(self) -> bool:
        """Whether that was the last straw."""
        self._row += 1
        return self._row >= self._limit

    revived = success


class Rate:
    """An exponential moving average over about ``requests`` requests below ``least``."""

    __slots__ = ("_least", "_mean", "_requests", "_seen", "_weight")

    def __init__(self, least: float, requests: int) -> None:
        self._least = least
        self._requests = requests
        self._weight = exp(-1 / requests)
        self._mean = 1.0
        self._seen = 0

    def _add(self, value: float) -> None:
        self._mean = value + (self._mean - value) * self._weight if self._seen else value
        self._seen += 1

    def success(self) -> None:
        """One more success."""
        self._mean = 1.0 + (self._mean - 1.0) * self._weight  # it begins with 1
        self._seen += 1

    def failure(self) -> bool:
        """Whether enough is known, and it is too bad."""
        self._add(0.0)
        return self._seen >= self._requests and self._mean < self._least

    def revived(self) -> None:
        """Nothing is known any more."""
        self._mean, self._seen = 1.0, 0


class Windowed:
    """The share of successes in the last ``window`` seconds, cut into ``SLICES``, below ``least``."""

    __slots__ = ("_bad", "_good", "_least", "_now", "_slice", "_tick")

    def __init__(self, least: float, window: float, now: Callable[[], float]) -> None:
        self._least = least
        self._slice = window / SLICES
        self._now = now
        self.revived()

    def revived(self) -> None:
        """Nothing is known any more."""
        self._good = [0] * SLICES
        self._bad = [0] * SLICES
        self._tick = int(self._now() / self._slice)

    def _at(self) -> int:
        """The slice of this moment; those that have become too old are emptied."""
        tick = int(self._now() / self._slice)
        for old in range(max(self._tick + 1, tick - SLICES + 1), tick + 1):
            self._good[old % SLICES] = self._bad[old % SLICES] = 0
        self._tick = tick
        return tick % SLICES

    def success(self) -> None:
        """One more success."""
        self._good[self._at()] += 1

    def failure(self) -> bool:
        """Whether enough is known, and it is too bad."""
        self._bad[self._at()] += 1
        good, bad = sum(self._good), sum(self._bad)
        return good + bad >= MIN_REQUESTS and good / (good + bad) < self._least


class Never:
    """No ejections."""

    __slots__ = ()

    def success(self) -> None:
        """Nothing to count."""

    def failure(self) -> bool:
        """Never."""
        return False

    def revived(self) -> None:
        """Nothing to begin anew."""


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if value < 1:
        raise ValueError(f"must be 1 or more, not {value:g}")


def _rate(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"must be between 0 and 1, not {value:g}")


@attrs.frozen
class ConsecutiveConfig:
    """``failures`` in a row. ``backoff``: of ejections, by default half to all of 5 s, doubling up to 300 s."""

    failures: int = attrs.field(default=5, validator=_positive)
    backoff: Any = attrs.field(default=None, metadata=_BACKOFF)


@attrs.frozen
class RateConfig:
    """``success_rate``: 0 to 1, over about ``requests``."""

    success_rate: float = attrs.field(validator=_rate)
    requests: int = attrs.field(validator=_positive)
    backoff: Any = attrs.field(default=None, metadata=_BACKOFF)


@attrs.frozen
class WindowedConfig:
    """``success_rate``: 0 to 1, over ``window`` seconds."""

    success_rate: float = attrs.field(validator=_rate)
    window: float = attrs.field(validator=_positive)
    backoff: Any = attrs.field(default=None, metadata=_BACKOFF)


@attrs.frozen
class NoConfig:
    """Nothing to configure."""


def _backoff(chosen: Any) -> Backoff:
    if chosen is None:
        return equal_jitter()
    made: Backoff = chosen.plugin.make(chosen.config, None)
    return made


def _kind(name: str, config: type[Any], policy: Callable[[Any, AccrualContext], AccrualPolicy]) -> Plugin:
    def make(given: Any, context: AccrualContext) -> Accrual:
        return Accrual(lambda: policy(given, context), _backoff(getattr(given, "backoff", None)))

    return Plugin(name, config, make)


CONSECUTIVE_FAILURES = _kind(
    "io.l5d.consecutiveFailures", ConsecutiveConfig, lambda given, context: Consecutive(given.failures)
)
SUCCESS_RATE = _kind("io.l5d.successRate", RateConfig, lambda given, context: Rate(given.success_rate, given.requests))
SUCCESS_RATE_WINDOWED = _kind(
    "io.l5d.successRateWindowed",
    WindowedConfig,
    lambda given, context: Windowed(given.success_rate, given.window, context.now),
)
NONE = _kind("none", NoConfig, lambda given, context: Never())
