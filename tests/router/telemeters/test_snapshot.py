"""Snapshots: taken, merged, sent and taken back; histograms and what they say of their observations."""

from __future__ import annotations

import json
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.model.metrics import BOUNDS, Metrics
from router.telemeters.snapshot import Histogram, Snapshot

millis = st.lists(st.floats(0.001, 1e5), min_size=1, max_size=200)


def histogram(values: list[float]) -> Histogram:
    metrics = Metrics()
    for value in values:
        metrics.stat("time_ms").add(value)
    return Snapshot().take(metrics.slots()).stats["time_ms"]


def step_of(value: float) -> tuple[float, float]:
    at = bisect_left(BOUNDS, value)
    return (BOUNDS[at - 1] if at else 0.0), (BOUNDS[at] if at < len(BOUNDS) else float("inf"))


@given(millis, st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_percentile_is_in_the_step_of_the_true_one(values: list[float], share: float) -> None:
    true = sorted(values)[max(0, -(-len(values) * share // 1).__int__() - 1)]
    low, high = step_of(true)
    assert low <= histogram(values).percentile(share) <= min(high, max(values))


@given(millis, millis)
def test_both_together_are_all_of_them(one: list[float], other: list[float]) -> None:
    both, all_of_them = histogram(one).plus(histogram(other)), histogram(one + other)
    assert both.buckets == all_of_them.buckets
    assert both.total == pytest.approx(all_of_them.total)
    assert both.maximum == all_of_them.maximum


@given(millis, millis)
def test_what_came_since(before: list[float], later: list[float]) -> None:
    recent = histogram(before + later).since(histogram(before))
    assert recent.buckets == histogram(later).buckets
    assert recent.minimum <= min(later)
    low, high = step_of(max(later))
    assert low <= recent.maximum <= high


def test_an_empty_one_says_nothing() -> None:
    empty = Histogram([0] * (len(BOUNDS) + 1), 0.0, 0.0)
    assert (empty.count, empty.percentile(0.99), empty.minimum) == (0, 0.0, 0.0)
    assert empty.since(empty).maximum == 0.0


def taken(requests: int, load: float, lag: float) -> Snapshot:
    metrics = Metrics()
    metrics.scope("rt", "web").counter("requests").value = requests
    metrics.gauge("load", lambda: load)
    metrics.gauge("lag", lambda: lag, merge="max")
    metrics.stat("time_ms").add(load)
    return Snapshot().take(metrics.slots())


def test_workers_together() -> None:
    total = taken(1, 2.0, 0.5)
    total.add(Snapshot.from_json(json.loads(json.dumps(taken(10, 3.0, 0.25).to_json()))))
    assert total.counters == {"rt\0web\0requests": 11}
    assert total.gauges == {"load": (5.0, "sum"), "lag": (0.5, "max")}
    assert total.stats["time_ms"].count == 2
    kept = total.only({"rt\0web\0requests", "load"})
    assert kept.names == {"rt\0web\0requests"}
