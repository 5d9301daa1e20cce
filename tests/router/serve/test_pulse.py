"""Who hangs and who is only starved: on a hand-made machine."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from router.serve import slot as slot_module
from router.serve.pulse import Pulse, Usage, usage


@pytest.mark.parametrize(
    ("state", "ran", "slept", "chance"),
    [
        ("R", 1.0, 1.0, 10.0),  # in a loop, all the processor
        ("R", 0.01, 1.0, 0.1),  # starved
        ("S", 0.0, 1.0, 10.0),  # waits for something that does not come
        ("T", 0.0, 1.0, 10.0),  # stopped
        ("S", 0.0, 60.0, 20.0),  # we did not run ourselves
    ],
)
async def test_chance(autojump_clock: Any, state: str, ran: float, slept: float, chance: float) -> None:
    cpu = 5.0
    pulse = Pulse(1, lambda pid: Usage(state, cpu))
    for _ in range(10):
        await trio.sleep(slept)
        cpu += ran
        pulse.look(1.0)
    assert pulse.chance == pytest.approx(chance)
    assert (pulse.passed, pulse.ran) == pytest.approx((10 * slept, 10 * ran))


async def test_without_proc_time_is_chance(autojump_clock: Any) -> None:
    pulse = Pulse(1, lambda pid: None)
    await trio.sleep(1)
    pulse.look(1.0)
    assert pulse.chance == 1.0
    assert usage(2**22 + 1) is None


class HereChannel:
    """Answers never."""

    closed = False

    async def ask(self, what: str) -> None:
        await trio.sleep_forever()


async def test_a_starved_one_is_told_of_once_and_lives(autojump_clock: Any, monkeypatch: Any) -> None:
    slot = slot_module.Slot(0, None, slot_module.Events(), None)  # type: ignore[arg-type]
    ran, answers = 0.0, trio.Event()

    def look_at(pid: int) -> Usage:
        nonlocal ran
        ran += 0.1
        return Usage("R", ran)

    channel: Any = HereChannel()
    channel.ask = lambda what: answers.wait()
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            await trio.sleep(50)
            answers.set()

        nursery.start_soon(answer)
        assert await slot._lives(channel, Pulse(1, look_at))
    assert [event.name for event in slot._events.recent] == ["worker_starved"]
    channel.ask = HereChannel().ask
    began = trio.current_time()
    assert not await slot._lives(channel, Pulse(1, look_at))
    assert trio.current_time() - began == pytest.approx(100, abs=1.5)  # a tenth of the processor
