"""What a run showed, as figures."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import attrs

from tests.simulation.endpoints import Machine
from tests.simulation.traffic import Seen


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that ``share`` (0..1) of them do not exceed; 0 of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@attrs.frozen(eq=False)
class Run:
    """``seen``: every request; ``counters``: the router's metrics at the end. Figures are about requests that began within
    ``window``; latencies, in seconds, about those of them that succeeded."""

    seen: list[Seen]
    machines: list[Machine]
    counters: dict[str, float]
    window: tuple[float, float]
    seconds: float

    def _within(self, low: float, high: float) -> list[Seen]:
        return [one for one in self.seen if low <= one[0] < high]

    def success(self, low: float | None = None, high: float | None = None) -> float:
        """The share of requests that succeeded."""
        chosen = self._within(self.window[0] if low is None else low, self.window[1] if high is None else high)
        return sum(good for _, _, good in chosen) / len(chosen)

    def latencies(self, low: float | None = None, high: float | None = None) -> list[float]:
        """Of the successes, in order of size."""
        chosen = self._within(self.window[0] if low is None else low, self.window[1] if high is None else high)
        return sorted(ended - began for began, ended, good in chosen if good)

    def latency(self, share: float) -> float:
        """A percentile of the latencies."""
        return percentile(self.latencies(), share)

    def slower(self, than: Sequence[float]) -> list[float]:
        """The share of requests that took longer than each of these, in seconds, or failed."""
        ordered = self.latencies()
        total = len(self._within(*self.window))
        return [1 - bisect_right(ordered, one) / total for one in than]

    @property
    def amplification(self) -> float:
        """Calls that reached an endpoint per request, over the whole run."""
        return sum(len(machine.arrivals) for machine in self.machines) / len(self.seen)

    @property
    def band(self) -> float:
        """The calls of the busiest endpoint to those of the average one."""
        calls = [len(machine.arrivals) for machine in self.machines]
        return max(calls) * len(calls) / sum(calls)
