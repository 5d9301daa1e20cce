"""Limits end to end: who is refused, with which words in each protocol, and that nobody else is blamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from router.config.load import load_text
from tests.e2e.conftest import REGISTRY
from tests.support import h1, h2peer

REFUSED_STREAM = 7
GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
OK = [(b":status", b"200")]


def yaml(protocol: str, port: int, server: str = "", client: str = "") -> str:
    return f"""
routers:
- protocol: {protocol}
  label: test
  dtab: /svc => /$/inet/127.0.0.1/{port}
  client:
    failureAccrual: {{kind: io.l5d.consecutiveFailures, failures: 1}}
    {client}
  servers:
  - port: 0
    {server}
"""


class Backend:
    """Answers when it is told to, over HTTP/1.1 or HTTP/2."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.go = trio.Event()

    async def http1(self, stream: trio.SocketStream) -> None:
        while data := await stream.receive_some(65536):
            self.seen.append(data)
            await self.go.wait()
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def http2(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        peer = h2peer.Peer(stream, client=False)

        def handler(message: h2peer.Message) -> None:
            self.seen.append(message.get(b":path") or b"")
            nursery.start_soon(self._answer, peer, max(peer.messages))

        peer.handler = handler
        await peer.run()

    async def _answer(self, peer: h2peer.Peer, stream_id: int) -> None:
        await self.go.wait()
        grpc = peer.messages[stream_id].get(b"content-type") is not None
        trailers = [(b"grpc-status", b"0")] if grpc else None
        await peer.answer(stream_id, [*OK, (b"content-type", b"application/grpc")] if grpc else OK, b"ok", trailers)


def flat(worker: Any) -> dict[str, float]:
    return {name.removeprefix("rt/test/"): value for name, value in worker.metrics.flat().items()}


def total(worker: Any, where: str, name: str) -> float:
    """Of the metrics of a kind of stack, the sum of those with that name."""
    found = [value for key, value in flat(worker).items() if key.startswith(where + "/") and key.endswith("/" + name)]
    assert found
    return sum(found)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(2):
        while not condition():
            await trio.sleep(0.001)


async def get(worker: Any, into: list[Any], *fields: tuple[str, str]) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
    async with stream:
        with trio.fail_after(5):
            into.append(await h1.Client(stream).request("GET", "/", "web", list(fields), b""))


async def test_a_servers_limit_over_http1(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    listener, port = await listen()
    backend = Backend()
    nursery.start_soon(trio.serve_listeners, backend.http1, [listener])
    async with start(yaml("http", port, "maxConcurrentRequests: 2")) as worker:
        good: list[Any] = []
        refused: list[Any] = []
        for _ in range(2):
            nursery.start_soon(get, worker, good)
        await until(lambda: len(backend.seen) == 2)
        for _ in range(3):
            await get(worker, refused)
        assert [answer[0] for answer in refused] == [503] * 3
        headers = refused[0][1]
        assert (headers[b"retry-after"], headers[b"finagle-http-nack"]) == (b"0", b"true")
        assert (headers[b"l5d-retryable"], b"too+many+requests" in headers[b"l5d-err"]) == (b"true", True)
        assert total(worker, "server", "request_concurrency") == 2
        backend.go.set()
        await until(lambda: len(good) == 2)
        assert [answer[0] for answer in good] == [200] * 2
        assert (total(worker, "server", "nacks"), total(worker, "server", "shed/limit")) == (3, 3)
        assert (total(worker, "server", "failures"), total(worker, "client", "failures")) == (3, 0)
        assert total(worker, "client", "requests") == 2
        assert worker.host.events.counts == {"shedding_started": 1}
    nursery.cancel_scope.cancel()


async def h2_client(nursery: trio.Nursery, worker: Any) -> h2peer.Peer:
    peer = h2peer.Peer(await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]), client=True)
    nursery.start_soon(peer.run)
    return peer


@pytest.mark.parametrize("where", ["server", "client"])
async def test_limits_over_http2_and_grpc(start: Any, listen: Callable[[], Any], nursery: trio.Nursery, where: str) -> None:
    listener, port = await listen()
    backend = Backend()
    nursery.start_soon(trio.serve_listeners, lambda stream: backend.http2(stream, nursery), [listener])
    key = "maxConcurrentRequests: 1"
    text = yaml("h2", port, key) if where == "server" else yaml("h2", port, "", key)
    async with start(text) as worker:
        client = await h2_client(nursery, worker)
        messages: list[h2peer.Message] = []

        async def request() -> None:
            messages.append(await client.request("/first"))

        nursery.start_soon(request)
        await until(lambda: backend.seen == [b"/first"])
        plain = await client.request("/second")
        call = await client.request("/a.B/C", "web", GRPC, b"\0\0\0\0\0")
        if where == "server":
            assert plain.reset == REFUSED_STREAM
        else:
            assert (plain.reset, plain.get(b":status"), plain.get(b"retry-after")) == (None, b"503", b"0")
        assert (call.get(b":status"), call.get(b"grpc-status")) == (b"200", b"14")
        assert 0 < int(call.get(b"grpc-retry-pushback-ms") or b"") < 500
        backend.go.set()
        await until(lambda: bool(messages))
        assert messages[0].get(b":status") == b"200"
        assert backend.seen == [b"/first"]
        assert total(worker, where, "shed/limit") == 2
        assert total(worker, "client", "failures") == 0
        assert total(worker, "client", "requests") == 1
        assert worker.host.events.counts["endpoint_ejected"] == 0
        again = await client.request("/third")
        assert again.get(b":status") == b"200"
        await client.stream.aclose()
    nursery.cancel_scope.cancel()


async def test_a_clients_queue_serves_the_important_first_and_evicts_the_others(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery
) -> None:
    listener, port = await listen()
    backend = Backend()
    nursery.start_soon(trio.serve_listeners, backend.http1, [listener])
    async with start(yaml("http", port, "", "maxConcurrentRequests: 1\n    maxPendingRequests: 2")) as worker:
        answers: dict[str, list[Any]] = {}

        async def send(name: str, priority: str = "") -> None:
            fields = [("x-name", name), *([("l5d-ctx-priority", priority)] if priority else [])]
            answers[name] = []
            nursery.start_soon(get, worker, answers[name], *fields)

        def queued() -> float:
            names = [name for name in flat(worker) if name.endswith("/request_queue_size")]
            return flat(worker)[names[0]] if names else 0

        await send("first")
        await until(lambda: len(backend.seen) == 1)
        await send("low", "sheddable")
        await until(lambda: queued() == 1)
        await send("nonsense", "very!")
        await until(lambda: queued() == 2)
        await send("high", "critical-plus")
        await until(lambda: bool(answers["low"]))
        status, headers, body = answers["low"][0]
        assert (status, headers[b"l5d-retryable"]) == (503, b"true")
        assert b"1 under way, 2 waiting" in body
        backend.go.set()
        await until(lambda: all(answers.values()))
        assert [answers[name][0][0] for name in ("first", "high", "nonsense")] == [200] * 3
        order = [name for data in backend.seen for name in answers if b"x-name: " + name.encode() in data]
        assert order == ["first", "high", "nonsense"]
        assert (total(worker, "client", "shed/evicted"), total(worker, "client", "priority/malformed")) == (1, 1)
        assert total(worker, "client", "queue_ms.count") == 2
        assert total(worker, "client", "failures") == 0
    nursery.cancel_scope.cancel()


async def test_who_waits_too_long_is_not_sent(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    listener, port = await listen()
    backend = Backend()
    nursery.start_soon(trio.serve_listeners, lambda stream: backend.http2(stream, nursery), [listener])
    client_keys = "maxConcurrentRequests: 1\n    maxPendingRequests: 10"
    async with start(yaml("h2", port, "", client_keys)) as worker:
        client = await h2_client(nursery, worker)
        messages: list[h2peer.Message] = []

        async def request() -> None:
            messages.append(await client.request("/first"))

        nursery.start_soon(request)
        await until(lambda: backend.seen == [b"/first"])
        late = await client.request("/a.B/C", "web", [*GRPC, (b"grpc-timeout", b"60m")], b"\0\0\0\0\0")
        assert late.get(b"grpc-status") in (b"4", b"14")  # refused a little before its time, or at it
        backend.go.set()
        await until(lambda: bool(messages))
        assert backend.seen == [b"/first"]
        await client.stream.aclose()
    nursery.cancel_scope.cancel()


async def test_an_adaptive_limit_is_there_and_lets_traffic_through(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery
) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, lambda request, body: (200, [], b"ok"))
    keys = "adaptiveConcurrency: {minLimit: 2, maxLimit: 50}"
    async with start(yaml("http", port, "", keys)) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
        client = h1.Client(stream)
        for _ in range(20):
            assert (await client.request("GET", "/", "web"))[0] == 200
        assert total(worker, "client", "concurrency_limit") == 20
        (limit,) = [client.adaptive for client in worker.routers["test"].clients.values()]
        assert limit is not None
        assert limit._samples + total(worker, "client", "adaptive/lagging") == 20
        assert "loop_lag_ms" in worker.metrics.flat()
        await stream.aclose()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("where", "text", "message"),
    [
        ("server", "maxConcurrentRequests: 0", "must be 1 or more, not 0"),
        ("server", "maxConcurrentRequests: many", "expected a whole number"),
        ("client", "maxConcurrentRequests: -1", "must be 1 or more, not -1"),
        ("client", "maxPendingRequests: -1", "must be between 0 and 100000, not -1"),
        ("client", "adaptiveConcurrency: {minLimit: 0}", "must be between 1 and 1e+06, not 0"),
        ("client", "adaptiveConcurrency: {minLimit: 9, maxLimit: 8}", "minLimit must not be above maxLimit"),
        ("client", "adaptiveConcurrency: {maxLimt: 9}", "did you mean 'maxLimit'?"),
    ],
)
def test_values_out_of_range_are_refused_at_their_line(where: str, text: str, message: str) -> None:
    made = yaml("http", 1, text) if where == "server" else yaml("http", 1, "", text)
    loaded = load_text(made, "t.yaml", REGISTRY)
    assert loaded.config is None
    (problem,) = loaded.problems
    assert message in problem.message
    assert problem.line == made[: made.index(text)].count("\n") + 1
