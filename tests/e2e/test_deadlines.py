"""Deadlines end to end: who is told, who is reset, and who is not blamed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.support import h1, h2peer

CANCEL = 8
GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]


def yaml(protocol: str, port: int, router: str = "", service: str = "") -> str:
    return f"""
routers:
- protocol: {protocol}
  label: test
  dtab: /svc => /$/inet/127.0.0.1/{port}
  {router}
  service: {{{service}}}
  client: {{failureAccrual: {{kind: io.l5d.consecutiveFailures, failures: 1}}}}
  servers: [{{port: 0}}]
"""


def flat(worker: Any) -> dict[str, float]:
    return {name.removeprefix("rt/test/"): value for name, value in worker.metrics.flat().items()}


def of_server(worker: Any, name: str) -> float:
    (value,) = [value for key, value in flat(worker).items() if key.startswith("server/") and key.endswith(f"/{name}")]
    return value


async def h2_client(nursery: trio.Nursery, worker: Any) -> h2peer.Peer:
    peer = h2peer.Peer(await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]), client=True)
    nursery.start_soon(peer.run)
    return peer


async def h1_get(worker: Any, *fields: tuple[str, str]) -> tuple[int, dict[bytes, bytes], bytes]:
    stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
    async with stream:
        with trio.fail_after(5):
            return await h1.Client(stream).request("GET", "/", "web", list(fields), b"")


async def backend_resets(peers: list[h2peer.Peer], stream: int = 1) -> int | None:
    """With which code the backend's stream was reset."""
    with trio.fail_after(1):
        await peers[0].messages[stream].done.wait()
        while peers[0].messages[stream].reset is None:
            await trio.sleep(0.001)
    return peers[0].messages[stream].reset


@pytest.mark.parametrize(("status", "expected"), [("", 503), ("timeoutStatus: 504", 504)])
async def test_http1_gets_linkerds_status_or_504(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, status: str, expected: int
) -> None:
    _, port = await listen()  # accepts in the kernel, and never answers
    async with start(yaml("http", port, status, "totalTimeoutMs: 50")) as worker:
        code, headers, body = await h1_get(worker)
        assert code == expected
        assert body == b"exceeded 50 ms route timeout"
        assert headers[b"l5d-err"] == b"exceeded+50+ms+route+timeout"
        assert of_server(worker, "deadline/route") == 1
        assert worker.host.events.counts["deadline_exceeded"] == 1


@pytest.mark.parametrize("status", ["", "timeoutStatus: 504"])
async def test_http2_is_reset_like_linkerd_or_answered(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, status: str
) -> None:
    listener, port = await listen()
    peers: list[h2peer.Peer] = []
    nursery.start_soon(h2peer.serve, listener, lambda message: None, peers)
    async with start(yaml("h2", port, status, "totalTimeoutMs: 200")) as worker:
        client = await h2_client(nursery, worker)
        answer = await client.request("/")
        assert (answer.reset, answer.get(b":status")) == ((None, b"504") if status else (2, None))
        assert await backend_resets(peers) == CANCEL
        await client.stream.aclose()


async def test_a_clients_short_deadline_ejects_nobody_and_cancels_at_once(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery
) -> None:
    listener, port = await listen()
    peers: list[h2peer.Peer] = []
    nursery.start_soon(h2peer.serve, listener, lambda message: None, peers)
    async with start(yaml("grpc", port)) as worker:
        client = await h2_client(nursery, worker)
        answer = await client.request("/a.B/C", "x", [*GRPC, (b"grpc-timeout", b"40m")], b"\0\0\0\0\0")
        assert (answer.get(b"grpc-status"), answer.get(b"grpc-message")) == (b"4", b"exceeded 40 ms client timeout")
        assert await backend_resets(peers) == CANCEL
        assert worker.host.events.counts["endpoint_ejected"] == 0
        assert of_server(worker, "deadline/client") == 1
        await client.stream.aclose()


async def test_the_routers_own_limit_shortens_what_grpc_endpoints_are_told(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery
) -> None:
    listener, port = await listen()
    seen: list[bytes | None] = []

    def answer(message: h2peer.Message) -> Any:
        seen.append(message.get(b"grpc-timeout"))
        return [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"0")], b"", []

    nursery.start_soon(h2peer.serve, listener, answer)
    async with start(yaml("grpc", port, "maxTimeoutMs: 3000")) as worker:
        client = await h2_client(nursery, worker)
        await client.request("/a.B/C", "x", [*GRPC, (b"grpc-timeout", b"20S")], b"\0\0\0\0\0")
        await client.request("/a.B/C", "x", GRPC, b"\0\0\0\0\0")
        assert all(value is not None and value.endswith(b"m") and 1_000 < int(value[:-1]) < 3_000 for value in seen)
        await client.stream.aclose()


async def test_expiry_within_the_body_ends_a_grpc_stream_with_trailers(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery
) -> None:
    listener, port = await listen()
    peers: list[h2peer.Peer] = []

    def begin(message: h2peer.Message) -> None:
        peer = peers[0]
        peer.conn.send_headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc")])
        peer.conn.send_data(1, b"\0\0\0\0\1x")
        nursery.start_soon(peer.flush)

    nursery.start_soon(h2peer.serve, listener, begin, peers)
    async with start(yaml("grpc", port)) as worker:
        client = await h2_client(nursery, worker)
        answer = await client.request("/a.B/C", "x", [*GRPC, (b"grpc-timeout", b"80m")], b"\0\0\0\0\0")
        assert (answer.body, answer.get(b"grpc-status"), answer.reset) == (b"\0\0\0\0\1x", b"4", None)
        assert await backend_resets(peers) == CANCEL
        await client.stream.aclose()


async def test_expiry_within_the_body_breaks_http1_visibly(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery
) -> None:
    listener, port = await listen()

    async def half(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        assert await stream.receive_some(1) == b""

    nursery.start_soon(trio.serve_listeners, half, [listener])
    async with start(yaml("http", port, "", "totalTimeoutMs: 60")) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        data = b""
        with trio.fail_after(2):
            while more := await stream.receive_some(65536):
                data += more
        assert data.endswith(b"half")
        await stream.aclose()
        assert of_server(worker, "deadline/route") == 1


async def test_the_context_header_is_enforced_and_told_on(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    listener, port = await listen()
    seen: list[bytes] = []

    def handler(request: Any, body: bytes) -> Any:
        seen.extend(value for name, value in request.headers if name == b"l5d-ctx-deadline")
        return 200, [], b""

    nursery.start_soon(h1.serve, listener, handler)
    now = time.time_ns()
    async with start(yaml("http", port)) as worker:
        assert (await h1_get(worker, ("l5d-ctx-deadline", f"{now} {now + 10**10}")))[0] == 200
        stamp, deadline = map(int, seen[0].split())
        assert now <= stamp < now + 10**9
        assert now + 10**10 - 10**7 < deadline <= now + 10**10
        code, _, body = await h1_get(worker, ("l5d-ctx-deadline", f"{now} {now - 1}"))
        assert (code, body, len(seen)) == (503, b"exceeded 0 ms client timeout", 1)
        assert (await h1_get(worker, ("l5d-ctx-deadline", "tomorrow")))[0] == 200
        assert of_server(worker, "deadline/malformed") == 1


async def test_the_clock_of_a_head_in_pieces_starts_with_the_first(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery
) -> None:
    _, port = await listen()
    async with start(yaml("http", port, "", "totalTimeoutMs: 150")) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
        began = trio.current_time()
        await stream.send_all(b"GET / HT")
        await trio.sleep(0.1)
        await stream.send_all(b"TP/1.1\r\nhost: web\r\n\r\n")
        with trio.fail_after(1):
            await stream.receive_some(65536)
        assert 0.14 < trio.current_time() - began < 0.24
        await stream.aclose()
