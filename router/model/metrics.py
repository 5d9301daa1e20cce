"""Metrics as slots: resolved by name when a target is bound, one attribute access per event after that.

A scope is a path in the tree of names (``rt/http/server``); asking twice for the same name returns the same slot.
Elements may hold slashes (``service/svc/a`` is ``service`` and ``svc/a``) and are kept apart within, so that removing
the scope of ``/svc/a`` leaves that of ``/svc/a/b`` alone.
Bound: names come from configuration and from bound names, hence are bounded by the binding caches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator

APART = "\0"  # between elements; shown as a slash
# Upper bounds of the histogram's buckets, in milliseconds: about 10 % apart would cost memory that no one reads,
# so steps are 1, 1.5, 2, 3, 5, 7 of each decade.
BOUNDS: tuple[float, ...] = tuple(
    round(step * 10.0**power, 4) for power in range(-2, 6) for step in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
)


class Counter:
    """Counts events: ``counter.value += 1``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Gauge:
    """A value that goes up and down; ``read`` computes it, or ``value`` is set. ``merge``: what several workers' values are
    together: ``sum``, ``max`` or ``min``."""

    __slots__ = ("merge", "read", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.merge = "sum"
        self.read: Callable[[], float] | None = None

    def current(self) -> float:
        """The value now."""
        return self.value if self.read is None else self.read()


class Stat:
    """A histogram of milliseconds (or any positive figure).

    Observations are put into buckets ``BATCH`` at a time, or when somebody looks: that costs a third of doing it one by one.
    """

    __slots__ = ("_buckets", "_count", "_maximum", "_new", "_total")

    BATCH = 512

    def __init__(self) -> None:
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._count = 0
        self._total = 0.0
        self._maximum = 0.0
        self._new: list[float] = []

    def add(self, value: float) -> None:
        """Record one observation."""
        new = self._new
        new.append(value)
        if len(new) == self.BATCH:
            self._fold()

    def _fold(self) -> None:
        new, self._new = self._new, []
        if not new:
            return
        new.sort()
        before = 0
        for at, bound in enumerate(BOUNDS):
            below = bisect_right(new, bound, before)
            self._buckets[at] += below - before
            before = below
        self._buckets[-1] += len(new) - before
        self._count += len(new)
        self._total += sum(new)
        self._maximum = max(self._maximum, new[-1])

    @property
    def buckets(self) -> list[int]:
        """How many observations each bucket has; its upper bound belongs to it, the last one has none."""
        self._fold()
        return self._buckets

    @property
    def count(self) -> int:
        """How many observations there were."""
        self._fold()
        return self._count

    @property
    def total(self) -> float:
        """Their sum."""
        self._fold()
        return self._total

    @property
    def maximum(self) -> float:
        """The largest."""
        self._fold()
        return self._maximum

    def percentile(self, share: float) -> float:
        """The upper bound of the bucket in which the given share (0..1) of observations is reached; 0 if empty."""
        rank, seen = share * self.count, 0
        for bound, hits in zip((*BOUNDS, self.maximum), self.buckets, strict=True):
            seen += hits
            if hits and seen >= rank:
                return min(bound, self.maximum)
        return 0.0


class Total(Counter):
    """A counter that is the sum of others."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read

    @property
    def value(self) -> int:  # type: ignore[override]
        """The sum now."""
        return self._read()


Slot = Counter | Gauge | Stat


def _show(name: str) -> str:
    return name.replace(APART, "/")


class Metrics:
    """One scope of the tree. The root is made once per worker and handed down."""

    __slots__ = ("_prefix", "_slots")

    def __init__(self, prefix: str = "", slots: dict[str, Slot] | None = None) -> None:
        self._prefix = prefix
        self._slots: dict[str, Slot] = {} if slots is None else slots

    @property
    def path(self) -> str:
        """The scope's name, for people."""
        return _show(self._prefix).rstrip("/")

    def scope(self, *names: str) -> Metrics:
        """The scope below this one."""
        return Metrics(self._prefix + "".join(name + APART for name in names), self._slots)

    def _slot(self, name: str, make: type[Slot]) -> Slot:
        full = self._prefix + name
        slot = self._slots.get(full)
        if slot is None:
            slot = self._slots[full] = make()
        elif type(slot) is not make:
            raise TypeError(f"metric {_show(full)!r} is a {type(slot).__name__}, not a {make.__name__}")
        return slot

    def counter(self, name: str) -> Counter:
        """The counter of that name."""
        slot = self._slot(name, Counter)
        assert isinstance(slot, Counter)
        return slot

    def total(self, name: str, read: Callable[[], int]) -> None:
        """A counter computed by ``read``, which must not fall."""
        self._slots.setdefault(self._prefix + name, Total(read))

    def gauge(self, name: str, read: Callable[[], float] | None = None, merge: str = "sum") -> Gauge:
        """The gauge of that name, computed by ``read`` if given; ``merge``: see :class:`Gauge`."""
        slot = self._slot(name, Gauge)
        assert isinstance(slot, Gauge)
        slot.merge = merge
        if read is not None:
            slot.read = read
        return slot

    def stat(self, name: str) -> Stat:
        """The histogram of that name."""
        slot = self._slot(name, Stat)
        assert isinstance(slot, Stat)
        return slot

    def remove(self) -> None:
        """Forget this scope and everything below it (its owner has expired)."""
        for name in [name for name in self._slots if name.startswith(self._prefix)]:
            del self._slots[name]

    def items(self) -> Iterator[tuple[str, Slot]]:
        """Every slot below this scope, by full name, sorted."""
        below = [(_show(name), slot) for name, slot in self._slots.items() if name.startswith(self._prefix)]
        yield from sorted(below, key=lambda item: item[0])

    def slots(self) -> list[tuple[str, Slot]]:
        """Every slot below this scope, its name with ``APART`` between its elements."""
        return [(name, slot) for name, slot in self._slots.items() if name.startswith(self._prefix)]

    def flat(self) -> dict[str, float]:
        """Names and plain values: counters and gauges as they are, of a stat its ``.count`` and ``.sum``."""
        values: dict[str, float] = {}
        for name, slot in self.items():
            if isinstance(slot, Stat):
                values[name + ".count"] = slot.count
                values[name + ".sum"] = slot.total
            else:
                values[name] = slot.value if isinstance(slot, Counter) else slot.current()
        return values
