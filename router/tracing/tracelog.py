"""``io.l5d.tracelog``: a line of the log for each span, ``span`` with its ids, time and tags, by the logger ``waypost.trace``.

Lines of spans are not limited as those of events are: who configures them wants them all. What the log cannot take is dropped
there, and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from router.model.events import show
from router.model.trace import Span
from router.spi import Plugin, Telemeter, TelemeterContext
from router.tracing.validators import share

log = logging.getLogger("waypost.trace")

# Linkerd's names; below DEBUG there is nothing in Python, but the log has them.
LEVELS = {"ALL": 1, "TRACE": 5, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}


def _level(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if value not in LEVELS:
        raise ValueError(f"must be one of {', '.join(LEVELS)}, not {value!r}")


@attrs.frozen
class Config:
    """Which share of traces is logged, and at which of Linkerd's levels."""

    sample_rate: float = attrs.field(default=1.0, validator=share)
    level: str = attrs.field(default="INFO", validator=_level)


def fields_of(span: Span) -> dict[str, Any]:
    """The fields of a line."""
    context = span.context
    fields = {
        "trace": context.trace_id,
        "id": f"{context.span:016x}",
        "parent": f"{context.parent:016x}" if context.parent else None,
        "kind": span.kind.lower(),
        "name": span.name,
        "took_ms": round((span.end - span.start) / 1e6, 3),
        "error": span.error or None,
        **span.tags,
    }
    return {name: value for name, value in fields.items() if value is not None}


class LogTracer:
    """A :class:`router.spi.Tracer`."""

    name = "io.l5d.tracelog"

    def __init__(self, config: Config) -> None:
        self.rate = config.sample_rate
        self._level = LEVELS[config.level]

    def encode(self, spans: Sequence[Span]) -> list[dict[str, Any]]:
        """The fields of their lines."""
        return [fields_of(span) for span in spans]

    async def deliver(self, pieces: Sequence[list[dict[str, Any]]]) -> None:
        """Log the lines."""
        for piece in pieces:
            for fields in piece:
                extra = {"event": "span", "fields": fields, "shown": None, "unlimited": True}
                log.log(self._level, "%s", show("span", fields), extra=extra)
            await trio.lowlevel.checkpoint()


def make(config: Config, context: TelemeterContext) -> Telemeter:
    """In the supervisor there is nothing to do."""
    return Telemeter()


PLUGIN = Plugin("io.l5d.tracelog", Config, make, tracer=LogTracer)
