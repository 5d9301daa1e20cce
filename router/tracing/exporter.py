"""The queue between calls and a collector: one that is slow, refuses or hangs costs spans, which are counted, and no calls.

Theory of operation

1. Calls put their spans into a queue of at most ``MAX_WAITING``; what comes when it is full is dropped.
2. A task takes up to ``BATCH`` of them ``EVERY`` seconds, or when there are as many, has them encoded ``PIECE`` at a time, with
   everybody else's turn in between, and delivered within ``TIMEOUT`` seconds. A batch that cannot be delivered is dropped: what
   comes after it is worth more, and a queue that waits for a collector grows.
3. Drops are counted, and told at most once in ``TELL_EVERY`` seconds.
"""

from __future__ import annotations

from math import inf
from typing import Any

import trio

from router.model.host import Host
from router.model.metrics import Metrics
from router.model.trace import Span
from router.spi import Tracer

MAX_WAITING = 2048
BATCH = 256
PIECE = 16
EVERY = 1.0
TIMEOUT = 5.0
TELL_EVERY = 60.0


class Exporter:
    """See the theory of operation. ``add`` is called by strands, ``run`` is a trio task."""

    def __init__(self, tracer: Tracer, host: Host, metrics: Metrics) -> None:
        self.rate = tracer.rate
        self._tracer = tracer
        self._host = host
        self._waiting: list[Span] = []
        self._some, self._many = trio.Event(), trio.Event()
        self._busy = self._hurried = False
        self._told = -inf
        self._exported, self._dropped = metrics.counter("exported"), metrics.counter("dropped")

    def add(self, span: Span) -> None:
        """Export ``span`` soon."""
        waiting = self._waiting
        if len(waiting) >= MAX_WAITING:
            self._drop(1, "the collector is too slow")
            return
        waiting.append(span)
        if len(waiting) == 1:
            self._some.set()
        elif len(waiting) == BATCH:
            self._many.set()

    async def run(self) -> None:
        """Export until cancelled."""
        while True:
            await self._some.wait()
            if not self._hurried:
                with trio.move_on_after(EVERY):
                    await self._many.wait()
            batch = self._take()
            self._busy = True
            try:
                await self._export(batch)
            finally:
                self._busy = False

    def _take(self) -> list[Span]:
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        if not self._waiting:
            self._some = trio.Event()
        if len(self._waiting) < BATCH and not self._hurried:
            self._many = trio.Event()
        return batch

    async def _export(self, batch: list[Span]) -> None:
        try:
            pieces: list[Any] = []
            for at in range(0, len(batch), PIECE):
                pieces.append(self._tracer.encode(batch[at : at + PIECE]))
                await trio.lowlevel.checkpoint()
            with trio.fail_after(TIMEOUT):
                await self._tracer.deliver(pieces)
        except trio.TooSlowError:
            self._drop(len(batch), f"no answer within {TIMEOUT:g} seconds")
        except Exception as error:  # noqa: BLE001 - a collector's trouble is not the router's
            self._drop(len(batch), str(error) or repr(error))
        else:
            self._exported.value += len(batch)

    def _drop(self, spans: int, cause: str) -> None:
        self._dropped.value += spans
        now = self._host.timers.now()
        if now - self._told >= TELL_EVERY:
            self._told = now
            self._host.events.warn("trace_dropped", telemeter=self._tracer.name, cause=cause, spans=self._dropped.value)

    async def flush(self, seconds: float) -> None:
        """Export what there is, for at most ``seconds``, and no longer wait for batches to fill."""
        self._hurried = True
        self._many.set()
        with trio.move_on_after(seconds):
            while self._waiting or self._busy:  # noqa: ASYNC110 - once in a worker's life
                await trio.sleep(0.01)
