"""What an operator wants to know once and not per request: endpoints that are ejected, limits that move, and the like.

Events are kept (the last ``KEPT``), counted by name, and logged. Nothing here may be called per request. The first word of an
event's name is its logger: ``endpoint_ejected`` is logged by ``waypost.endpoint``.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import attrs

KEPT = 1000


@attrs.frozen
class Event:
    """``name`` is stable (``endpoint_ejected``); ``at``: seconds of the epoch; ``fields``: plain values."""

    name: str
    at: float
    fields: Mapping[str, Any]

    def show(self) -> str:
        """One line, whatever the fields hold."""
        return show(self.name, self.fields)


class Events:
    """The events of one process."""

    __slots__ = ("counts", "recent")

    def __init__(self) -> None:
        self.recent: deque[Event] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()

    def emit(self, name: str, /, *, shown: str | None = None, **fields: Any) -> None:
        """Something changed state. ``shown``: what a terminal shows in place of the fields."""
        self._keep(logging.INFO, name, fields, shown=shown)

    def warn(self, name: str, /, *, shown: str | None = None, **fields: Any) -> None:
        """Something is not as it should be."""
        self._keep(logging.WARNING, name, fields, shown=shown)

    def fail(self, name: str, /, *, error: BaseException | None = None, shown: str | None = None, **fields: Any) -> None:
        """Something does not work; ``error`` is logged with its traceback."""
        if error is not None:
            fields["cause"] = f"{type(error).__name__}: {error}"
        self._keep(logging.ERROR, name, fields, error=error, shown=shown)

    def _keep(self, level: int, name: str, fields: Mapping[str, Any], **how: Any) -> None:
        self.recent.append(Event(name, time.time(), fields))
        self.counts[name] += 1
        log_event(level, name, fields, **how)


def log_event(
    level: int, name: str, fields: Mapping[str, Any], *, error: BaseException | None = None, shown: str | None = None
) -> None:
    """Log an event that nobody keeps."""
    log = logging.getLogger("waypost." + name.partition("_")[0])
    if log.isEnabledFor(level):
        extra = {"event": name, "fields": fields, "shown": shown}
        log.log(level, "%s", show(name, fields), exc_info=error, extra=extra)


def show(name: str, fields: Mapping[str, Any]) -> str:
    """One line: ``name key=value …``, values quoted as in JSON where they would not stand as one word."""
    return " ".join([name, *[f"{key}={_word(value)}" for key, value in fields.items()]])


def _word(value: Any) -> str:
    text = (
        value if isinstance(value, str) else json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)
    )
    if not text or not text.isprintable() or any(special in text for special in ' "='):
        return json.dumps(text)
    return text
