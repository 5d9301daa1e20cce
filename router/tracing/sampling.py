"""Whether a trace is sampled: the debug flag decides, else ``l5d-sample``, else those before us, else the telemeters' rates.

A rate samples a trace by its id: where the low 64 bits are below that part of their range, as OpenTelemetry's ratio sampler
does. Routers and services with the same rate hence choose the same traces, those with a larger one these and others.
"""

from __future__ import annotations

from math import isnan

from router.model.headers import Head
from router.tracing.forms import SAMPLE

_RANGE = 1 << 64


def bound_of(rate: float) -> int:
    """The bound below which the low 64 bits of sampled traces are; ``rate`` is 0 to 1."""
    return round(rate * _RANGE)


def low_bits(trace: int) -> int:
    """What is compared with bounds."""
    return trace & (_RANGE - 1)


def asked_rate(head: Head) -> float | None:
    """``l5d-sample``: a rate for one request, at least 0 and at most 1; None where it is not there. Raises ValueError."""
    text = head.get(SAMPLE)
    if text is None:
        return None
    rate = float(text)
    if isnan(rate):
        raise ValueError("no number")
    return min(max(rate, 0.0), 1.0)
