"""Clients that leave: what they asked for must end at the endpoint too, and cost nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from tests.e2e.conftest import port_of

TEXT = """
routers:
- protocol: http
  label: test
  dtab: /svc => /$/inet/127.0.0.1/{port}
  servers:
  - port: 0
"""
REQUEST = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n"
MIB = 1 << 20


class Endpoint:
    """Sends ``flood`` bytes for a request, and notes how many went and when the other side was gone."""

    def __init__(self, flood: int = 0) -> None:
        self.flood = flood
        self.sent = 0
        self.asked = trio.Event()
        self.gone = trio.Event()

    async def __call__(self, stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        self.asked.set()
        try:
            if self.flood:
                await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % self.flood)
            while self.sent < self.flood:
                await stream.send_all(bytes(65536))
                self.sent += 65536
            await stream.receive_some(1)
        except trio.BrokenResourceError:
            pass
        self.gone.set()


async def test_an_http1_client_that_closes_is_gone(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    endpoint = Endpoint()
    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, endpoint, [listener])
    async with start(TEXT.format(port=port)) as worker:
        async with await trio.open_tcp_stream("127.0.0.1", port_of(worker)) as client:
            await client.send_all(REQUEST)
            await endpoint.asked.wait()
        with trio.fail_after(5):
            await endpoint.gone.wait()
    nursery.cancel_scope.cancel()


async def test_what_nobody_reads_any_more_is_not_fetched(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    endpoint = Endpoint(flood=256 * MIB)
    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, endpoint, [listener])
    async with start(TEXT.format(port=port)) as worker:
        async with await trio.open_tcp_stream("127.0.0.1", port_of(worker)) as client:
            await client.send_all(REQUEST)
            assert (await client.receive_some(1000)).startswith(b"HTTP/1.1 200")
        with trio.fail_after(5):
            await endpoint.gone.wait()
        assert endpoint.sent < 32 * MIB  # what the kernel's buffers held
    nursery.cancel_scope.cancel()
