"""The metrics of all workers together, gathered in the supervisor.

Theory of operation

1. Workers are asked every ``EVERY`` seconds, and when somebody looks and the last answers are older than ``FRESH`` seconds:
   however often somebody looks, a worker answers once a second at most. One that does not answer within ``TIMEOUT`` seconds
   counts as it last did: no counter falls because its worker is late.
2. An answer counts only while the process that was asked has its place, and only if no later question was answered before.
3. What a worker counted stays counted when it is gone: its last answer goes to the *ledger*, which is part of every sum. A
   name that no worker has any more leaves the ledger after ``KEEP`` seconds.
4. Once a minute the histograms are remembered. Those of ``recent`` are of the last whole minute, as Linkerd's are; in the first
   minute, of all there is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio

from router.logs.setup import sweep
from router.serve.channel import ChannelClosedError, RefusedError
from router.telemeters.snapshot import Histogram, Snapshot

if TYPE_CHECKING:
    from router.serve.slot import Slot
    from router.serve.supervisor import Supervisor

EVERY = 10.0
FRESH = 1.0
KEEP = 600.0
WINDOW = 60.0
TIMEOUT = 2.0


class Gatherer:
    """See the theory of operation."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._asking = trio.Lock()
        self._asked = -1e9
        self._answers: dict[Slot, Snapshot] = {}
        self._answered: dict[Slot, int] = {}
        self._questions = 0
        self._ledger = Snapshot()
        self._ended = -1e9
        self._minute: dict[str, Histogram] = {}
        self._before: dict[str, Histogram] = {}
        self._turned = -1e9

    async def run(self) -> None:
        """Ask from time to time, and turn the minutes."""
        while True:
            await self.ask()
            now = trio.current_time()
            if now - self._turned >= WINDOW:
                self._turned = now
                self._before, self._minute = self._minute, dict(self._sum().stats)
            sweep()
            await trio.sleep(EVERY)

    async def ask(self) -> None:
        """Have answers that are not older than ``FRESH`` seconds; a worker that does not answer keeps its last."""
        async with self._asking:
            if trio.current_time() - self._asked < FRESH:
                return
            async with trio.open_nursery() as nursery:
                for slot in self._supervisor.slots:
                    nursery.start_soon(self._hear_soon, slot)
            self._asked = trio.current_time()

    async def _hear_soon(self, slot: Slot) -> None:
        with trio.move_on_after(TIMEOUT):
            await self.hear(slot)

    async def hear(self, slot: Slot) -> None:
        """Have an answer of this worker; also when it is about to end."""
        channel = slot.channel
        if channel is None:
            return
        self._questions += 1
        question = self._questions
        try:
            texts = await channel.ask("metrics")
        except ChannelClosedError:
            return
        except RefusedError as error:
            self._supervisor.events.fail("worker_refused", worker=slot.number, asked_for="metrics", cause=str(error))
            return
        if slot.channel is channel and question > self._answered.get(slot, 0):
            self._answered[slot] = question
            self._answers[slot] = _read(texts)

    def ended(self, slot: Slot) -> None:
        """The process of this place is gone; what it had counted stays."""
        self._answered.pop(slot, None)
        last = self._answers.pop(slot, None)
        if last is not None:
            self._ledger.add(last.only(last.names))
            self._ended = trio.current_time()

    def _sum(self) -> Snapshot:
        total = Snapshot()
        for answer in self._answers.values():
            total.add(answer)
        if trio.current_time() - self._ended > KEEP:
            self._ledger = self._ledger.only(total.names)
        total.add(self._ledger)
        return total.take(self._supervisor.metrics.slots())

    async def snapshot(self) -> tuple[Snapshot, Snapshot]:
        """Everything now, and the histograms of the last minute."""
        await self.ask()
        total = self._sum()
        if not self._before:
            return total, total
        before = self._before
        recent = {name: stat.since(before[name]) if name in before else stat for name, stat in self._minute.items()}
        return total, Snapshot(stats=recent)


def _read(texts: list[str]) -> Snapshot:
    answer = Snapshot()
    for text in texts:
        answer.add(Snapshot.from_json(json.loads(text)))
    return answer
