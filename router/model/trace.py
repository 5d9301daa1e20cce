"""What is known of the trace that an exchange belongs to, and of the spans that are made of it.

A *context* is what requests carry: the trace, the span that is their parent, and whether the trace is sampled. A server span is
made of each exchange, and a client span of each attempt.
"""

from __future__ import annotations

from random import getrandbits
from typing import Any

import attrs

SERVER, CLIENT = "SERVER", "CLIENT"
Tag = str | int | float | bool


@attrs.frozen
class TraceContext:
    """``trace`` has 64 or 128 bits, ``span`` and ``parent`` (0: none) 64. Without ids (``trace`` is 0) it only says whether to
    sample. ``sampled``: None where nobody has decided. ``debug``: sampled, whatever else is said. ``random``: W3C's flag."""

    trace: int = 0
    span: int = 0
    parent: int = 0
    sampled: bool | None = None
    debug: bool = False
    random: bool = False

    def child(self) -> TraceContext:
        """The context of a new span below this one."""
        return TraceContext(self.trace, new_id(), self.span, self.sampled, self.debug, self.random)

    @property
    def trace_id(self) -> str:
        """In hexadecimal, 16 or 32 digits."""
        return f"{self.trace:032x}" if self.trace >> 64 else f"{self.trace:016x}"


def new_id() -> int:
    """An id of 64 bits that is not 0."""
    return getrandbits(64) or 1


@attrs.define(eq=False)
class Span:
    """One span that is over. Times in nanoseconds of the epoch; ``heard``: when the response's head came (0: it did not).
    ``peer``: address and port of the other side. ``error``: its kind, empty where there was none."""

    context: TraceContext
    kind: str
    service: str
    name: str
    start: int
    end: int
    heard: int
    peer: tuple[str, int] | None
    error: str
    tags: dict[str, Tag]


class Trace:
    """The trace of one exchange: ``context`` is its server span's, ``carrier`` puts contexts on requests, ``spans`` makes the
    spans (None: not sampled). ``owner`` is the identity of the exchange itself: hedges have others. ``wall``: when it came, in
    nanoseconds of the epoch. ``attempts``: so far."""

    __slots__ = ("attempts", "carrier", "context", "owner", "spans", "wall")

    def __init__(self, context: TraceContext, carrier: Any, spans: Any, owner: int, wall: int) -> None:
        self.context = context
        self.carrier = carrier
        self.spans = spans
        self.owner = owner
        self.wall = wall
        self.attempts = 0
