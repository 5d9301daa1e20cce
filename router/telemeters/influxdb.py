"""InfluxDB's line protocol, one measurement a scope, as Linkerd writes it."""

from __future__ import annotations

from collections import defaultdict

import attrs

from router.spi import Plugin, Telemeter, TelemeterContext
from router.telemeters.linkerd_json import summary
from router.telemeters.names import Labelled, labelled
from router.telemeters.snapshot import Snapshot

_IN_TAGS = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ ", "\n": " "})


def text(snapshot: Snapshot, recent: Snapshot, host: str) -> str:
    """All metrics; ``host`` is a tag of each line."""
    values: dict[str, str] = {name: f"{count}i" for name, count in snapshot.counters.items()}
    values |= {name: str(float(value)) for name, (value, _) in snapshot.gauges.items()}
    for name in snapshot.stats:
        histogram = recent.stats.get(name)
        if histogram is not None and histogram.count:
            values |= {f"{name}_{suffix}": str(float(value)) for suffix, value in summary(histogram).items()}
    lines: dict[str, list[str]] = defaultdict(list)
    for name, value in values.items():
        parts = labelled(name)
        lines[_head(parts, host)].append(f"{parts.elements[-1].translate(_IN_TAGS)}={value}")
    return "".join([f"{head} {','.join(sorted(fields))}\n" for head, fields in sorted(lines.items())])


def _head(parts: Labelled, host: str) -> str:
    tags = {"host": host, **parts.labels}
    measurement = ":".join(parts.elements[:-1]) or "root"
    return ",".join([measurement.translate(_IN_TAGS), *[f"{tag}={value.translate(_IN_TAGS)}" for tag, value in tags.items()]])


@attrs.frozen
class Config:
    """Nothing to configure."""


def make(config: Config, context: TelemeterContext) -> Telemeter:
    """The telemeter."""

    async def lines(host: str) -> str:
        return text(*await context.snapshot(), host)

    return Telemeter({"/admin/metrics/influxdb": lines})


PLUGIN = Plugin("io.l5d.influxdb", Config, make)
