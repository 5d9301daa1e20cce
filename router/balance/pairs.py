"""The power of two choices: of two endpoints drawn at random, the better one.

Where weights differ they are also the odds of being drawn: otherwise idle endpoints, whose loads are all zero, would be
picked alike whatever they weigh.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, chain

from router.spi import Pick, Target

Cost = Callable[[Target], float]
Draw = Callable[[], tuple[Target, Target]]


def pairs(targets: Sequence[Target], random: Callable[[], float]) -> Draw:
    """Draws two targets: distinct ones, or, where weights differ, by their weights (perhaps the same twice)."""
    if len({target.weight for target in targets}) > 1:
        return _weighted(targets, random)
    count = len(targets)

    def draw() -> tuple[Target, Target]:
        first = int(random() * count)
        second = int(random() * (count - 1))
        return targets[first], targets[second + (second >= first)]

    return draw


def _weighted(targets: Sequence[Target], random: Callable[[], float]) -> Draw:
    bounds = list(accumulate(target.weight for target in targets))
    total = bounds.pop()  # without the last bound a draw that rounds up to the total still finds a target

    def draw() -> tuple[Target, Target]:
        return targets[bisect_right(bounds, random() * total)], targets[bisect_right(bounds, random() * total)]

    return draw


def better_of_two(targets: Sequence[Target], cost: Cost, effort: int, random: Callable[[], float]) -> Pick:
    """Picks by ``cost`` per weight; when ``effort`` draws found nothing available, whatever is, and else the last one drawn."""
    if len(targets) < 2:
        only = targets[0] if targets else None
        return lambda: only
    draw = pairs(targets, random)

    def pick() -> Target:
        for _ in range(effort):
            a, b = draw()
            best, other = (a, b) if cost(a) * b.weight <= cost(b) * a.weight else (b, a)
            if best.available:
                return best
            if other.available:
                return other
        return any_available(targets, random) or best

    return pick


def any_available(targets: Sequence[Target], random: Callable[[], float]) -> Target | None:
    """The first one that is available from a random place on; None when all are ejected."""
    start = int(random() * len(targets))
    return next((target for target in chain(targets[start:], targets[:start]) if target.available), None)
