"""``p2c``: of two endpoints drawn at random, the one with fewer exchanges under way per weight.

Where weights differ they are also the odds of being drawn: otherwise idle endpoints, whose loads are all zero, would be
picked alike whatever they weigh.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import attrs

from router.spi import BalancerContext, Balancing, Pick, Plugin, Target


def _positive(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value < 1:
        raise ValueError(f"{attribute.name} must be 1 or more, not {value}")


@attrs.frozen
class Config:
    """``max_effort``: how many pairs are drawn in search of an endpoint that is available."""

    max_effort: int = attrs.field(default=5, validator=_positive)


def make(config: Config, context: BalancerContext) -> Balancing:
    """Pickers with ``config.max_effort``."""
    random = context.random

    def make_picker(targets: Sequence[Target]) -> Pick:
        if len({target.weight for target in targets}) > 1:
            return _weighted(tuple(targets), config.max_effort, random)
        if len(targets) > 1:
            return _pairs(tuple(targets), config.max_effort, random)
        only = targets[0] if targets else None
        return lambda: only

    return Balancing(make_picker)


def _pairs(targets: tuple[Target, ...], effort: int, random: Callable[[], float]) -> Pick:
    count = len(targets)

    def pick() -> Target:
        for _ in range(effort):
            first = int(random() * count)
            second = int(random() * (count - 1))
            a, b = targets[first], targets[second + (second >= first)]
            best = a if a.load * b.weight <= b.load * a.weight else b
            if best.available:
                return best
            best = b if best is a else a
            if best.available:
                return best
        return best

    return pick


def _weighted(targets: tuple[Target, ...], effort: int, random: Callable[[], float]) -> Pick:
    bounds = list(accumulate(target.weight for target in targets))
    total = bounds.pop()  # without the last bound a draw that rounds up to the total still finds a target

    def pick() -> Target:
        for _ in range(effort):
            a, b = targets[bisect_right(bounds, random() * total)], targets[bisect_right(bounds, random() * total)]
            best = a if a.load * b.weight <= b.load * a.weight else b
            if best.available:
                return best
            best = b if best is a else a
            if best.available:
                return best
        return best

    return pick


PLUGIN = Plugin("p2c", Config, make)
