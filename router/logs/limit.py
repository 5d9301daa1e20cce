"""How often one event is told: a bucket of tokens for each name."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

BURST = 100
PER_SECOND = 1.0
MAX_NAMES = 1000
OTHERS = "others"


@attrs.define
class _Bucket:
    tokens: float
    at: float
    left_out: int = 0

    def fill(self, now: float) -> None:
        self.tokens = min(BURST, self.tokens + (now - self.at) * PER_SECOND)
        self.at = now


class Limiter:
    """``BURST`` at once, then ``PER_SECOND``. Bound: ``MAX_NAMES`` names, further ones share a bucket."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, now: float) -> int | None:
        """None: leave it out. Else tell it, and that so many were left out before it."""
        bucket = self._bucket(name, now)
        if bucket.tokens < 1:
            bucket.left_out += 1
            return None
        bucket.tokens -= 1
        left_out, bucket.left_out = bucket.left_out, 0
        return left_out

    def _bucket(self, name: str, now: float) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= MAX_NAMES and name != OTHERS:
                return self._bucket(OTHERS, now)
            bucket = self._buckets[name] = _Bucket(BURST, now)
        bucket.fill(now)
        return bucket

    def overdue(self, now: float) -> Iterator[tuple[str, int]]:
        """Names of which some were left out and may be told of now, and how many; they count as told."""
        for name, bucket in self._buckets.items():
            if bucket.left_out:
                bucket.fill(now)
                if bucket.tokens >= 1:
                    bucket.tokens -= 1
                    yield name, bucket.left_out
                    bucket.left_out = 0
