"""Connections that expire: when, and when not."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from router.model.expiry import NO_LIMITS, Expiries, Expiry, SessionLimits
from router.model.metrics import Metrics
from tests.support.fakes import FakeHost


@attrs.define
class Connection:
    active: int = 0
    begun: int = 0
    draining: bool = False
    closed: bool = False
    ended: list[str] = attrs.field(factory=list)

    def end(self, why: str) -> None:
        self.ended.append(why)
        self.draining = True


def expiry(host: FakeHost, limits: SessionLimits, connection: Connection, random: float = 0.5) -> Expiry:
    return Expiry(host.timers, limits, connection, connection.end, lambda: random)


def step(host: FakeHost, seconds: float, by: float = 0.01) -> None:
    until = host.time + seconds
    while host.time < until:
        host.pass_time(by)


def test_an_idle_connection_ends_after_its_idle_time() -> None:
    host, connection = FakeHost(), Connection()
    expiry(host, SessionLimits(idle=1.0), connection)
    step(host, 0.95)
    assert connection.ended == []
    step(host, 0.1)
    assert connection.ended == ["idle"]
    assert host.timers.pending() == 0


@pytest.mark.parametrize("ends", [0.3, 0.76, 1.01, 2.49])
def test_idleness_begins_with_the_end_of_the_last_exchange(ends: float) -> None:
    host, connection = FakeHost(), Connection()
    expiry(host, SessionLimits(idle=1.0), connection)
    step(host, 0.1)
    connection.active, connection.begun = 1, 1
    step(host, ends)
    connection.active = 0
    ended = host.time
    while not connection.ended:
        host.pass_time(0.01)
    assert 1.0 <= host.time - ended <= 1.0 + 0.25 + 0.02


def test_a_connection_in_use_never_ends_for_idleness() -> None:
    host, connection = FakeHost(), Connection()
    expiry(host, SessionLimits(idle=1.0), connection)
    for _ in range(50):  # an exchange too short for any look to see
        connection.begun += 1
        step(host, 0.9)
    assert connection.ended == []
    connection.active = 1
    step(host, 10)
    assert connection.ended == []


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 9.0), (0.5, 10.0), (0.999, 11.0)])
def test_lifetimes_vary_by_a_tenth(random: float, seconds: float) -> None:
    host, connection = FakeHost(), Connection(active=1)
    expiry(host, SessionLimits(idle=1.0, life=10.0), connection, random)
    step(host, seconds - 0.1)
    assert connection.ended == []
    step(host, 0.2)
    assert connection.ended == ["lifetime"]
    assert host.timers.pending() == 0


def test_one_that_stays_is_looked_at_again() -> None:
    host, connection = FakeHost(), Connection()
    seen: list[str] = []
    Expiry(host.timers, SessionLimits(idle=1.0), connection, seen.append)
    step(host, 3.1)
    assert 2 <= len(seen) <= 10


def test_closing_lets_go_of_the_timers() -> None:
    host, connection = FakeHost(), Connection()
    made = expiry(host, SessionLimits(idle=1.0, life=2.0), connection)
    assert host.timers.pending() == 2
    made.close()
    assert host.timers.pending() == 0


def test_without_limits_there_is_nothing_and_with_them_it_is_counted() -> None:
    host, metrics, connection = FakeHost(), Metrics(), Connection()
    none: Any = Expiries(host.timers, NO_LIMITS, metrics).watch(connection, connection.end)
    assert none is None
    Expiries(host.timers, SessionLimits(idle=1.0), metrics).watch(connection, connection.end)
    step(host, 1.1)
    assert metrics.flat() == {"expired/idle": 1, "expired/lifetime": 0}
