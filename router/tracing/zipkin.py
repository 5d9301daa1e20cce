"""``io.l5d.zipkin``: spans as Zipkin's v2 JSON, to ``/api/v2/spans`` of a collector.

Linkerd speaks Scribe, by default to port 9410; no Zipkin that is maintained takes that, and its HTTP is on 9411.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import attrs

from router.model.trace import Span
from router.spi import Plugin, Telemeter, TelemeterContext
from router.tracing.post import Collector
from router.tracing.validators import port, share

_encode = json.JSONEncoder(separators=(",", ":")).encode


@attrs.frozen
class Config:
    """Where the collector is, and which share of traces it gets."""

    host: str = "localhost"
    port: int = attrs.field(default=9411, validator=port)
    sample_rate: float = attrs.field(default=0.001, validator=share)


def span_of(span: Span) -> dict[str, Any]:
    """A span of Zipkin's API, version 2. Times in microseconds."""
    context = span.context
    made: dict[str, Any] = {
        "traceId": context.trace_id,
        "id": f"{context.span:016x}",
        "kind": span.kind,
        "name": span.name,
        "timestamp": span.start // 1000,
        "duration": max(1, (span.end - span.start) // 1000),
        "localEndpoint": {"serviceName": span.service},
        "tags": {name: value if type(value) is str else _text(value) for name, value in span.tags.items()},
    }
    if context.parent:
        made["parentId"] = f"{context.parent:016x}"
    if context.debug:
        made["debug"] = True
    if span.peer is not None:
        made["remoteEndpoint"] = _endpoint(*span.peer)
    if span.heard:
        made["annotations"] = [{"timestamp": span.heard // 1000, "value": "wr"}]
    if span.error:
        made["tags"]["error"] = span.error
    return made


def _text(value: Any) -> str:
    return str(value).lower() if value is True or value is False else str(value)


@lru_cache(maxsize=1024)
def _version(host: str) -> int:
    """Of IP; 0 where the host is a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0


def _endpoint(host: str, port: int) -> dict[str, Any]:
    version = _version(host)
    return {f"ipv{version}" if version else "serviceName": host, "port": port}


class ZipkinTracer:
    """A :class:`router.spi.Tracer`."""

    name = "io.l5d.zipkin"

    def __init__(self, config: Config) -> None:
        self.rate = config.sample_rate
        self._collector = Collector(config.host, config.port, "/api/v2/spans")

    def encode(self, spans: Sequence[Span]) -> bytes:
        """Elements of the list."""
        return _encode([span_of(span) for span in spans])[1:-1].encode()

    async def deliver(self, pieces: Sequence[bytes]) -> None:
        """Post the list."""
        await self._collector.post(b"[" + b",".join(pieces) + b"]", "application/json")


def make(config: Config, context: TelemeterContext) -> Telemeter:
    """In the supervisor there is nothing to do."""
    return Telemeter()


PLUGIN = Plugin("io.l5d.zipkin", Config, make, tracer=ZipkinTracer)
