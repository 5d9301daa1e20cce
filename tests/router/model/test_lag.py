"""The gauge of the loop's lag."""

from __future__ import annotations

import pytest

from router.model.lag import EVERY, GRAIN, STALL, LoopLag
from router.model.metrics import Metrics
from tests.support.fakes import FakeHost


def test_a_punctual_loop_has_none() -> None:
    host, metrics = FakeHost(), Metrics()
    host.lag.start(metrics)
    for _ in range(1000):
        host.pass_time(0.001)
    assert host.lag.mean == host.lag.latest == metrics.flat()["loop_lag_ms"] == 0


def test_a_loop_that_is_always_late_shows_how_much() -> None:
    host, metrics = FakeHost(), Metrics()
    host.lag.start(metrics)
    for _ in range(400):
        host.pass_time(0.04)
        assert host.timers.pending() == 1
    # what comes at any moment of a turn of 40 ms has half of it to wait
    assert metrics.flat()["loop_lag_ms"] == pytest.approx(20, abs=8)


def test_a_stall_is_known_while_nobody_has_measured_it_yet() -> None:
    host = FakeHost()
    lag = LoopLag(host.timers)
    assert lag.overdue(5.0) == 0  # nobody measures
    lag.start(Metrics())
    host.time += EVERY + GRAIN + 0.3
    assert lag.overdue(host.time) == pytest.approx(0.3)
    host.timers.expire()
    assert lag.latest == pytest.approx(0.3)
    assert lag.overdue(host.time) < 0
    lag.stop()
    assert host.timers.pending() == 0


def test_a_stall_is_told() -> None:
    host = FakeHost()
    told: list[float] = []
    lag = LoopLag(host.timers, told.append)
    lag.start(Metrics())
    for late in (STALL - 0.01, STALL + 0.01):
        host.pass_time(EVERY + GRAIN + late)
    assert told == pytest.approx([STALL + 0.01])
