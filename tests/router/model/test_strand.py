"""Strands, waiters, timers."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from router.model.host import Host
from router.model.strand import Strand, Waiter, in_trio


class Crash(Host):
    """A host that keeps what crashed."""

    __slots__ = ("seen",)

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.seen: list[Exception] = []
        self.on_crash = self.seen.append


async def test_a_woken_waiter_resumes_on_the_callers_stack(nursery: trio.Nursery) -> None:
    host, waiter, log = Crash(nursery), Waiter[str](), []

    async def body() -> None:
        log.append("parked")
        log.append(await waiter)

    strand = host.start(body())
    assert log == ["parked"]
    waiter.wake("news")
    assert log == ["parked", "news"]
    assert strand.done


async def test_news_before_the_wait_is_kept_and_the_first_counts(nursery: trio.Nursery) -> None:
    host, waiter, log = Crash(nursery), Waiter[int](), []
    waiter.wake(1)
    waiter.wake(2)
    waiter.throw(RuntimeError("late"))

    async def body() -> None:
        log.append(await waiter)

    host.start(body())
    assert log == [1]


async def test_cancel_is_thrown_at_the_park_and_cleanup_runs(nursery: trio.Nursery) -> None:
    host, log = Crash(nursery), []

    async def body() -> None:
        try:
            await Waiter[None]()
        except KeyError:
            log.append("cancelled")
            await second
            log.append("left")
        finally:
            log.append("clean")

    second = Waiter[None]()
    strand = host.start(body())
    strand.cancel(KeyError())
    assert log == ["cancelled"]
    second.wake(None)
    assert log == ["cancelled", "left", "clean"]
    strand.cancel(KeyError())  # done: ignored


async def test_cancel_from_within_is_delivered_at_the_next_park(nursery: trio.Nursery) -> None:
    host, log = Crash(nursery), []
    holder: list[Strand] = []

    async def body() -> None:
        holder[0].cancel(KeyError("first"))
        holder[0].cancel(ValueError("second"))
        log.append("still running")
        try:
            await Waiter[None]()
        except KeyError:
            log.append("first")

    holder.append(Strand(host, body()))
    holder[0].start()
    assert log == ["still running", "first"]


async def test_a_waiter_left_by_cancel_does_not_resume(nursery: trio.Nursery) -> None:
    host, waiter, log = Crash(nursery), Waiter[int](), []

    async def body() -> None:
        try:
            await waiter
        except KeyError:
            log.append(await Waiter[int]())

    strand = host.start(body())
    strand.cancel(KeyError())
    waiter.wake(1)
    assert log == []
    strand.cancel(StopAsyncIteration())
    assert len(host.seen) == 1


async def test_in_trio_runs_a_task_and_returns_or_raises(nursery: trio.Nursery, autojump_clock: Any) -> None:
    host, log = Crash(nursery), []

    async def slow(value: int) -> int:
        await trio.sleep(100)
        if value < 0:
            raise ValueError(value)
        return value + 1

    async def body() -> None:
        log.append(await in_trio(slow, 1))
        with pytest.raises(ValueError, match="-1"):
            await in_trio(slow, -1)
        log.append("raised")

    host.start(body())
    assert log == []
    await trio.sleep(201)
    assert log == [2, "raised"]


async def test_cancelling_a_strand_cancels_its_task(nursery: trio.Nursery, autojump_clock: Any) -> None:
    host, log = Crash(nursery), []

    async def forever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("task cancelled")

    async def body() -> None:
        await in_trio(forever)

    strand = host.start(body())
    await trio.sleep(1)
    strand.cancel(KeyError())
    await trio.sleep(1)
    assert log == ["task cancelled"]
    assert isinstance(host.seen[0], KeyError)


async def test_a_trio_trap_names_in_trio(nursery: trio.Nursery) -> None:
    host = Crash(nursery)

    async def body() -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()

    host.start(body())
    assert "in_trio" in str(host.seen[0])


async def test_timers_fire_in_order_never_early_and_not_when_cancelled(nursery: trio.Nursery, autojump_clock: Any) -> None:
    host, log = Crash(nursery), []
    nursery.start_soon(host.timers.run)
    start = trio.current_time()
    for delay in (5.0, 0.5, 2.0):
        host.timers.after(delay, lambda wanted: log.append((wanted, trio.current_time() - start)), delay)
    cancelled = host.timers.after(1.0, lambda _: log.append("never"))
    cancelled.cancel()
    cancelled.cancel()
    await trio.sleep(1.5)
    host.timers.after(0.1, lambda wanted: log.append((wanted, 0.1)), 0.1)
    await trio.sleep(10)
    assert [wanted for wanted, _ in log] == [0.5, 0.1, 2.0, 5.0]
    assert all(at >= wanted for wanted, at in log)
    assert host.timers.pending() == 0


async def test_a_callback_that_raises_is_reported_and_harms_no_other(nursery: trio.Nursery, autojump_clock: Any) -> None:
    host, log = Crash(nursery), []
    nursery.start_soon(host.timers.run)

    def bad(_: Any) -> None:
        raise RuntimeError("bug")

    host.timers.after(1.0, bad)
    host.timers.after(1.0, log.append, "good")
    await trio.sleep(2)
    assert log == ["good"]
    assert len(host.seen) == 1
