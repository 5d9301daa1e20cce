"""Retries and requeues end to end: YAML in, real traffic over loopback, counters out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.support import h1, h2peer

GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]


def yaml(protocol: str, ports: list[int], service: str = "", client: str = "") -> str:
    branches = " & ".join(f"/$/inet/127.0.0.1/{port}" for port in ports)
    return f"""
routers:
- protocol: {protocol}
  label: test
  dtab: /svc => {branches}
  service:
    {service or "totalTimeoutMs: 5000"}
  client:
    {client or "requeueBudget: {minRetriesPerSec: 10}"}
  servers:
  - port: 0
"""


def flat(worker: Any) -> dict[str, float]:
    """The metrics below the router's label, without it."""
    return {name.removeprefix("rt/test/"): value for name, value in worker.metrics.flat().items()}


def port_of(worker: Any) -> int:
    port: int = worker.addresses[0][2]
    return port


async def get(worker: Any, method: str = "GET", body: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
    async with stream:
        with trio.fail_after(5):
            return await h1.Client(stream).request(method, "/", "web", [], body)


def sequence(*statuses: int, headers: list[tuple[bytes, bytes]] | None = None) -> tuple[Any, list[Any]]:
    """A backend's handler: those statuses, then 200; and the requests that it saw."""
    seen: list[Any] = []

    def handler(request: Any, body: bytes) -> Any:
        seen.append((request, body))
        at = len(seen) - 1
        status = statuses[at] if at < len(statuses) else 200
        return status, headers or [], b"answer %d" % at

    return handler, seen


@pytest.mark.parametrize(("kind", "method", "retried"), [("Read", "GET", True), ("Read", "POST", False), ("All", "POST", True)])
async def test_5xx_then_200(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, kind: str, method: str, retried: bool
) -> None:
    listener, port = await listen()
    handler, seen = sequence(500)
    nursery.start_soon(h1.serve, listener, handler)
    text = yaml("http", [port], f"responseClassifier: {{kind: io.l5d.http.retryable{kind}5XX}}")
    async with start(text) as worker:
        status, _, body = await get(worker, method, b"payload" if method == "POST" else b"")
        assert (status, body) == ((200, b"answer 1") if retried else (500, b"answer 0"))
        assert len(seen) == 1 + retried
        assert all(sent == (b"payload" if method == "POST" else b"") for _, sent in seen)
        counted = flat(worker)
        client = f"client/$/inet/127.0.0.1/{port}"
        assert counted[f"{client}/requests"] == 1 + retried
        assert counted[f"{client}/status/500"] == 1
        assert (counted["service/svc/web/requests"], counted["service/svc/web/success"]) == (1, retried)
        assert (counted["service/svc/web/retries/total"], counted["service/svc/web/retries/per_request.sum"]) == (
            retried,
            retried,
        )
        assert counted[f"{client}/connections"] == 1


async def test_l5d_retryable(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    listener, port = await listen()
    handler, seen = sequence(500, headers=[(b"l5d-retryable", b"true")])
    nursery.start_soon(h1.serve, listener, handler)
    async with start(yaml("http", [port])) as worker:
        assert (await get(worker, "POST", b"x"))[0] == 200
        assert len(seen) == 2


async def test_the_budget_of_a_name(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    listener, port = await listen()
    handler, seen = sequence(200, 500, 200, 500, 500)
    nursery.start_soon(h1.serve, listener, handler)
    service = """responseClassifier: {kind: io.l5d.http.retryableRead5XX}
    retries: {budget: {minRetriesPerSec: 0, percentCanRetry: 0.5}}"""
    async with start(yaml("http", [port], service)) as worker:
        assert [(await get(worker))[0] for _ in range(3)] == [200, 200, 500]
        counted = flat(worker)
        assert counted["service/svc/web/retries/total"] == 1
        assert counted["service/svc/web/retries/budget_exhausted"] == 1
        assert len(seen) == 4


async def test_one_request_does_not_spend_the_budget(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    listener, port = await listen()
    handler, seen = sequence(*[500] * 200)
    nursery.start_soon(h1.serve, listener, handler)
    async with start(yaml("http", [port], "responseClassifier: {kind: io.l5d.http.retryableRead5XX}")) as worker:
        assert (await get(worker))[0] == 500
        assert len(seen) == 25
        assert flat(worker)[f"client/$/inet/127.0.0.1/{port}/connections"] == 1


@pytest.mark.parametrize(("method", "body", "status"), [("GET", b"", 200), ("POST", b"x", 502), ("DELETE", b"", 502)])
async def test_a_kept_connection_that_closes_on_a_request(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, method: str, body: bytes, status: int
) -> None:
    """The endpoint's idle limit passed at that moment: what is safe is sent again, what is not might have been acted on."""
    seen: list[int] = []

    async def backend(stream: trio.SocketStream) -> None:
        for turn in (0, 1):
            await stream.receive_some(65536)
            seen.append(turn)
            if turn == 0:
                await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, backend, [listener])
    async with start(yaml("http", [port])) as worker:
        assert (await get(worker))[0] == 200
        assert (await get(worker, method, body))[0] == status
        assert seen == [0, 1, 0][: 3 if status == 200 else 2]
    nursery.cancel_scope.cancel()


async def test_an_attempt_that_takes_too_long(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    seen = []

    async def backend(stream: trio.SocketStream) -> None:
        seen.append(stream)
        await stream.receive_some(65536)
        if len(seen) == 1:
            await trio.sleep_forever()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await trio.sleep_forever()

    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, backend, [listener])
    text = yaml("http", [port], "responseClassifier: {kind: io.l5d.http.retryableRead5XX}", "requestAttemptTimeoutMs: 40")
    async with start(text) as worker:
        assert (await get(worker))[0] == 200
        counted = flat(worker)
        assert counted[f"client/$/inet/127.0.0.1/{port}/requests"] == 2
        assert (counted["service/svc/web/retries/total"], counted["service/svc/web/requests"]) == (1, 1)
    nursery.cancel_scope.cancel()


async def test_a_refused_connection_goes_to_another_endpoint(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any
) -> None:
    listener, port = await listen()
    dead, dead_port = await listen()
    await dead.aclose()
    handler, seen = sequence()
    nursery.start_soon(h1.serve, listener, handler)
    (tmp_path / "web").write_text(f"127.0.0.1 {port}\n127.0.0.1 {dead_port}\n")
    text = f"""
namers:
- kind: io.l5d.fs
  rootDir: {tmp_path}
routers:
- protocol: http
  label: test
  dtab: /svc => /#/io.l5d.fs
  servers:
  - port: 0
"""
    async with start(text) as worker:
        for at in range(12):
            assert (await get(worker, "POST", b"body %d" % at))[0] == 200
        assert [body for _, body in seen] == [b"body %d" % at for at in range(12)]
        counted = flat(worker)
        assert counted["client/#/io.l5d.fs/web/failures"] == 0
        assert counted["client/#/io.l5d.fs/web/retries/requeues"] >= 1
        assert counted["service/svc/web/retries/total"] == 0


# -- HTTP/2 and gRPC ----------------------------------------------------------------------------------------------


async def call(worker: Any, nursery: trio.Nursery, body: bytes = b"") -> Any:
    async with await trio.open_tcp_stream("127.0.0.1", port_of(worker)) as stream:
        peer = h2peer.Peer(stream, client=True)
        nursery.start_soon(peer.run)
        with trio.fail_after(5):
            return await peer.request("/acme.S/M", "web", GRPC, body)


def grpc_sequence(*answers: Any) -> tuple[Any, list[Any]]:
    seen: list[Any] = []

    def handler(message: Any) -> Any:
        seen.append(message)
        at = len(seen) - 1
        return answers[at] if at < len(answers) else (OK, b"message", [(b"grpc-status", b"0")])

    return handler, seen


OK = [(b":status", b"200"), (b"content-type", b"application/grpc")]


@pytest.mark.parametrize(
    "first",
    [
        ([*OK, (b"grpc-status", b"14")], b"", []),
        (OK, b"", [(b"grpc-status", b"14")]),
        (OK, b"half", [(b"grpc-status", b"14"), (b"grpc-message", b"try again")]),
    ],
    ids=["trailers-only", "trailers", "behind a message"],
)
async def test_unavailable_is_retried(start: Any, listen: Callable[[], Any], nursery: trio.Nursery, first: Any) -> None:
    listener, port = await listen()
    handler, seen = grpc_sequence(first)
    nursery.start_soon(h2peer.serve, listener, handler)
    async with start(yaml("grpc", [port])) as worker:
        answer = await call(worker, nursery, b"request")
        assert (answer.body, answer.get(b"grpc-status")) == (b"message", b"0")
        assert [message.body for message in seen] == [b"request", b"request"]
        assert [message.get(b"grpc-previous-rpc-attempts") for message in seen] == [None, b"1"]
        assert flat(worker)["service/svc/acme.S/retries/total"] == 1
    nursery.cancel_scope.cancel()


async def test_other_statuses_are_not(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    listener, port = await listen()
    handler, seen = grpc_sequence(([*OK, (b"grpc-status", b"13")], b"", []))
    nursery.start_soon(h2peer.serve, listener, handler)
    async with start(yaml("grpc", [port])) as worker:
        assert (await call(worker, nursery)).get(b"grpc-status") == b"13"
        assert len(seen) == 1
    nursery.cancel_scope.cancel()


async def test_a_pushback_that_says_never(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    listener, port = await listen()
    handler, seen = grpc_sequence(([*OK, (b"grpc-status", b"14"), (b"grpc-retry-pushback-ms", b"-1")], b"", []))
    nursery.start_soon(h2peer.serve, listener, handler)
    async with start(yaml("grpc", [port])) as worker:
        assert (await call(worker, nursery)).get(b"grpc-status") == b"14"
        assert len(seen) == 1
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("classifier", "path", "told"),
    [
        ("io.l5d.http.nonRetryable5XX", "/200", b"1.0"),
        ("io.l5d.http.nonRetryable5XX", "/404", b"1.0"),
        ("io.l5d.http.nonRetryable5XX", "/500", b"0.0"),
        ("io.l5d.http.allSuccessful", "/500", b"1.0"),
    ],
)
async def test_the_client_is_told_the_class_of_the_response(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, classifier: str, path: str, told: bytes
) -> None:
    listener, port = await listen()

    def handler(request: Any, body: bytes) -> Any:
        return int(path[1:]), [(b"l5d-success-class", b"0.5")], b""

    nursery.start_soon(h1.serve, listener, handler)
    service = f"responseClassifier: {{kind: {classifier}}}"
    async with (
        start(yaml("http", [port], service)) as worker,
        await trio.open_tcp_stream("127.0.0.1", port_of(worker)) as stream,
    ):
        client = h1.Client(stream)
        for _ in range(3):  # a head that repeats is marked once
            status, headers, _ = await client.request("GET", path, "web")
            assert (status, headers[b"l5d-success-class"]) == (int(path[1:]), told)
    nursery.cancel_scope.cancel()
