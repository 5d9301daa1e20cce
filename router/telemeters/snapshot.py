"""All metrics at one moment, as plain values: one worker's, or those of several together.

Names have ``APART`` between their elements, since elements may hold slashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from operator import add
from typing import Any

import attrs

from router.model.metrics import BOUNDS, Counter, Gauge, Slot, Stat

_MERGE: dict[str, Callable[[float, float], float]] = {"sum": add, "max": max, "min": min}


@attrs.define
class Histogram:
    """Observations by bucket (:data:`router.model.metrics.BOUNDS`; the last bucket has none), their sum, and the largest."""

    buckets: list[int]
    total: float
    maximum: float

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.buckets)

    def plus(self, other: Histogram) -> Histogram:
        """Both together."""
        buckets = [one + two for one, two in zip(self.buckets, other.buckets, strict=True)]
        return Histogram(buckets, self.total + other.total, max(self.maximum, other.maximum))

    def since(self, earlier: Histogram) -> Histogram:
        """What has come since ``earlier``; the maximum as far as buckets tell."""
        buckets = [max(0, one - two) for one, two in zip(self.buckets, earlier.buckets, strict=True)]
        last = max((at for at, hits in enumerate(buckets) if hits), default=-1)
        bound = BOUNDS[last] if 0 <= last < len(BOUNDS) else self.maximum
        return Histogram(buckets, max(0.0, self.total - earlier.total), min(self.maximum, bound) if last >= 0 else 0.0)

    @property
    def minimum(self) -> float:
        """The smallest, as far as buckets tell: where the first one begins that is not empty."""
        first = next((at for at, hits in enumerate(self.buckets) if hits), 0)
        return min(BOUNDS[first - 1], self.maximum) if first else 0.0

    def percentile(self, share: float) -> float:
        """The value that the given share (0..1) of observations does not exceed, by its place within a bucket; 0 if empty."""
        rank, seen = share * self.count, 0
        for at, hits in enumerate(self.buckets):
            if hits and seen + hits >= rank:
                low = BOUNDS[at - 1] if at else 0.0
                high = min(BOUNDS[at], self.maximum) if at < len(BOUNDS) else self.maximum
                return low + (max(high, low) - low) * (rank - seen) / hits
            seen += hits
        return 0.0


@attrs.define
class Snapshot:
    """Values by name. A gauge has the way in which it is merged beside its value."""

    counters: dict[str, int] = attrs.field(factory=dict)
    gauges: dict[str, tuple[float, str]] = attrs.field(factory=dict)
    stats: dict[str, Histogram] = attrs.field(factory=dict)

    def add(self, other: Snapshot) -> None:
        """Merge another one's values into these."""
        for name, count in other.counters.items():
            self.counters[name] = self.counters.get(name, 0) + count
        for name, (value, merge) in other.gauges.items():
            known = self.gauges.get(name)
            self.gauges[name] = (value if known is None else _MERGE[merge](known[0], value), merge)
        for name, histogram in other.stats.items():
            before = self.stats.get(name)
            self.stats[name] = histogram if before is None else before.plus(histogram)

    def take(self, slots: Iterable[tuple[str, Slot]]) -> Snapshot:
        """Add the present values of ``slots``; returns itself. A gauge that cannot be read is left out."""
        for name, slot in slots:
            if isinstance(slot, Stat):
                self.stats[name] = Histogram(list(slot.buckets), slot.total, slot.maximum)
            elif isinstance(slot, Counter):
                self.counters[name] = slot.value
            elif isinstance(slot, Gauge):
                with suppress(Exception):
                    self.gauges[name] = (slot.current(), slot.merge)
        return self

    @property
    def names(self) -> set[str]:
        """Of all of them."""
        return {*self.counters, *self.gauges, *self.stats}

    def only(self, names: set[str]) -> Snapshot:
        """Those counters and histograms that are among ``names``; no gauges, which mean nothing later."""
        counters = {name: count for name, count in self.counters.items() if name in names}
        return Snapshot(counters, {}, {name: stat for name, stat in self.stats.items() if name in names})

    def to_json(self) -> Any:
        """A JSON value that :meth:`from_json` takes back."""
        stats = {name: [stat.buckets, stat.total, stat.maximum] for name, stat in self.stats.items()}
        return [self.counters, self.gauges, stats]

    @classmethod
    def from_json(cls, value: Any) -> Snapshot:
        """See :meth:`to_json`."""
        counters, gauges, stats = value
        return cls(
            counters,
            {name: (number, merge) for name, (number, merge) in gauges.items()},
            {name: Histogram(*parts) for name, parts in stats.items()},
        )
