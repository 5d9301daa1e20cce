"""Prometheus: Linkerd's form, and a conventional one.

1. Linkerd's (``io.l5d.prometheus``): scopes joined by colons, labels taken out, no types. Dashboards made for it go on.
2. The conventional one: ``waypost_`` and underscores, base units, counters in ``_total``, cumulative histograms since the
   start, with types and help, in Prometheus' text or OpenMetrics by what the scraper accepts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from router.model.metrics import BOUNDS
from router.spi import Plugin, Telemeter, TelemeterContext
from router.telemeters.names import Labelled, labelled
from router.telemeters.snapshot import Histogram, Snapshot

_QUANTILES = (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0)
_STATUS_CLASS = re.compile(r"[1-5]XX").fullmatch
# Scopes whose last element is a value of this label.
_BY = {"status": "status", "deadline": "cause", "abuse": "kind", "shed": "cause", "failures": "exception"}
_HELP = {
    "requests": "Requests that have ended.",
    "success": "Requests that were a success by their classifier.",
    "failures": "Requests that failed.",
    "cancelled": "Requests that ended because of the client.",
    "pending": "Requests under way.",
    "request_latency_seconds": "Time from the beginning of a request to its end.",
    "connections": "Open connections.",
    "connects": "Connections that were opened.",
}


# -- Linkerd's ---------------------------------------------------------------------------------------------------


def linkerd_text(snapshot: Snapshot, recent: Snapshot, prefix: str = "") -> str:
    """Linkerd's text; ``prefix`` stands before every name."""
    lines = [f"{_line(name, prefix)} {count}" for name, count in snapshot.counters.items()]
    lines += [f"{_line(name, prefix)} {float(value)}" for name, (value, _) in snapshot.gauges.items()]
    for name in snapshot.stats:
        histogram = recent.stats.get(name)
        if histogram is not None and histogram.count:
            lines += _summary_lines(labelled(name), prefix, histogram)
    return "".join([line + "\n" for line in sorted(lines)])


def _line(name: str, prefix: str, suffix: str = "", **more: str) -> str:
    return _metric(labelled(name), prefix, suffix, **more)


def _metric(parts: Labelled, prefix: str, suffix: str = "", **more: str) -> str:
    name = prefix + re.sub("[^a-zA-Z0-9:]", "_", ":".join(parts.elements)) + suffix
    labels = {**parts.labels, **more}
    shown = ", ".join([f'{label}="{_escaped(value)}"' for label, value in labels.items()])
    return f"{name}{{{shown}}}" if shown else name


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _summary_lines(parts: Labelled, prefix: str, histogram: Histogram) -> Iterator[str]:
    count, total = histogram.count, histogram.total
    yield f"{_metric(parts, prefix, '_count')} {count}"
    yield f"{_metric(parts, prefix, '_sum')} {total}"
    yield f"{_metric(parts, prefix, '_avg')} {total / count}"
    for quantile in _QUANTILES:
        yield f"{_metric(parts, prefix, quantile=f'{quantile:g}')} {histogram.percentile(quantile)}"


# -- the conventional one ----------------------------------------------------------------------------------------


def conventional(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """The text for a scraper that accepts ``accept``, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(snapshot))
    encode, content_type = choose_encoder(accept)
    data: bytes = encode(registry)
    return data, content_type


class _Families(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Any]:
        """One family a name; what does not fit in with the first of its name (another type) is left out."""
        made: dict[str, Any] = {}
        for kind, values in (
            (CounterMetricFamily, self._snapshot.counters),
            (GaugeMetricFamily, {name: value for name, (value, _) in self._snapshot.gauges.items()}),
            (HistogramMetricFamily, self._snapshot.stats),
        ):
            for full, value in values.items():
                parts = labelled(full)
                if not any(_STATUS_CLASS(element) for element in parts.elements):
                    self._add(made, kind, parts, value)
        return made.values()

    def _add(self, made: dict[str, Any], kind: Any, parts: Labelled, value: Any) -> None:
        name, labels, scale = _conventional_name(parts)
        if kind is GaugeMetricFamily and name in made:
            name += "_current"
        family = made.get(name)
        if family is None:
            family = made[name] = kind(name, _help(name), labels=sorted(labels))
        given = [labels.get(label, "") for label in family._labelnames]
        if set(labels) - set(family._labelnames) or type(family) is not kind:
            return
        if kind is HistogramMetricFamily:
            family.add_metric(given, _cumulative(value, scale), value.total * scale)
        else:
            family.add_metric(given, value * scale)


def _conventional_name(parts: Labelled) -> tuple[str, dict[str, str], float]:
    """Name, labels, and by what values are to be multiplied to be in base units."""
    elements, labels = list(parts.elements), dict(parts.labels)
    if "rt" in labels:
        elements, labels["router"] = elements[1:], labels.pop("rt")
    if len(elements) > 1 and elements[-2] in _BY:
        label, value = _BY[elements[-2]], elements.pop()
        labels[label] = value
    name, scale = re.sub("[^a-zA-Z0-9]+", "_", "_".join(["waypost", *elements])), 1.0
    for unit, (base, factor) in {"_ms": ("_seconds", 1e-3), "_us": ("_seconds", 1e-6)}.items():
        if name.endswith(unit):
            name, scale = name.removesuffix(unit) + base, factor
    return name, labels, scale


def _help(name: str) -> str:
    found = [text for word, text in _HELP.items() if name.endswith("_" + word)]
    return found[0] if found else "See " + name.removeprefix("waypost_").replace("_", " ") + " in the documentation."


def _cumulative(histogram: Histogram, scale: float) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound; of the bounds every second one, which is what queries can tell apart."""
    seen = 0
    out = []
    for at, hits in enumerate(histogram.buckets[:-1]):
        seen += hits
        if at % 2:
            out.append((f"{BOUNDS[at] * scale:.9g}", float(seen)))
    return [*out, ("+Inf", float(histogram.count))]


# -- the telemeter -----------------------------------------------------------------------------------------------


def _path(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value.startswith("/"):
        raise ValueError(f"must begin with a slash, not {value!r}")


@attrs.frozen
class Config:
    """``path``: where Linkerd's text is served. ``prefix`` stands before every name."""

    path: str = attrs.field(default="/admin/metrics/prometheus", validator=_path)
    prefix: str = ""


def make(config: Config, context: TelemeterContext) -> Telemeter:
    """The telemeter."""

    async def text(host: str) -> str:
        return linkerd_text(*await context.snapshot(), config.prefix)

    return Telemeter({config.path: text})


PLUGIN = Plugin("io.l5d.prometheus", Config, make)
