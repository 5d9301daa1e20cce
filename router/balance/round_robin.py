"""``roundRobin``: one endpoint after the other, heavier ones more often.

Earliest deadline first: each endpoint is due again ``1 / weight`` after it was picked, beginning at a random point of its own
period, so that many routers do not move in step. Loads are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace

import attrs

from router.balance.common import WithEffort
from router.spi import BalancerContext, Balancing, Pick, Plugin, Target

LEAST_WEIGHT = 1e-6  # an endpoint without weight is due after everybody else


@attrs.frozen
class Config(WithEffort):
    """``max_effort``: how many turns of unavailable endpoints pass by before the first that is available is sought."""


def make(config: Config, context: BalancerContext) -> Balancing:
    """Balancing by turns."""

    def make_picker(targets: Sequence[Target]) -> Pick:
        if not targets:
            return lambda: None
        periods = [1 / max(target.weight, LEAST_WEIGHT) for target in targets]
        due = [(period * context.random(), at) for at, period in enumerate(periods)]
        heapify(due)
        tries = max(config.max_effort, len(targets))

        def pick() -> Target:
            for _ in range(tries):
                time, at = due[0]
                heapreplace(due, (time + periods[at], at))
                if targets[at].available:
                    return targets[at]
            time, at = min((turn for turn in due if targets[turn[1]].available), default=due[0])
            return targets[at]

        return pick

    return Balancing(make_picker)


PLUGIN = Plugin("roundRobin", Config, make)
