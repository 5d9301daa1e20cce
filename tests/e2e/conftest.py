"""A router from YAML with real sockets, and a check that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

from router.app import Worker, running
from router.config.load import load_text
from router.config.plugins import Registry

REGISTRY = Registry()
Start = Callable[[str], AbstractAsyncContextManager[Worker]]


@asynccontextmanager
async def _start(text: str) -> AsyncIterator[Worker]:
    loaded = load_text(text, "test.yaml", REGISTRY)
    assert loaded.config is not None, loaded.render()
    async with running(loaded.config, REGISTRY) as worker:
        crashes: list[Exception] = []
        worker.host.on_crash = crashes.append
        yield worker
        assert crashes == []
        loads = [
            target.load
            for core in worker.routers.values()
            for client in core.clients.values()
            for target in client.balancer.targets
        ]
        assert set(loads) <= {0}
        assert worker.metrics.flat().keys() >= {"rt/test/bindings"}
        assert all(
            value == 0
            for name, value in worker.metrics.flat().items()
            if name.endswith(("/pending", "/load", "/request_concurrency", "/request_queue_size"))
        )


@pytest.fixture
def start() -> Start:
    return _start


@pytest.fixture
async def listen() -> AsyncIterator[Callable[[], Any]]:
    """Make listeners on free ports of 127.0.0.1; closed at the end of the test."""
    made: list[trio.SocketListener] = []

    async def make() -> tuple[trio.SocketListener, int]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made.append(listener)
        return listener, listener.socket.getsockname()[1]

    yield make
    for listener in made:
        await listener.aclose()


def port_of(worker: Worker, at: int = 0) -> int:
    return worker.addresses[at][2]
