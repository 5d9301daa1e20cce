"""``otlp``, waypost's own: spans as OpenTelemetry's protocol has them, protobuf over HTTP.

OpenTelemetry's SDK and its protobufs are an extra, ``waypost[tracing]``, imported in workers that send spans. The SDK says what
the resource is: ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` count, by default the service is ``waypost``. Spans are
put into messages here: the SDK's own encoder takes twelve times as long, more than all else that a sampled call costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import attrs

from router.model.trace import CLIENT, SERVER, Span
from router.spi import Plugin, Telemeter, TelemeterContext
from router.tracing.post import read_url
from router.tracing.validators import share, url


def _installed() -> bool:
    try:
        return all(find_spec(name) for name in ("opentelemetry.sdk", "opentelemetry.proto"))
    except ModuleNotFoundError:
        return False


if not _installed():
    raise ImportError("it needs OpenTelemetry's SDK: pip install 'waypost[tracing]'")


@attrs.frozen
class Config:
    """Where the collector is, and which share of traces it gets."""

    endpoint: str = attrs.field(default="http://localhost:4318/v1/traces", validator=url)
    sample_rate: float = attrs.field(default=0.001, validator=share)


def encoder() -> Callable[[Sequence[Span]], bytes]:
    """What makes an ``ExportTraceServiceRequest`` of some spans; several of those behind each other are one."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Status
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):  # the SDK's default
        resource = resource.merge(Resource({SERVICE_NAME: "waypost"}))
    template = ResourceSpans()
    _put(template.resource.attributes, resource.attributes)
    template.scope_spans.add().scope.name = "waypost"
    kinds = {SERVER: Message.SPAN_KIND_SERVER, CLIENT: Message.SPAN_KIND_CLIENT}

    def fill(message: Any, span: Span) -> None:
        context = span.context
        message.trace_id = context.trace.to_bytes(16, "big")
        message.span_id = context.span.to_bytes(8, "big")
        if context.parent:
            message.parent_span_id = context.parent.to_bytes(8, "big")
        message.flags = 1
        message.name, message.kind = span.name, kinds[span.kind]
        message.start_time_unix_nano, message.end_time_unix_nano = span.start, span.end
        _put(message.attributes, span.tags)
        if span.heard:
            message.events.add(time_unix_nano=span.heard, name="wr")
        if span.error:
            _put(message.attributes, {"error.type": span.error})
            message.status.code = Status.STATUS_CODE_ERROR

    def encode(spans: Sequence[Span]) -> bytes:
        request = ExportTraceServiceRequest()
        of_us = request.resource_spans.add()
        of_us.CopyFrom(template)
        messages = of_us.scope_spans[0].spans
        for span in spans:
            fill(messages.add(), span)
        made: bytes = request.SerializeToString()
        return made

    return encode


def _put(attributes: Any, tags: Mapping[str, Any]) -> None:
    """Add key by key; what is neither text nor a number (of a resource) as text."""
    for name, value in tags.items():
        attribute = attributes.add()
        attribute.key = name
        if isinstance(value, bool):
            attribute.value.bool_value = value
        elif isinstance(value, int):
            attribute.value.int_value = value
        elif isinstance(value, float):
            attribute.value.double_value = value
        else:
            attribute.value.string_value = str(value)


class OtlpTracer:
    """A :class:`router.spi.Tracer`."""

    name = "otlp"

    def __init__(self, config: Config) -> None:
        self.rate = config.sample_rate
        self.encode = encoder()
        self._collector = read_url(config.endpoint)

    async def deliver(self, pieces: Sequence[bytes]) -> None:
        """Post the request."""
        await self._collector.post(b"".join(pieces), "application/x-protobuf")


def make(config: Config, context: TelemeterContext) -> Telemeter:
    """In the supervisor there is nothing to do."""
    return Telemeter()


PLUGIN = Plugin("otlp", Config, make, tracer=OtlpTracer)
