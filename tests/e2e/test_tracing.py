"""Traces of real traffic: what endpoints are told, what collectors get, and what bad collectors cost."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from router.model.headers import RequestHead
from router.model.trace import TraceContext
from router.tracing import exporter
from router.tracing.forms import L5D
from tests.support import h1, h2peer

TRACE, SPAN = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"
GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
Headers = list[tuple[bytes, bytes]]


def yaml(telemetry: str, backend: str, protocol: str = "http", more: str = "", service: str = "", client: str = "") -> str:
    return f"""
telemetry:
- {telemetry}
routers:
- protocol: {protocol}
  label: test
  dtab: /svc => {backend}
  service: {{totalTimeoutMs: 5000{service}}}
  client: {{failFast: false{client}}}
  servers: [{{port: 0}}]
  {more}
"""


class Collector:
    """Keeps what is posted to it, and answers with 202."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.posts: list[tuple[str, str, bytes]] = []

    def handler(self, request: Any, body: bytes) -> Any:
        headers = {bytes(name): bytes(value) for name, value in request.headers}
        self.posts.append((request.target.decode(), headers[b"content-type"].decode(), body))
        return 202, [], b""

    def zipkin(self) -> list[dict[str, Any]]:
        """Spans, each of which is what Zipkin's API of version 2 wants."""
        spans = []
        for target, kind, body in self.posts:
            assert (target, kind) == ("/api/v2/spans", "application/json")
            spans += json.loads(body)
        for span in spans:
            check_v2(span)
        return spans

    def otlp(self) -> list[Any]:
        spans = []
        for target, kind, body in self.posts:
            assert (target, kind) == ("/v1/traces", "application/x-protobuf")
            request = ExportTraceServiceRequest.FromString(body)
            spans += [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]
        return spans


def check_v2(span: dict[str, Any]) -> None:
    """The rules of Zipkin's ``Span`` (zipkin2-api.yaml)."""
    assert re.fullmatch("[0-9a-f]{16}|[0-9a-f]{32}", span["traceId"])
    assert re.fullmatch("[0-9a-f]{16}", span["id"])
    assert span["kind"] in ("CLIENT", "SERVER")
    assert type(span["timestamp"]) is int
    assert span["timestamp"] > 1_700_000_000_000_000
    assert type(span["duration"]) is int
    assert span["duration"] >= 1
    assert span["localEndpoint"]["serviceName"]
    assert all(isinstance(value, str) for value in span["tags"].values())
    assert set(span) <= {
        "traceId", "id", "parentId", "kind", "name", "timestamp", "duration", "localEndpoint", "remoteEndpoint", "annotations",
        "tags", "debug",
    }  # fmt: skip


@pytest.fixture
async def collector(listen: Any, nursery: trio.Nursery) -> Collector:
    listener, port = await listen()
    made = Collector(port)
    nursery.start_soon(h1.serve, listener, made.handler)
    return made


def zipkin(collector: Collector, rate: float = 1.0) -> str:
    return f"{{kind: io.l5d.zipkin, host: 127.0.0.1, port: {collector.port}, sampleRate: {rate}}}"


def otlp(collector: Collector) -> str:
    return f'{{kind: otlp, endpoint: "http://127.0.0.1:{collector.port}/v1/traces", sampleRate: 1.0}}'


async def flush(worker: Any) -> None:
    for one in worker.exporters:
        await one.flush(5.0)


async def call_h1(worker: Any, *fields: tuple[str, str]) -> int:
    stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
    async with stream:
        with trio.fail_after(5):
            return (await h1.Client(stream).request("GET", "/x?secret=1", "web", list(fields)))[0]


async def call_h2(worker: Any, *fields: tuple[str, str], grpc: bool = False) -> int:
    stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
    headers = [(name.encode(), value.encode()) for name, value in fields]
    async with trio.open_nursery() as nursery, stream:
        client = h2peer.Peer(stream, client=True)
        nursery.start_soon(client.run)
        path, more, body = ("/a.B/Get", GRPC, b"\0\0\0\0\0") if grpc else ("/x?secret=1", [], b"")
        with trio.fail_after(5):
            done = await client.request(path, "web", [*headers, *more], body)
        nursery.cancel_scope.cancel()
    return int(done.get(b":status") or b"0")


async def call_grpc(worker: Any, *fields: tuple[str, str]) -> int:
    return await call_h2(worker, *fields, grpc=True)


def backend_h1(seen: list[Headers], listener: Any) -> Callable[[], Awaitable[None]]:
    def handler(request: Any, body: bytes) -> Any:
        seen.append([(bytes(name), bytes(value)) for name, value in request.headers])
        return 200, [], b"ok"

    async def serve() -> None:
        await h1.serve(listener, handler)

    return serve


def backend_h2(seen: list[Headers], listener: Any) -> Callable[[], Awaitable[None]]:
    def handler(message: h2peer.Message) -> Any:
        seen.append(message.headers)
        if message.get(b"content-type") == b"application/grpc":
            return [(b":status", b"200"), (b"content-type", b"application/grpc")], b"\0\0\0\0\0", [(b"grpc-status", b"0")]
        return [(b":status", b"200")], b"ok", []

    async def connection(stream: trio.SocketStream) -> None:
        await h2peer.Peer(stream, client=False, handler=handler).run()

    async def serve() -> None:
        await trio.serve_listeners(connection, [listener])

    return serve


def told(seen: Headers) -> TraceContext:
    found = L5D.read(RequestHead(b"GET", b"http", b"web", b"/", tuple(seen)))
    assert found is not None
    return found


WAYS = {
    "http to http": ("http", call_h1, backend_h1, ""),
    "http to h2": ("http", call_h1, backend_h2, ", protocol: h2"),
    "h2 to http": ("h2", call_h2, backend_h1, ", protocol: http"),
    "h2 to h2": ("h2", call_h2, backend_h2, ""),
    "grpc to grpc": ("grpc", call_grpc, backend_h2, ""),
}


@pytest.mark.parametrize("way", WAYS)
async def test_spans_of_every_protocol(start: Any, listen: Any, nursery: trio.Nursery, collector: Collector, way: str) -> None:
    protocol, call, backend, client = WAYS[way]
    listener, port = await listen()
    seen: list[Headers] = []
    nursery.start_soon(backend(seen, listener))
    async with start(yaml(zipkin(collector), f"/$/inet/127.0.0.1/{port}", protocol, client=client)) as worker:
        state = ("tracestate", "vendor=1,other=2")
        assert await call(worker, ("traceparent", f"00-{TRACE}-{SPAN}-01"), state) == 200
        await flush(worker)
        assert worker.metrics.flat()["telemetry/io.l5d.zipkin/exported"] == 2
    client_span, server_span = collector.zipkin()
    assert (server_span["kind"], server_span["traceId"], server_span["parentId"]) == ("SERVER", TRACE, SPAN)
    assert (client_span["kind"], client_span["traceId"], client_span["parentId"]) == ("CLIENT", TRACE, server_span["id"])
    assert client_span["remoteEndpoint"] == {"ipv4": "127.0.0.1", "port": port}
    assert client_span["annotations"][0]["value"] == "wr"
    assert client_span["tags"]["client"] == f"/$/inet/127.0.0.1/{port}"
    assert (
        server_span["tags"]["service"] == client_span["tags"]["service"] == ("/svc/a.B" if protocol == "grpc" else "/svc/web")
    )
    assert server_span["tags"]["http.response.status_code"] == client_span["tags"]["http.response.status_code"] == "200"
    assert client_span["tags"]["l5d.success"] == "1.0"
    assert "secret" not in json.dumps([client_span, server_span])
    if protocol == "grpc":
        assert server_span["name"] == "a.B/Get"
        assert server_span["tags"]["rpc.grpc.status_code"] == "0"
    (fields,) = seen
    assert dict(fields)[b"traceparent"] == f"00-{TRACE}-{client_span['id']}-01".encode()
    assert dict(fields)[b"tracestate"] == b"vendor=1,other=2"
    assert (told(fields).trace, told(fields).span) == (int(TRACE, 16), int(client_span["id"], 16))


async def test_opentelemetry_and_the_access_log(
    start: Any, listen: Any, nursery: trio.Nursery, collector: Collector, tmp_path: Path
) -> None:
    listener, port = await listen()
    seen: list[Headers] = []
    nursery.start_soon(backend_h1(seen, listener))
    log = tmp_path / "access.json"
    text = yaml(otlp(collector), f"/$/inet/127.0.0.1/{port}", more=f"accessLog: {{file: {log}}}")
    async with start(text) as worker:
        assert await call_h1(worker, ("x-b3-traceid", TRACE[16:]), ("x-b3-spanid", SPAN)) == 200
        assert await call_h1(worker) == 200
        assert await call_h1(worker, ("l5d-dtab", "/svc => /$/fail")) == 502
        await flush(worker)
    spans = collector.otlp()
    client, server = spans[:2]
    assert (server.kind, client.kind) == (server.SPAN_KIND_SERVER, client.SPAN_KIND_CLIENT)
    assert server.trace_id.hex() == f"{TRACE[16:]:0>32}"
    assert (server.parent_span_id.hex(), client.parent_span_id) == (SPAN, server.span_id)
    assert dict(seen[0])[b"x-b3-spanid"] == client.span_id.hex().encode()
    assert server.status.code == 0
    assert server.end_time_unix_nano > server.start_time_unix_nano > 1_700_000_000_000_000_000
    refused = spans[-1]
    assert (refused.kind, refused.status.code) == (refused.SPAN_KIND_SERVER, refused.status.STATUS_CODE_ERROR)
    assert {one.key: one.value.string_value for one in refused.attributes}["error.type"] == "unbound"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    servers = [span for span in spans if span.kind == span.SPAN_KIND_SERVER]
    assert [int(record["trace"], 16) for record in records] == [int(span.trace_id.hex(), 16) for span in servers]


async def test_retries_have_spans(start: Any, listen: Any, nursery: trio.Nursery, collector: Collector) -> None:
    listener, port = await listen()
    seen: list[Headers] = []

    def handler(request: Any, body: bytes) -> Any:
        seen.append([(bytes(name), bytes(value)) for name, value in request.headers])
        return 503 if len(seen) == 1 else 200, [], b""

    nursery.start_soon(h1.serve, listener, handler)
    service = ", responseClassifier: {kind: io.l5d.http.retryableRead5XX}"
    async with start(yaml(zipkin(collector), f"/$/inet/127.0.0.1/{port}", service=service)) as worker:
        assert await call_h1(worker) == 200
        await flush(worker)
    first, second, server = collector.zipkin()
    assert (first["tags"]["error"], first["tags"]["l5d.retryable"]) == ("503", "true")
    assert (second["tags"]["http.request.resend_count"], second["tags"]["http.response.status_code"]) == ("1", "200")
    assert "error" not in second["tags"]
    assert "error" not in server["tags"]
    assert [f"{told(fields).span:016x}" for fields in seen] == [first["id"], second["id"]]


async def test_requeues_have_spans(
    start: Any, listen: Any, nursery: trio.Nursery, collector: Collector, tmp_path: Path
) -> None:
    listener, port = await listen()
    gone, nobody = await listen()
    await gone.aclose()
    nursery.start_soon(backend_h1([], listener))
    (tmp_path / "web").write_text(f"127.0.0.1 {port}\n127.0.0.1 {nobody}\n")
    text = f"namers: [{{kind: io.l5d.fs, rootDir: {tmp_path}}}]\n" + yaml(zipkin(collector), "/#/io.l5d.fs")
    async with start(text) as worker:
        for _ in range(24):
            assert await call_h1(worker) == 200
        await flush(worker)
    refused = [span for span in collector.zipkin() if "error" in span["tags"]]
    assert refused
    assert {span["tags"]["error"] for span in refused} == {"connect"}
    assert {span["remoteEndpoint"]["port"] for span in refused} == {nobody}
    again = [span for span in collector.zipkin() if "http.request.resend_count" in span["tags"]]
    assert {span["parentId"] for span in again} == {span["parentId"] for span in refused}


async def test_hedges_have_spans(start: Any, listen: Any, nursery: trio.Nursery, collector: Collector) -> None:
    listener, port = await listen()
    seen: list[Headers] = []

    def handler(message: h2peer.Message) -> Any:
        seen.append(message.headers)
        return None if len(seen) == 1 else ([(b":status", b"200")], b"ok", [])

    async def connection(stream: trio.SocketStream) -> None:
        await h2peer.Peer(stream, client=False, handler=handler).run()

    nursery.start_soon(trio.serve_listeners, connection, [listener])
    text = yaml(zipkin(collector), f"/$/inet/127.0.0.1/{port}", "h2", service=", hedging: {delayMs: 20}")
    async with start(text) as worker:
        assert await call_h2(worker) == 200
        await flush(worker)
    spans = {span["id"]: span for span in collector.zipkin()}
    attempts = [spans.pop(f"{told(fields).span:016x}") for fields in seen]
    (server,) = spans.values()
    assert {span["parentId"] for span in attempts} == {server["id"]}
    assert [span["tags"].get("hedge") for span in attempts] == [None, "true"]
    assert [span["tags"].get("failure") for span in attempts] == ["another attempt was better", None]
    assert not any("error" in span["tags"] for span in (*attempts, server))


async def test_samples(start: Any, listen: Any, nursery: trio.Nursery, collector: Collector) -> None:
    listener, port = await listen()
    seen: list[Headers] = []
    nursery.start_soon(backend_h1(seen, listener))
    async with start(yaml(zipkin(collector, 0.0), f"/$/inet/127.0.0.1/{port}")) as worker:
        await call_h1(worker)
        await call_h1(worker, ("l5d-sample", "1.0"))
        await call_h1(worker, ("b3", "0"))
        await call_h1(worker, ("traceparent", "00-nonsense"), ("b3", "x"))
        await flush(worker)
        flat = worker.metrics.flat()
    assert len(collector.zipkin()) == 2
    assert flat[f"rt/test/server/127.0.0.1/{worker.addresses[0][2]}/trace/malformed"] == 2
    shown = [[name for name, _ in fields if name in (b"l5d-ctx-trace", b"l5d-sample", b"b3")] for fields in seen]
    assert shown == [[b"l5d-sample"], [b"l5d-ctx-trace"], [b"b3", b"l5d-sample"], [b"b3", b"l5d-sample"]]


async def test_contexts_pass_through_where_nothing_is_configured(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    seen: list[Headers] = []
    nursery.start_soon(backend_h1(seen, listener))
    text = yaml("{kind: io.l5d.prometheus}", f"/$/inet/127.0.0.1/{port}")
    fields = [("traceparent", f"00-{TRACE}-{SPAN}-01"), ("b3", "junk"), ("l5d-ctx-trace", "x"), ("l5d-sample", "0.5")]
    async with start(text) as worker:
        assert await call_h1(worker, *fields) == 200
    assert {(name.encode(), value.encode()) for name, value in fields} <= set(seen[0])


async def test_a_propagator_alone(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    seen: list[Headers] = []
    nursery.start_soon(backend_h1(seen, listener))
    text = yaml("{kind: io.l5d.prometheus}", f"/$/inet/127.0.0.1/{port}", more="tracePropagator: {kind: io.l5d.default}")
    async with start(text) as worker:
        assert await call_h1(worker) == 200
        assert (
            await call_h1(worker, *[(name.decode(), value.decode()) for name, value in seen[0] if name == b"l5d-ctx-trace"])
            == 200
        )
    first, second = (told(fields) for fields in seen)
    assert dict(seen[0])[b"l5d-reqid"] == dict(seen[1])[b"l5d-reqid"]
    assert first.trace == second.trace
    assert first.sampled is None


async def test_a_collector_that_hangs_costs_calls_nothing(
    start: Any, listen: Any, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "EVERY", 0.001)
    monkeypatch.setattr(exporter, "TIMEOUT", 3600.0)
    monkeypatch.setattr(exporter, "MAX_WAITING", 4)
    listener, port = await listen()
    silent = Collector((await listen())[1])  # accepts in the kernel only
    nursery.start_soon(backend_h1([], listener))
    async with start(yaml(zipkin(silent), f"/$/inet/127.0.0.1/{port}")) as worker:
        for _ in range(20):
            assert await call_h1(worker) == 200
        flat = worker.metrics.flat()
        assert flat["telemetry/io.l5d.zipkin/exported"] == 0
        assert flat["telemetry/io.l5d.zipkin/dropped"] >= 40 - 4 - 4  # but for those that wait, and those on their way
        (event,) = [event for event in worker.host.events.recent if event.name == "trace_dropped"]
        assert event.fields["telemeter"] == "io.l5d.zipkin"
        with trio.fail_after(5):
            await worker.exporters[0].flush(0.01)


async def test_spans_are_exported_before_a_worker_ends(
    start: Any, listen: Any, nursery: trio.Nursery, collector: Collector
) -> None:
    listener, port = await listen()
    nursery.start_soon(backend_h1([], listener))
    async with start(yaml(zipkin(collector), f"/$/inet/127.0.0.1/{port}")) as worker:
        assert await call_h1(worker) == 200
        await worker.drain(1.0)
        assert len(collector.zipkin()) == 2
