"""How long, and how many: the limits that the clients of every protocol are held to, as they are configured."""

from __future__ import annotations

import resource
from typing import Any

import attrs

COARSE = 5.0  # seconds: no connection looks at its clock less often while there is something to watch


def between(low: float, high: float) -> Any:
    """A validator: ``low`` to ``high``, both included."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not low <= value <= high:
            raise ValueError(f"must be between {low:g} and {high:g}, not {value}")

    return check


def _milliseconds(default: int) -> Any:
    return attrs.field(default=default, validator=between(0, 86_400_000))


@attrs.frozen
class AbuseLimits:
    """The keys of ``abuse`` that all servers have; waypost's own. A time of 0: no limit.

    ``max_connections``: of the listener; at most half of the process's file descriptors, the others are the endpoints'.
    ``first_request_timeout_ms``: for a connection on which no request has come. ``head_timeout_ms``: for what precedes a
    request (a preface) and for a head, from its first byte. ``body_timeout_ms`` and ``stall_timeout_ms``: over how long a
    request body that is waited for, or the answers that wait for the client, must move ``min_bytes_per_sec`` on average.
    """

    max_connections: int = attrs.field(default=10_000, validator=between(1, 10_000_000))
    first_request_timeout_ms: int = _milliseconds(60_000)
    head_timeout_ms: int = _milliseconds(10_000)
    body_timeout_ms: int = _milliseconds(30_000)
    stall_timeout_ms: int = _milliseconds(300_000)
    min_bytes_per_sec: int = attrs.field(default=100, validator=between(1, 1_000_000_000))

    @property
    def connections(self) -> int:
        """``max_connections`` as far as descriptors allow."""
        return min(self.max_connections, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))

    @property
    def period(self) -> float:
        """How often a connection looks at its clock, in seconds."""
        times = (self.first_request_timeout_ms, self.head_timeout_ms, self.body_timeout_ms, self.stall_timeout_ms)
        return min([time / 4000 for time in times if time] + [COARSE])


def expired(since: float, milliseconds: int, now: float) -> bool:
    """Whether a limit that counts from ``since`` is over; 0 milliseconds never are."""
    return milliseconds > 0 and now - since > milliseconds / 1000
