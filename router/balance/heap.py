"""``heap``: the endpoint with the fewest exchanges under way per weight, of all; ties are broken at random.

Entries are corrected when they are looked at: one that has become heavier since it was made is replaced when it comes to the
top, an endpoint that has become lighter gets a new entry, which voids the one before. Void entries are dropped at the top,
or all at once when there are ``SLACK`` times as many entries as endpoints. A pick costs log n.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import attrs

from router.balance.common import Common
from router.spi import BalancerContext, Balancing, Pick, Plugin, Target

SLACK = 4
LEAST_WEIGHT = 1e-6


@attrs.frozen
class Config(Common):
    """As all."""


Item = tuple[float, float, int, int]  # load per weight, a random number, the target's index, its version


class _Heap:
    """The entries of one snapshot."""

    def __init__(self, targets: Sequence[Target], context: BalancerContext) -> None:
        self._targets = targets
        self._random = context.random
        self._versions = [0] * len(targets)
        self._items: list[Item] = []
        self.index = {id(target): at for at, target in enumerate(targets)}
        self._rebuild()

    def _load(self, at: int) -> float:
        target = self._targets[at]
        return target.load / max(target.weight, LEAST_WEIGHT)

    def _rebuild(self) -> None:
        self._items = [(self._load(at), self._random(), at, self._versions[at]) for at in range(len(self._targets))]
        heapify(self._items)

    def update(self, at: int) -> None:
        """The load of a target has changed."""
        self._versions[at] += 1
        heappush(self._items, (self._load(at), self._random(), at, self._versions[at]))
        if len(self._items) > SLACK * len(self._targets):
            self._rebuild()

    def _settle(self) -> Item:
        """The top entry, made true."""
        while True:
            item = self._items[0]
            load, _, at, version = item
            if version != self._versions[at]:
                heappop(self._items)
            elif load != self._load(at):
                heappop(self._items)
                self.update(at)
            else:
                return item

    def pick(self) -> Target:
        """The least loaded that is available, or, when none is, the least loaded."""
        target = self._targets[self._settle()[2]]
        if target.available or not any(other.available for other in self._targets):
            return target
        aside = []
        while not self._targets[self._settle()[2]].available:
            aside.append(heappop(self._items))
        found = self._targets[self._items[0][2]]
        for item in aside:
            heappush(self._items, item)
        return found


def make(config: Config, context: BalancerContext) -> Balancing:
    """Balancing by the least load."""
    current: list[_Heap] = []

    def make_picker(targets: Sequence[Target]) -> Pick:
        current.clear()
        if not targets:
            return lambda: None
        heap = _Heap(tuple(targets), context)
        current.append(heap)
        return heap.pick

    def ended(target: Target, seconds: float, success: bool | None) -> None:
        for heap in current:
            at = heap.index.get(id(target))
            if at is not None:
                heap.update(at)

    return Balancing(make_picker, ended)


PLUGIN = Plugin("heap", Config, make)
