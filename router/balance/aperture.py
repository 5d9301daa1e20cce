"""``aperture``: the power of two choices within a part of the endpoints that is as large as the load needs it to be.

Theory of operation

1. Few connections, well used: with many routers in front of many endpoints, each router that talks to all of them keeps
   routers x endpoints connections, most of them idle.
2. Which part: endpoints are ordered by a number of their own (a hash of the address and this router's seed), so that a change
   of the address set moves few of them in or out, and different routers take different parts.
3. How large: the exchanges under way, smoothed over ``smooth_window_ms``, per endpoint of the aperture. Above ``high_load`` it
   grows by one, below ``low_load`` it shrinks by one, not below ``min_aperture`` (Linkerd's defaults; Finagle's controller),
   at most ``STEPS`` times a window.
4. Deterministic: with ``peers`` routers, of which this is number ``peer``, all take equal arcs of one ring of endpoints, at
   least ``MIN_DETERMINISTIC`` of them; an endpoint at an arc's edge is drawn by the share of it that lies within. Together
   the routers load all endpoints alike (Finagle's deterministic aperture). Its size does not follow the load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import ceil, exp
from typing import Any

import attrs

from router.balance.common import WithEffort, positive
from router.balance.pairs import any_available, better_of_two
from router.spi import BalancerContext, Balancing, Pick, Plugin, Target

MIN_DETERMINISTIC = 12
STEPS = 50


def _above_low(instance: Config | None, attribute: attrs.Attribute[Any], value: float) -> None:
    positive(instance, attribute, value)
    if instance is not None and value <= instance.low_load:
        raise ValueError(f"must be more than lowLoad, which is {instance.low_load:g}, not {value:g}")


def _one_of_peers(instance: Config | None, attribute: attrs.Attribute[Any], value: int) -> None:
    if instance is not None and not 0 <= value < max(1, instance.peers):
        raise ValueError(f"must be between 0 and {max(0, instance.peers - 1)}, one less than peers, not {value}")


@attrs.frozen
class Config(WithEffort):
    """See the theory of operation; ``peers`` 0 means by load."""

    smooth_window_ms: float = attrs.field(default=5_000, validator=positive)
    low_load: float = attrs.field(default=0.5, validator=positive)
    high_load: float = attrs.field(default=2.0, validator=_above_low)
    min_aperture: int = attrs.field(default=1, validator=positive)
    peers: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    peer: int = attrs.field(default=0, validator=_one_of_peers)


def make(config: Config, context: BalancerContext) -> Balancing:
    """Balancing within a part."""
    if config.peers:
        return Balancing(lambda targets: _deterministic(config, context, tuple(targets)))
    controller = _Controller(config, context)
    return Balancing(controller.make_picker)


def _load(target: Target) -> float:
    return target.load


class _Controller:
    """The aperture of one client, which outlives snapshots."""

    def __init__(self, config: Config, context: BalancerContext) -> None:
        self._config = config
        self._context = context
        self._seed = b"%d" % int(context.random() * 2**32)
        self._window = config.smooth_window_ms / 1000
        self._ring: list[Target] = []
        self._inner: Pick = lambda: None
        self._mean = 0.0
        self._stamp = context.now()
        self._next = self._stamp
        self.size = config.min_aperture

    def make_picker(self, targets: Sequence[Target]) -> Pick:
        """A picker that goes by the controller's present size."""
        self._ring = sorted(targets, key=self._place)
        self._resize(self.size)
        return self.pick

    def _place(self, target: Target) -> bytes:
        return blake2b(target.show().encode(), key=self._seed, digest_size=8).digest()

    def pick(self) -> Target | None:
        """Of two within the aperture, the less loaded; beyond it while nobody within is available."""
        if self._context.now() >= self._next:
            self._adjust()
        target = self._inner()
        if target is not None and not target.available:
            return next((other for other in self._ring if other.available), target)
        return target

    def _adjust(self) -> None:
        now = self._context.now()
        running = sum(target.load for target in self._ring)
        weight = exp((self._stamp - now) / self._window)
        self._mean = running + (self._mean - running) * weight
        self._stamp, self._next = now, now + self._window / STEPS
        load = self._mean / self.size
        if load >= self._config.high_load and self.size < len(self._ring):
            self._resize(self.size + 1)
        elif load <= self._config.low_load and self.size > self._config.min_aperture:
            self._resize(self.size - 1)

    def _resize(self, size: int) -> None:
        self.size = max(1, min(max(size, self._config.min_aperture), len(self._ring)))
        self._inner = better_of_two(self._ring[: self.size], _load, self._config.max_effort, self._context.random)


class _Part:
    """A target of which only a share belongs to this router."""

    def __init__(self, target: Target, share: float) -> None:
        self.target = target
        self.weight = target.weight * share

    @property
    def load(self) -> int:
        """The target's."""
        return self.target.load

    @property
    def available(self) -> bool:
        """The target's."""
        return self.target.available


def shares(count: int, peers: int, peer: int) -> list[float]:
    """Which share of each of ``count`` endpoints on the ring lies within this peer's arc (0..1)."""
    wanted = min(MIN_DETERMINISTIC, count)
    units = ceil(wanted / count * peers - 1e-9)
    width = min(1.0, units / peers)
    start = (peer / peers) % 1.0
    found = []
    for at in range(count):
        low, high = at / count, (at + 1) / count
        inside = sum(
            max(0.0, min(high, end) - max(low, begin))
            for begin, end in ((start, start + width), (start - 1, start - 1 + width))
        )
        found.append(min(1.0, inside * count))
    return found


def _deterministic(config: Config, context: BalancerContext, targets: tuple[Target, ...]) -> Pick:
    if not targets:
        return lambda: None
    ring = sorted(targets, key=_ring_place)
    parts: list[Any] = [
        _Part(target, share)
        for target, share in zip(ring, shares(len(ring), config.peers, config.peer), strict=True)
        if share > 1e-9
    ]
    inner: Callable[[], Any] = better_of_two(parts, _load, config.max_effort, context.random)

    def pick() -> Target:
        target: Target = inner().target
        return target if target.available else any_available(ring, context.random) or target

    return pick


def _ring_place(target: Target) -> bytes:
    return blake2b(target.show().encode(), digest_size=8).digest()


PLUGIN = Plugin("aperture", Config, make)
