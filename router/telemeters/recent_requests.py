"""``io.l5d.recentRequests``: the last requests of each worker, or of a sample of them, with the way that they went.

Shown together at ``/requests`` and ``/requests.json`` of the admin interface. What is kept are the records of the access log,
as JSON. Bounds: ``capacity`` records a worker, at most ``MOST``; a record is about as long as what it quotes of the
request's head.
"""

from __future__ import annotations

import time
from collections import deque

import attrs

from router.spi import Plugin, Telemeter, TelemeterContext

MOST = 1000


def _share(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"must be between 0 and 1, not {value:g}")


def _capacity(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not 1 <= value <= MOST:
        raise ValueError(f"must be between 1 and {MOST}, not {value}")


@attrs.frozen
class Config:
    """``sample_rate``: the share of requests that is recorded. ``capacity``: how many records are kept."""

    sample_rate: float = attrs.field(validator=_share)
    capacity: int = attrs.field(default=10, validator=_capacity)


class Ring:
    """A :class:`router.spi.Recorder`."""

    def __init__(self, config: Config) -> None:
        self.sample = config.sample_rate
        self.capacity = config.capacity
        self._records: deque[tuple[float, str]] = deque(maxlen=config.capacity)

    def keep(self, record: str) -> None:
        """Keep it in the place of the oldest one."""
        self._records.append((time.time(), record))

    @property
    def recent(self) -> list[tuple[float, str]]:
        """The oldest first, each with the seconds of the epoch."""
        return list(self._records)


def make(config: Config, context: TelemeterContext) -> Telemeter:
    """In the supervisor there is nothing to do."""
    return Telemeter()


PLUGIN = Plugin("io.l5d.recentRequests", Config, make, recorder=Ring)
