"""The timer wheel's lanes and sweeps, on a clock that is moved by hand."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.model.timers import TICK, Lane, Timer, take
from tests.support.fakes import FakeHost


@given(st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), max_size=30))
def test_a_lane_ends_each_wait_on_time_and_in_order(steps: list[tuple[float, bool]]) -> None:
    host, ended, due = FakeHost(), list[int](), dict[int, float]()
    lane: Lane[int] = Lane(host.timers, 1.0, ended.append)
    for at, (seconds, taken) in enumerate(steps):
        host.pass_time(seconds)
        lane.add(at)
        due[at] = host.time + 1.0
        if taken:
            lane.waiting.pop(at)
            del due[at]
        assert ended == [who for who in due if due[who] <= host.time - TICK or who in ended]
        assert host.timers.pending() == len(lane.waiting)
    host.pass_time(2.0)
    assert ended == list(due)
    host.pass_time(2.0)
    assert host.timers.pending() == 0
    assert not any(host.timers._buckets.values())


def test_who_waits_again_at_the_end_of_a_wait_waits_once() -> None:
    host, ended = FakeHost(), list[float]()

    def again(who: str) -> None:
        ended.append(host.time)
        if len(ended) < 3:
            lane.add(who)

    lane: Lane[str] = Lane(host.timers, 1.0, again)
    lane.add("a")
    for _ in range(50):
        host.pass_time(0.1)
    assert ended == [pytest.approx(at, abs=0.11) for at in (1.0, 2.1, 3.2)]
    assert not any(host.timers._buckets.values())


def test_a_lane_goes_on_behind_a_callback_that_raises() -> None:
    host, ended, crashes = FakeHost(), list[int](), list[Exception]()
    host.timers.crashed = crashes.append

    def expired(who: int) -> None:
        if who == 1:
            raise ValueError("a bug")
        ended.append(who)

    lane: Lane[int] = Lane(host.timers, 1.0, expired)
    for who in range(3):
        lane.add(who)
    host.pass_time(1.1)
    assert (ended, len(crashes)) == ([0, 2], 1)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.3)), max_size=30))
def test_who_would_end_before_another_is_not_taken_into_the_lane(steps: list[tuple[float, float]]) -> None:
    host, due = FakeHost(), dict[int, float]()
    ended: dict[int, float] = {}
    lane: Lane[int] = Lane(host.timers, 1.0, lambda who: ended.__setitem__(who, host.time))
    last = -1.0
    for at, (seconds, ago) in enumerate(steps):
        host.pass_time(seconds)
        began = host.time - ago
        assert lane.add(at, began) == (began >= last)
        if began >= last:
            last, due[at] = began, began + 1.0
    for _ in range(150):
        host.pass_time(0.01)
    assert list(ended) == list(due)
    assert all(0 <= ended[who] - due[who] <= 0.5 + TICK for who in due)
    assert not any(host.timers._buckets.values())


def test_a_bucket_that_is_empty_again_keeps_no_memory() -> None:
    host = FakeHost()
    timers = [Timer(10.0, print, None) for _ in range(1000)]
    for timer in timers:
        bucket = host.timers.put(10.0, timer)
    assert sys.getsizeof(bucket) > 10_000
    for timer in timers:
        take(bucket, timer)
    assert sys.getsizeof(bucket) < 100
