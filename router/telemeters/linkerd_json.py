"""Linkerd's ``metrics.json``: names with slashes to numbers, flat, or as a tree (``?tree=1``), or a part of it (``?q=a/b``)."""

from __future__ import annotations

from typing import Any

from router.model.metrics import APART
from router.telemeters.snapshot import Histogram, Snapshot

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p9990": 0.999, "p9999": 0.9999}


def flat(snapshot: Snapshot, recent: Snapshot) -> dict[str, float]:
    """Every metric, sorted by name. ``recent`` has the histograms of the last minute."""
    values: dict[str, float] = dict(snapshot.counters)
    values |= {name: value for name, (value, _) in snapshot.gauges.items()}
    for name in snapshot.stats:
        histogram = recent.stats.get(name)
        if histogram is not None:
            values |= {f"{name}.{suffix}": value for suffix, value in summary(histogram).items()}
    return {name.replace(APART, "/"): values[name] for name in sorted(values)}


def summary(histogram: Histogram) -> dict[str, float]:
    """A histogram by Linkerd's suffixes; of an empty one there is only the count."""
    count = histogram.count
    if not count:
        return {"count": 0}
    shares = {suffix: round(histogram.percentile(share), 3) for suffix, share in PERCENTILES.items()}
    total = round(histogram.total, 3)
    return {
        "count": count, "max": round(histogram.maximum, 3), "min": histogram.minimum, **shares, "sum": total,
        "avg": round(total / count, 3),
    }  # fmt: skip


def tree(values: dict[str, float]) -> dict[str, Any]:
    """As a tree by the slashes of the names; where a name is both a value and a scope its value is under the empty key."""
    root: dict[str, Any] = {}
    for name, value in values.items():
        *scopes, last = name.split("/")
        node = root
        for scope in scopes:
            below = node.setdefault(scope, {})
            if not isinstance(below, dict):
                below = node[scope] = {"": below}
            node = below
        if isinstance(node.get(last), dict):
            node[last][""] = value
        else:
            node[last] = value
    return root


def part(root: dict[str, Any], query: str) -> Any:
    """What is below ``query`` (``a/b``). Raises KeyError where there is nothing."""
    node: Any = root
    for scope in [scope for scope in query.split("/") if scope]:
        if not isinstance(node, dict):
            raise KeyError(scope)
        node = node[scope]
    return node
