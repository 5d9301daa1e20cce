"""What the load clients share: calls at a steady rate whatever becomes of them, and one line of JSON for each that is over.

A line has `began` (seconds of the monotonic clock), `took` (seconds), `outcome` (a status) and `served_by`. Calls have
at most `--limit` seconds. SIGTERM ends the load; calls under way are finished first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable

Call = Callable[[], Awaitable[tuple[str, str]]]


def arguments() -> argparse.Namespace:
    """`--port` of the router, `--rate` (calls per second) and `--limit`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--limit", type=float, required=True)
    return parser.parse_args()


async def _once(call: Call, limit: float) -> None:
    began = time.monotonic()
    try:
        outcome, served_by = await asyncio.wait_for(call(), limit)
    except TimeoutError:
        outcome, served_by = "no answer", ""
    except (OSError, EOFError) as error:
        outcome, served_by = type(error).__name__, ""
    took = time.monotonic() - began
    print(json.dumps({"began": began, "took": took, "outcome": outcome, "served_by": served_by}), flush=True)


async def run(call: Call, rate: float, limit: float) -> None:
    """Call `rate` times a second until SIGTERM."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    running: set[asyncio.Task[None]] = set()
    due = time.monotonic()
    while not over.is_set():
        task = asyncio.create_task(_once(call, limit))
        running.add(task)
        task.add_done_callback(running.discard)
        due = max(due + 1 / rate, time.monotonic() - 0.5)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    if running:
        await asyncio.wait(running)
