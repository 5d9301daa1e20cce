"""Circuit breaking end to end: a backend that fails is left alone, and tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.support import h1, h2peer

OK = [(b":status", b"200"), (b"content-type", b"application/grpc")]
GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]


def yaml(protocol: str, directory: Any, client: str = "") -> str:
    return f"""
namers:
- kind: io.l5d.fs
  rootDir: {directory}
routers:
- protocol: {protocol}
  label: test
  dtab: /svc => /#/io.l5d.fs/backends
  client:
    failureAccrual: {{kind: io.l5d.consecutiveFailures, failures: 3, backoff: {{kind: constant, ms: 200}}}}
    {client}
  servers:
  - port: 0
"""


def events(worker: Any) -> list[str]:
    return [event.name for event in worker.host.events.recent]


async def get(worker: Any) -> int:
    async with await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]) as stream:
        with trio.fail_after(5):
            return (await h1.Client(stream).request("GET", "/", "web"))[0]


async def call(worker: Any, nursery: trio.Nursery) -> bytes | None:
    async with await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]) as stream:
        peer = h2peer.Peer(stream, client=True)
        nursery.start_soon(peer.run)
        with trio.fail_after(5):
            return (await peer.request("/acme.S/M", "web", GRPC, b"x")).get(b"grpc-status")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_a_failing_backend_is_ejected_and_revived(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any, protocol: str
) -> None:
    good, good_port = await listen()
    flaky, flaky_port = await listen()
    broken = True
    seen = {"good": 0, "flaky": 0}

    def http(name: str) -> Any:
        def handler(request: Any, body: bytes) -> Any:
            seen[name] += 1
            return (500 if name == "flaky" and broken else 200), [], b""

        return handler

    def grpc(name: str) -> Any:
        def handler(message: Any) -> Any:
            seen[name] += 1
            return OK, b"m", [(b"grpc-status", b"13" if name == "flaky" and broken else b"0")]

        return handler

    serve, made = (h1.serve, http) if protocol == "http" else (h2peer.serve, grpc)
    nursery.start_soon(serve, good, made("good"))
    nursery.start_soon(serve, flaky, made("flaky"))
    (tmp_path / "backends").write_text(f"127.0.0.1 {good_port}\n127.0.0.1 {flaky_port}\n")

    async def once(worker: Any) -> bool:
        return (await get(worker)) == 200 if protocol == "http" else (await call(worker, nursery)) == b"0"

    async with start(yaml(protocol, tmp_path)) as worker:
        while events(worker) != ["endpoint_ejected"]:
            await once(worker)
        assert seen["flaky"] == 3
        assert all([await once(worker) for _ in range(6)])
        assert seen["flaky"] == 3
        await trio.sleep(0.22)
        while seen["flaky"] < 4:
            await once(worker)  # the probe fails
        assert events(worker) == ["endpoint_ejected"] * 2
        broken = False
        await trio.sleep(0.22)
        with trio.fail_after(5):
            while "endpoint_revived" not in events(worker):
                assert await once(worker)
        event = worker.host.events.recent[0]
        assert event.fields["endpoint"].endswith(str(flaky_port))
        assert event.fields["cause"] == ("status 500" if protocol == "http" else "grpc-status 13")
    nursery.cancel_scope.cancel()
