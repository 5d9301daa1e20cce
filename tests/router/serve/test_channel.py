"""Questions and answers between two ends of a stream."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import trio
import trio.testing

from router.serve.channel import MAX_MESSAGE, Channel, ChannelClosedError, RefusedError


async def double(number: int) -> int:
    return 2 * number


async def fail() -> None:
    raise OSError("no such port")


async def wait() -> None:
    await trio.sleep_forever()


@pytest.fixture
async def ends(nursery: trio.Nursery) -> tuple[Channel, Channel]:
    one, two = trio.testing.memory_stream_pair()
    channels = Channel(one, {"double": double}), Channel(two, {"double": double, "fail": fail, "wait": wait})
    for channel in channels:
        nursery.start_soon(channel.run)
    return channels


async def test_both_ends_ask(ends: tuple[Channel, Channel]) -> None:
    one, two = ends
    assert await one.ask("double", number=4) == 8
    assert await two.ask("double", number=5) == 10


async def test_answers_find_who_asked(ends: tuple[Channel, Channel]) -> None:
    found: dict[int, Any] = {}

    async def ask(number: int) -> None:
        found[number] = await ends[0].ask("double", number=number)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(ask, number)
    assert found == {number: 2 * number for number in range(50)}


async def test_what_fails_there_is_told_here(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(RefusedError, match="no such port"):
        await ends[0].ask("fail")
    with pytest.raises(RefusedError, match="nonsense"):
        await ends[0].ask("nonsense")
    assert await ends[0].ask("double", number=1) == 2


async def test_who_hangs_up_leaves_nobody_waiting(ends: tuple[Channel, Channel], autojump_clock: Any) -> None:
    async def hang_up() -> None:
        await trio.sleep(1)
        await ends[1].aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        with pytest.raises(ChannelClosedError):
            await ends[0].ask("wait")
    with pytest.raises(ChannelClosedError):
        await ends[0].ask("double", number=1)
    with pytest.raises(ChannelClosedError):
        await ends[1].ask("double", number=1)


async def test_who_gives_up_is_not_answered_later(ends: tuple[Channel, Channel], autojump_clock: Any) -> None:
    with trio.move_on_after(1):
        await ends[0].ask("wait")
    assert await ends[0].ask("double", number=2) == 4


async def test_a_message_that_is_too_long_ends_the_channel() -> None:
    one, two = trio.testing.memory_stream_pair()
    await one.send_all(struct.pack(">I", MAX_MESSAGE + 1))
    channel = Channel(two, {})
    await channel.run()
    assert channel.closed
