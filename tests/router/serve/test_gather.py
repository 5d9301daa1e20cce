"""Counters of all workers together never fall, however late workers are, and however they end."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
import trio

from router.logs.setup import LogSettings
from router.model.metrics import Metrics
from router.serve.gather import TIMEOUT, Gatherer
from router.serve.supervisor import Supervisor
from router.telemeters.snapshot import Snapshot


class Process:
    """A worker, and the channel to it: it answers `late` seconds after it looked."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.requests = self.metrics.counter("requests")
        self.late = 0.0
        self.ended = trio.Event()

    async def ask(self, what: str) -> Any:
        texts = [json.dumps(Snapshot().take(self.metrics.slots()).to_json())]
        with trio.move_on_after(self.late):
            await self.ended.wait()
        await trio.lowlevel.checkpoint()
        return texts


class Place:
    """A slot."""

    number = 0

    def __init__(self) -> None:
        self.channel: Any = Process()

    def die(self, gatherer: Gatherer) -> None:
        """And be replaced."""
        self.channel.ended.set()
        self.channel = None
        gatherer.ended(self)  # type: ignore[arg-type]
        self.channel = Process()


def gathering(places: list[Any]) -> Gatherer:
    class Ours(Supervisor):
        slots = places  # type: ignore[assignment]

    return Ours(lambda: None, LogSettings("json", "INFO"), {}).gatherer  # type: ignore[arg-type, return-value]


async def total(gatherer: Gatherer) -> float:
    await trio.sleep(1.5)
    found, _ = await gatherer.snapshot()
    return sum(value for name, value in found.counters.items() if name == "requests")


async def test_a_late_worker_counts_as_it_last_did(autojump_clock: Any) -> None:
    places = [Place(), Place()]
    gatherer = gathering(places)
    for place in places:
        place.channel.requests.value = 10
    assert await total(gatherer) == 20
    places[0].channel.late = 60.0
    places[1].channel.requests.value = 11
    began = trio.current_time()
    assert await total(gatherer) == 21
    assert trio.current_time() - began == pytest.approx(1.5 + TIMEOUT)


async def test_the_answer_of_one_that_is_gone_is_not_counted_twice(autojump_clock: Any) -> None:
    places = [Place(), Place()]
    gatherer = gathering(places)
    places[0].channel.requests.value = 10
    assert await total(gatherer) == 10
    places[0].channel.late = places[1].channel.late = 1.5
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gatherer.snapshot)
        await trio.sleep(0.1)
        places[0].die(gatherer)  # its answer is there while another one's is waited for
    assert await total(gatherer) == 10


async def test_an_older_answer_does_not_replace_a_newer_one(autojump_clock: Any) -> None:
    place: Any = Place()
    gatherer = gathering([place])
    async with trio.open_nursery() as nursery:
        place.channel.late = 1.0
        nursery.start_soon(gatherer.ask)
        await trio.sleep(0.5)
        place.channel.late, place.channel.requests.value = 0.0, 5
        await gatherer.hear(place)
    found, _ = await gatherer.snapshot()
    assert found.counters["requests"] == 5


@pytest.mark.parametrize("seed", range(10))
async def test_counters_never_fall(autojump_clock: Any, seed: int) -> None:
    random, places = Random(seed), [Place() for _ in range(3)]
    gatherer, before = gathering(places), 0.0

    async def live() -> None:
        while True:
            place = random.choice(places)
            place.channel.requests.value += random.randrange(9)
            place.channel.late = random.choice((0.0, 0.0, 1.0, 3.0))
            if random.random() < 0.1:
                await gatherer.hear(place)  # type: ignore[arg-type]
            if random.random() < 0.1:
                place.die(gatherer)
            await trio.sleep(random.random())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        for _ in range(60):
            now = await total(gatherer)
            assert now >= before
            before = now
        nursery.cancel_scope.cancel()
    assert before > 0
