"""What an operator wants to know once and not per request: endpoints that are ejected, limits that move, and the like.

Events are kept (the last ``KEPT``), counted by name, and logged. Nothing here may be called per request.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import attrs

log = logging.getLogger("waypost.events")

KEPT = 1000


@attrs.frozen
class Event:
    """``name`` is stable (``endpoint_ejected``); ``at``: seconds of the epoch; ``fields``: plain values."""

    name: str
    at: float
    fields: Mapping[str, Any]

    def show(self) -> str:
        """One line."""
        return " ".join([self.name, *[f"{name}={value}" for name, value in self.fields.items()]])


class Events:
    """The events of one worker."""

    __slots__ = ("counts", "recent")

    def __init__(self) -> None:
        self.recent: deque[Event] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()

    def emit(self, name: str, **fields: Any) -> None:
        """Something changed state."""
        event = Event(name, time.time(), fields)
        self.recent.append(event)
        self.counts[name] += 1
        log.info("%s", event.show())
