"""Answers that are given again for a second, and requests at a pace: on a clock that jumps, and through the application."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from starlette.responses import Response

from router.admin import kept as kept_module
from router.admin.app import application
from router.admin.kept import APART, Kept, Pace
from router.serve.gather import FRESH
from tests.router.admin.test_admin import admin


class Maker:
    """Makes numbered answers, each after a while."""

    def __init__(self, takes: float = 0.0, size: int = 1) -> None:
        self.made = 0
        self.failing: set[int] = set()
        self._takes = takes
        self._size = size

    async def __call__(self) -> Response:
        self.made += 1
        number = self.made
        await trio.sleep(self._takes)
        if number in self.failing:
            raise ValueError("cannot be made")
        return Response(b"%d" % number * self._size)


async def test_an_answer_is_given_again_for_a_second(autojump_clock: Any) -> None:
    kept, make = Kept(), Maker()
    for wait, body in ((0.0, b"1"), (FRESH / 2, b"1"), (FRESH, b"2")):
        await trio.sleep(wait)
        assert (await kept.answer("key", make)).body == body
    assert (await kept.answer("other", make)).body == b"3"
    kept.clear()
    assert (await kept.answer("key", make)).body == b"4"


async def test_who_asks_meanwhile_waits_for_the_same_answer(autojump_clock: Any, nursery: trio.Nursery) -> None:
    kept, make, bodies = Kept(), Maker(takes=5.0), []

    async def ask() -> None:
        bodies.append((await kept.answer("key", make)).body)

    async with trio.open_nursery() as asking:
        for _ in range(10):
            asking.start_soon(ask)
    assert (make.made, bodies) == (1, [b"1"] * 10)


@pytest.mark.parametrize("how", ["fails", "goes"])
async def test_where_the_first_one_fails_or_goes_the_next_one_makes_it(autojump_clock: Any, how: str) -> None:
    kept, make, bodies = Kept(), Maker(takes=1.0), []
    scope = trio.CancelScope()
    if how == "fails":
        make.failing.add(1)

    async def first() -> None:
        with scope, suppress(ValueError):
            await kept.answer("key", make)

    async def second() -> None:
        bodies.append((await kept.answer("key", make)).body)

    async with trio.open_nursery() as asking:
        asking.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        asking.start_soon(second)
        if how == "goes":
            scope.cancel()
    assert (bodies, make.made) == ([b"2"], 2)


async def test_what_is_kept_is_bounded(autojump_clock: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(kept_module, "MOST", 3)
    monkeypatch.setattr(kept_module, "MOST_BYTES", 25)
    kept, make = Kept(), Maker()
    for key in "abcd":
        await kept.answer(key, make)
    assert (await kept.answer("b", make)).body == b"2"
    assert (await kept.answer("a", make)).body == b"5"
    await kept.answer("large", Maker(size=24))
    assert (await kept.answer("large", make)).body == b"1" * 24
    assert (await kept.answer("c", make)).body == b"6"


async def test_requests_are_let_through_apart_from_each_other(autojump_clock: Any) -> None:
    pace, let_through = Pace(), []

    async def ask(number: int) -> None:
        await pace.turn()
        let_through.append((number, round((trio.current_time() - began) / APART)))

    began = trio.current_time()
    async with trio.open_nursery() as asking:
        for number in range(20):
            asking.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked(APART / 1000)
    assert let_through == [(number, number) for number in range(20)]


async def test_probes_do_not_wait_for_others() -> None:
    async with admin() as rig:
        rig.application = application(rig.supervisor)
        told: list[int] = []

        async def look() -> None:
            told.append((await rig.ask("/config.json")).status)

        async with trio.open_nursery() as asking:
            for _ in range(20):
                asking.start_soon(look)
            assert (await rig.ask("/admin/ping")).status == 200
            assert len(told) < 10
        assert told == [200] * 20


async def test_what_is_posted_is_seen_at_once_and_readiness_always(monkeypatch: Any) -> None:
    monkeypatch.setattr(kept_module, "FRESH", 3600.0)
    async with admin() as rig:
        rig.application = application(rig.supervisor)
        before = (await rig.ask("/logging.json")).json
        await rig.call()
        assert (await rig.ask("/requests.json")).json
        await rig.call()
        assert len((await rig.ask("/requests.json")).json) == 1
        assert len((await rig.ask("/requests.json", accept="application/json")).json) == 2
        changed = (await rig.ask("/logging.json", "POST", b"logger=waypost.namer&level=DEBUG")).json
        assert changed != before
        assert (await rig.ask("/logging.json")).json == changed
        await rig.ask("/logging.json", "POST", b"logger=waypost.namer&level=WARNING")
        assert (await rig.ask("/ready")).status == 200
        rig.supervisor.stopping.set()
        assert (await rig.ask("/ready")).status == 503
