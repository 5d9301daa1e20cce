"""An attacker in a process of its own, and a client whose calls go on meanwhile."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support import h2peer
from tests.support.attacker import frame

SIEGE = Path(__file__).parent.parent / "support" / "siege.py"
CALLERS, CALLS = 16, 8
# How siege.py attacks, a round each; and what is counted for it.
WAYS = {
    "rapid_reset": "rapid_reset",
    "made_reset": "made_reset",
    "pings": "ping",
    "settings": "settings",
    "continuations": "continuation",
}


@asynccontextmanager
async def besieged(port: int, way: str) -> AsyncIterator[None]:
    """An attack is under way; at the end it has been cut off at least once."""
    process = await trio.lowlevel.open_process([sys.executable, str(SIEGE), str(port), way], stdout=subprocess.PIPE)
    assert process.stdout is not None
    heard = b""
    try:
        with trio.fail_after(30):
            while b"begun" not in heard:
                heard += await process.stdout.receive_some()
            yield
            while b"cut off" not in heard:
                data = await process.stdout.receive_some()
                assert data, "the attack was not cut off"
                heard += data
    finally:
        process.kill()
        await process.wait()
        await process.stdout.aclose()


async def swallow(stream: trio.SocketStream) -> None:
    """The attacked backend: takes requests, never answers, costs next to nothing."""
    await stream.send_all(frame(4, 0, 0))
    try:
        while await stream.receive_some(65536):
            pass
    except trio.BrokenResourceError:
        pass


async def p99(client: h2peer.Peer) -> float:
    """Of the CPU seconds that this process, with router, client and backend in it, spends between a call and its answer: what
    others make the router do meanwhile counts, and what else runs on the machine does not."""
    times: list[float] = []

    async def caller() -> None:
        for _ in range(CALLS):
            began = time.process_time()
            message = await client.request("/")
            times.append(time.process_time() - began)
            assert message.body == b"hello"

    gc.collect()
    gc.disable()  # what there is to collect is this test's own: everything that client and backend remember
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(caller)
    finally:
        gc.enable()
    return sorted(times)[len(times) * 99 // 100]


@pytest.mark.slow
async def test_other_clients_hardly_notice(start: Any, listen: Any) -> None:
    listener, port = await listen()
    silent, silent_port = await listen()
    text = f"""
routers:
- protocol: h2
  label: test
  dtab: /svc/web => /$/inet/127.0.0.1/{port}; /svc/sink => /$/inet/127.0.0.1/{silent_port}
  servers: [{{port: 0, maxConcurrentStreamsPerConnection: 100, abuse: {{maxPrematureResets: 100}}}}]
"""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, swallow, [silent])
        nursery.start_soon(h2peer.serve, listener, lambda message: ([(b":status", b"200")], b"hello", []))
        async with start(text) as worker:
            front = worker.addresses[0][2]
            stream = await trio.open_tcp_stream("127.0.0.1", front)
            client = h2peer.Peer(stream, client=True)
            nursery.start_soon(client.run)
            calm, attacked = [], []
            await p99(client)
            for way in WAYS:
                calm.append(await p99(client))
                async with besieged(front, way):
                    attacked.append(await p99(client))
            values = worker.metrics.flat()
            kinds = {name.rpartition("/")[2] for name, value in values.items() if "/abuse/" in name and value}
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert kinds == set(WAYS.values())
    print("p99 in CPU milliseconds:", [round(1000 * one, 1) for one in (*calm, *attacked)])
    # Each attack is compared with the round just before it: what else the machine does is much the same in both.
    ratios = [under / before for before, under in zip(calm, attacked, strict=True)]
    assert statistics.median(ratios) <= 2, (calm, attacked)
