"""A worker's host with its timers running, and waiting for what an activity comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from dtab import Activity
from router.model.host import Host
from router.model.metrics import Metrics
from router.spi import NamerContext


@pytest.fixture
async def host(nursery: trio.Nursery) -> AsyncIterator[Host]:
    """A host whose bugs fail the test."""
    made = Host(nursery)
    crashes: list[Exception] = []
    made.timers.crashed = made.on_crash = crashes.append
    nursery.start_soon(made.timers.run)
    yield made
    assert not crashes


@pytest.fixture
def context(host: Host) -> NamerContext:
    return NamerContext(host, Metrics())


class Seen:
    """The states of an activity while it is observed."""

    def __init__(self, activity: Activity[Any]) -> None:
        self.states: list[Any] = []
        self._waiting: tuple[Callable[[Any], bool], trio.Event] | None = None
        self._observation = activity.observe(self._heard)

    @property
    def last(self) -> Any:
        return self.states[-1]

    def _heard(self, state: Any) -> None:
        self.states.append(state)
        if self._waiting is not None and self._waiting[0](state):
            self._waiting[1].set()

    async def until(self, state: Any) -> None:
        """Wait until the state is ``state``; fails after two seconds."""
        if self.last == state:
            return
        self._waiting = (state.__eq__, trio.Event())
        with trio.move_on_after(2) as scope:
            await self._waiting[1].wait()
        assert not scope.cancelled_caught, f"wanted {state}, have {self.states}"

    def close(self) -> None:
        self._observation.close()


@pytest.fixture
def watch() -> type[Seen]:
    return Seen
