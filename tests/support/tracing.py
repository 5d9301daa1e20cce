"""Something that takes spans, and a tracing that gives it all of them, or a share."""

from __future__ import annotations

from typing import Any

from router.model.trace import Span
from router.tracing.tracing import Tracing


class Collected:
    """In the place of an exporter: keeps what it is given."""

    def __init__(self, rate: float = 1.0) -> None:
        self.rate = rate
        self.spans: list[Span] = []

    def add(self, span: Span) -> None:
        self.spans.append(span)


def tracing(*exporters: Any, propagator: Any = None) -> Tracing:
    return Tracing("web", propagator, exporters)
