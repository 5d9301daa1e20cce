"""Spans: what they say of exchanges and attempts, and how Zipkin, OpenTelemetry and the log have it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dtab import Endpoint, Path
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.trace import CLIENT, SERVER, Span, TraceContext
from router.tracing.filters import trace_in, trace_out
from router.tracing.otlp import Config as OtlpConfig
from router.tracing.otlp import OtlpTracer
from router.tracing.spans import MAX_VALUE
from router.tracing.tracelog import fields_of
from router.tracing.zipkin import Config, ZipkinTracer, span_of
from tests.support.fakes import NOON, Call, FakeHost
from tests.support.tracing import Collected, tracing

CONTEXT = TraceContext(0xABC << 64 | 1, 2, 3, True)
SPAN = Span(
    CONTEXT,
    CLIENT,
    "web",
    "GET",
    1_000_000_500,
    1_002_000_500,
    1_001_000_000,
    ("::1", 80),
    "reset",
    {"a": 1, "b": "x y", "c": True},
)


def spans_of(service: Any, head: RequestHead | None = None) -> tuple[Span, Span]:
    """The attempt's and the server's span of a call that takes a quarter of a second in its service."""
    made, host = Collected(), FakeHost()
    made_by = tracing(made)

    async def slow(exchange: Exchange) -> None:
        exchange.path = Path.of("svc", "web")
        host.time += 0.125
        await out(exchange)

    async def endpoint(exchange: Exchange) -> None:
        exchange.endpoint = Endpoint("127.0.0.1", 8080)
        host.time += 0.125
        await service(exchange)

    out = trace_out(made_by, Path.of("svc", "web"), Path.of("#", "fs", "web"), Path.of("v2"), endpoint)
    Call(
        host,
        trace_in(made_by, Metrics(), slow),
        head or RequestHead(b"GET", b"http", b"web", b"/a?token=1", (), version=(1, 1)),
    )
    attempt, server = made.spans
    return attempt, server


def answer(status: int, fields: Fields = (), trailers: Fields = ()) -> Any:
    async def service(exchange: Exchange) -> None:
        exchange.respond(ResponseHead(status, fields), True)
        exchange.conclude(trailers)

    return service


def fail(failure: Failure) -> Any:
    async def service(exchange: Exchange) -> None:
        raise failure

    return service


def test_what_spans_say() -> None:
    attempt, server = spans_of(answer(200))
    assert (server.kind, server.service, server.name, server.error) == (SERVER, "web", "GET", "")
    assert (server.start, server.end, server.heard) == (NOON, NOON + 250_000_000, NOON + 250_000_000)
    assert server.peer == ("192.0.2.1", 40000)
    assert server.tags == {
        "router.label": "web", "service": "/svc/web", "http.request.method": "GET", "url.scheme": "http", "url.path": "/a",
        "server.address": "web", "network.protocol.version": "1.1", "http.request.body.size": 0, "http.response.body.size": 0,
        "http.response.status_code": 200,
    }  # fmt: skip
    assert (attempt.kind, attempt.name, attempt.error, attempt.peer) == (CLIENT, "GET", "", ("127.0.0.1", 8080))
    assert (attempt.start, attempt.end) == (NOON + 125_000_000, NOON + 250_000_000)
    assert attempt.tags == {
        "router.label": "web", "http.request.method": "GET", "service": "/svc/web", "client": "/#/fs/web", "residual": "/v2",
        "server.address": "127.0.0.1", "server.port": 8080, "http.response.status_code": 200, "l5d.success": 1.0,
    }  # fmt: skip


def test_grpc() -> None:
    head = RequestHead(b"POST", b"http", b"web", b"/acme.Users/Get", ((b"content-type", b"application/grpc"),))
    attempt, server = spans_of(answer(200, (), ((b"grpc-status", b"5"),)), head)
    for span in (attempt, server):
        assert span.name == "acme.Users/Get"
        assert (span.tags["rpc.system"], span.tags["rpc.grpc.status_code"]) == ("grpc", 5)
    assert server.tags["network.protocol.version"] == "2"


@pytest.mark.parametrize(
    ("service", "error", "status"),
    [
        (fail(Failure(Kind.DEADLINE, "too late", Blame.UPSTREAM)), "deadline", 503),
        (fail(Failure(Kind.RESET, "another attempt was better", Blame.CLIENT)), "", 502),
    ],
)
def test_failures(service: Any, error: str, status: int) -> None:
    attempt, server = spans_of(service)
    assert attempt.error == server.error == error
    assert attempt.tags["l5d.success"] == 0.0
    assert attempt.tags["failure"] == server.tags["failure"]
    assert attempt.heard == 0
    assert "http.response.status_code" not in attempt.tags
    assert server.tags["http.response.status_code"] == status


def test_an_answer_that_breaks_off_is_an_error_of_its_status() -> None:
    async def broken(exchange: Exchange) -> None:
        exchange.respond(ResponseHead(200), False)

    attempt, _ = spans_of(broken)
    assert attempt.error == "200"


def test_values_of_strangers_are_cut_and_methods_few() -> None:
    head = RequestHead(b"X" * 3000, b"http", b"w" * 3000, b"/" + b"\xff" * 3000, ((b"user-agent", b"u" * 3000),))
    attempt, server = spans_of(answer(200), head)
    assert server.name == attempt.name == "HTTP"
    assert max(len(str(value)) for value in server.tags.values()) == MAX_VALUE


# -- forms ----------------------------------------------------------------------------------------------------


def test_zipkins_v2() -> None:
    assert span_of(SPAN) == {
        "traceId": "0000000000000abc0000000000000001",
        "id": "0000000000000002",
        "parentId": "0000000000000003",
        "kind": "CLIENT",
        "name": "GET",
        "timestamp": 1_000_000,
        "duration": 2000,
        "localEndpoint": {"serviceName": "web"},
        "remoteEndpoint": {"ipv6": "::1", "port": 80},
        "annotations": [{"timestamp": 1_001_000, "value": "wr"}],
        "tags": {"a": "1", "b": "x y", "c": "true", "error": "reset"},
    }
    short = Span(TraceContext(1, 2, 0, True, True), SERVER, "web", "GET", 5000, 5000, 0, ("backend", 1), "", {})
    assert span_of(short) == {
        "traceId": "0000000000000001", "id": "0000000000000002", "kind": "SERVER", "name": "GET", "timestamp": 5, "duration": 1,
        "localEndpoint": {"serviceName": "web"}, "remoteEndpoint": {"serviceName": "backend", "port": 1}, "debug": True,
        "tags": {},
    }  # fmt: skip
    assert json.loads(b"[" + ZipkinTracer(Config()).encode([SPAN, short]) + b"]") == [span_of(SPAN), span_of(short)]


def test_opentelemetrys_protobufs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    tracer = OtlpTracer(OtlpConfig())
    request = ExportTraceServiceRequest.FromString(tracer.encode([SPAN]) + tracer.encode([SPAN]))
    assert len(request.resource_spans) == 2
    resource = {one.key: one.value.string_value for one in request.resource_spans[1].resource.attributes}
    assert resource.items() >= {"service.name": "waypost", "deployment.environment": "test"}.items()
    (scope,) = request.resource_spans[1].scope_spans
    (span,) = scope.spans
    assert scope.scope.name == "waypost"
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (CONTEXT.trace_id, f"{2:016x}", f"{3:016x}")
    assert (span.name, span.kind, span.status.code, span.flags) == ("GET", span.SPAN_KIND_CLIENT, 2, 1)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (SPAN.start, SPAN.end)
    assert [(event.name, event.time_unix_nano) for event in span.events] == [("wr", SPAN.heard)]
    values = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
    assert values == {"a": 1, "b": "x y", "c": True, "error.type": "reset"}


def test_the_service_may_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    request = ExportTraceServiceRequest.FromString(OtlpTracer(OtlpConfig()).encode([SPAN]))
    resource = {one.key: one.value.string_value for one in request.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "edge"


def test_the_fields_of_a_line() -> None:
    assert fields_of(SPAN) == {
        "trace": "0000000000000abc0000000000000001", "id": "0000000000000002", "parent": "0000000000000003", "kind": "client",
        "name": "GET", "took_ms": 2.0, "error": "reset", "a": 1, "b": "x y", "c": True,
    }  # fmt: skip
