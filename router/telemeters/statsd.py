"""``io.l5d.statsd``: counters as what has come since the last time, gauges, and of histograms the last minute's percentiles.

Datagrams of at most ``DATAGRAM`` bytes to a UDP port, every ``gaugeIntervalMs``. Linkerd sends single observations, sampled;
here they are in histograms already, so ``sampleRate`` has no effect.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import attrs
import trio

from router.model.metrics import APART
from router.spi import Plugin, Telemeter, TelemeterContext
from router.telemeters.linkerd_json import summary
from router.telemeters.snapshot import Snapshot

DATAGRAM = 1400
_SHOWN = ("p50", "p95", "p99", "max", "avg")


def _interval(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not 100 <= value <= 3_600_000:
        raise ValueError(f"must be between 100 and 3600000, not {value}")


def _port(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not 1 <= value <= 65535:
        raise ValueError(f"a port is between 1 and 65535, not {value}")


@attrs.frozen
class Config:
    """Where to send to, how often (milliseconds), and what stands before every name."""

    prefix: str = "linkerd"
    hostname: str = "127.0.0.1"
    port: int = attrs.field(default=8125, validator=_port)
    gauge_interval_ms: int = attrs.field(default=10000, validator=_interval)
    sample_rate: float = attrs.field(default=0.01, metadata={"idle": "histograms are sent whole"})


def lines(snapshot: Snapshot, recent: Snapshot, before: dict[str, int], prefix: str) -> Iterator[str]:
    """All metrics; ``before``: the counters of the last time, brought up to date."""
    for name, count in snapshot.counters.items():
        delta = count - before.get(name, 0)
        before[name] = count
        if delta > 0:
            yield f"{_name(prefix, name)}:{delta}|c"
    for name, (value, _) in snapshot.gauges.items():
        yield f"{_name(prefix, name)}:{value:g}|g"
    for name in snapshot.stats:
        histogram = recent.stats.get(name)
        if histogram is not None and histogram.count:
            values = summary(histogram)
            for suffix in _SHOWN:
                yield f"{_name(prefix, name)}.{suffix}:{values[suffix]:g}|g"
    for name in [name for name in before if name not in snapshot.counters]:
        del before[name]


def _name(prefix: str, name: str) -> str:
    return re.sub("[^a-zA-Z0-9_.-]", "_", ".".join([prefix, *name.split(APART)]))


def datagrams(texts: Iterator[str]) -> Iterator[bytes]:
    """Lines together, as many as fit."""
    packed = ""
    for text in texts:
        if packed and len(packed) + 1 + len(text) > DATAGRAM:
            yield packed.encode()
            packed = ""
        packed = f"{packed}\n{text}" if packed else text
    if packed:
        yield packed.encode()


def make(config: Config, context: TelemeterContext) -> Telemeter:
    """The telemeter."""

    async def run() -> None:
        before: dict[str, int] = {}
        infos = await trio.socket.getaddrinfo(config.hostname, config.port, type=socket.SOCK_DGRAM)
        family, _, _, _, address = infos[0]
        with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
            while True:
                snapshot, recent = await context.snapshot()
                for datagram in datagrams(lines(snapshot, recent, before, config.prefix)):
                    try:
                        await sock.sendto(datagram, address)
                    except ConnectionRefusedError:
                        continue  # nobody listens now; somebody may later
                await trio.sleep(config.gauge_interval_ms / 1000)

    return Telemeter(run=run)


PLUGIN = Plugin("io.l5d.statsd", Config, make)
