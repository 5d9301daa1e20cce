"""How long to wait before the next try: endless streams of seconds, one stream per thing that is tried.

``constant`` and decorrelated ``jittered`` are Linkerd 1.x's kinds (linkerd's ``backoff``); full jitter spreads most;
equal jitter is Finagle's default for endpoints that accrued failures (5 to 300 seconds).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import random as system_random

Random = Callable[[], float]
Backoff = Callable[[], Iterator[float]]
"""Begins a new stream of waits, in seconds."""

ACCRUAL_MIN, ACCRUAL_MAX = 5.0, 300.0


def constant(seconds: float) -> Backoff:
    """Always the same."""

    def begin() -> Iterator[float]:
        while True:
            yield seconds

    return begin


def decorrelated(low: float, high: float, random: Random = system_random) -> Backoff:
    """The first is ``low``, each further one uniform between ``low`` and three times the one before, at most ``high``."""

    def begin() -> Iterator[float]:
        wait = low
        while True:
            yield wait
            wait = min(high, low + (3 * wait - low) * random())

    return begin


def full_jitter(low: float, high: float, random: Random = system_random) -> Backoff:
    """Uniform between 0 and a bound that starts at ``low`` and doubles up to ``high``."""

    def begin() -> Iterator[float]:
        bound = low
        while True:
            yield bound * random()
            bound = min(high, 2 * bound)

    return begin


def equal_jitter(low: float = ACCRUAL_MIN, high: float = ACCRUAL_MAX, random: Random = system_random) -> Backoff:
    """Half of a bound that starts at ``low`` and doubles up to ``high``, and a uniform share of the other half."""

    def begin() -> Iterator[float]:
        bound = low
        while True:
            yield bound / 2 + bound / 2 * random()
            bound = min(high, 2 * bound)

    return begin
