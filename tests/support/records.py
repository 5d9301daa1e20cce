"""What records need besides an exchange: ways, and room until their lines are made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from router.access_log.record import Form
from router.model.exchange import Exchange, Routed


class Routes:
    """Ways that are the same for the same client's exchanges with a path, as those of a router are for a name's."""

    def __init__(self) -> None:
        self.interpreter: Any = SimpleNamespace(dtab=object())
        self.kept: dict[Any, Routed] = {}
        self.asked = 0

    def of(self, path: Any, local: Any, bound: Any) -> Routed:
        self.asked += 1
        way = Routed(path, local, "abc", bound, [{"dentry": "/svc=>/x", "line": 3}])
        return self.kept.setdefault((path, id(bound), id(local)), way)


class Room:
    """Keeps what was taken."""

    def __init__(self, host: Any) -> None:
        self.over: list[Any] = []
        self.now = host.timers.now
        self.full = 1000

    def look(self) -> None:
        pass


def taken(form: Form, made: Exchange) -> Any:
    """What waits for the line of an exchange that is over now."""
    room = Room(made.host)
    form.keeper(room)(made)
    return room.over[0]


def written(waiting: Any, made: Exchange) -> str:
    line, what, now = waiting
    said: str = line(what, now, made.host.wall_ns())
    return said
