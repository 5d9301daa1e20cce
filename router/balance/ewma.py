"""``ewma``: of two endpoints drawn at random, the one whose peak-sensitive average latency promises the shorter wait.

Theory of operation (Finagle's peak EWMA, measured to the response head, so that long streams do not look slow)

1. The cost of an endpoint is an exponentially weighted moving average of its latencies; the decay time is its time constant.
   A latency above the average replaces it at once: bad news counts in full, good news gradually. Without news it decays, so
   that an endpoint that was slow is tried again.
2. Its load is cost times (exchanges under way + 1), per weight. An endpoint of which nothing is known yet gets one exchange,
   and no further one before that has been answered, if there is any other choice.
3. A failure is averaged in, not taken as a peak, as a latency of ``PENALTY`` seconds: who fails fast must not look fast, and
   who fails seldom must not be shunned.
4. What was ended before its response by somebody else took at least so long: that may raise the average, never lower it.
5. An endpoint that its breaker opens to a probe begins anew: what its failures cost would keep every probe away.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

import attrs

from router.balance.common import WithEffort, positive
from router.balance.pairs import better_of_two
from router.spi import BalancerContext, Balancing, Pick, Plugin, Target

PENALTY = 5.0
UNKNOWN = 1e6  # seconds: more than any latency


@attrs.frozen
class Config(WithEffort):
    """``decay_time_ms``: after this time a latency weighs 1/e."""

    decay_time_ms: float = attrs.field(default=10_000, validator=positive)


class Latency:
    """What is known of one endpoint: an average in seconds, and when it was true."""

    __slots__ = ("cost", "stamp")

    def __init__(self, now: float) -> None:
        self.cost = 0.0
        self.stamp = now


def make(config: Config, context: BalancerContext) -> Balancing:
    """Balancing by latency."""
    decay = config.decay_time_ms / 1000
    now = context.now

    def cost(target: Target) -> float:
        known: Latency = target.metric
        load = target.load
        if known.cost == 0.0:
            return UNKNOWN + load if load else 0.0
        return known.cost * exp((known.stamp - now()) / decay) * (load + 1)

    def ended(target: Target, seconds: float, success: bool | None) -> None:
        known: Latency | Any = target.metric
        time = now()
        weight = exp((known.stamp - time) / decay)
        if success is None and seconds < known.cost * weight:
            return
        sample = max(seconds, PENALTY) if success is False else seconds
        if success is not False and sample >= known.cost * weight:
            known.cost = sample
        else:
            known.cost = sample + (known.cost - sample) * weight
        known.stamp = time

    def fresh(target: Target) -> None:
        target.metric = Latency(now())

    def make_picker(targets: Sequence[Target]) -> Pick:
        for target in targets:
            if not isinstance(target.metric, Latency):
                target.metric = Latency(now())
        return better_of_two(tuple(targets), cost, config.max_effort, context.random)

    return Balancing(make_picker, ended, fresh)


PLUGIN = Plugin("ewma", Config, make)
