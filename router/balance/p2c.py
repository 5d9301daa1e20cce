"""``p2c``: of two endpoints drawn at random, the one with fewer exchanges under way per weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from router.balance.common import WithEffort
from router.balance.pairs import any_available, better_of_two
from router.spi import BalancerContext, Balancing, Pick, Plugin, Target


@attrs.frozen
class Config(WithEffort):
    """As all that draw."""


def make(config: Config, context: BalancerContext) -> Balancing:
    """Balancing by load."""
    random, effort = context.random, config.max_effort

    def make_picker(targets: Sequence[Target]) -> Pick:
        if len(targets) > 1 and len({target.weight for target in targets}) == 1:
            return _equals(tuple(targets), effort, random)
        return better_of_two(tuple(targets), _load, effort, random)

    return Balancing(make_picker)


def _load(target: Target) -> float:
    return target.load


def _equals(targets: tuple[Target, ...], effort: int, random: Callable[[], float]) -> Pick:
    """The usual case, written out: the default balancer is on every exchange's way."""
    count = len(targets)

    def pick() -> Target:
        for _ in range(effort):
            first = int(random() * count)
            second = int(random() * (count - 1))
            a, b = targets[first], targets[second + (second >= first)]
            best, other = (a, b) if a.load <= b.load else (b, a)
            if best.available:
                return best
            if other.available:
                return other
        return any_available(targets, random) or best

    return pick


PLUGIN = Plugin("p2c", Config, make)
