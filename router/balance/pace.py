"""When connections to one endpoint may be opened: the first one alone, more as it proves to be there, fewer when it is not.

Theory of operation

1. One attempt is allowed at first, and one more with each connection that opened: the number of concurrent attempts doubles
   with each round trip, as demand asks for them, up to ``MAX_ATTEMPTS``. A backend that comes back meets one attempt and not
   everybody's.
2. After a failed attempt one attempt is allowed again, and none before the next wait of the back-off is over. Attempts that
   were under way together and fail together are one failure.
3. An endpoint without any connection begins anew, with one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from router.model.backoff import Backoff

MAX_ATTEMPTS = 64


class Pace:
    """The attempts to connect to one endpoint. ``connecting``: under way now; ``until``: none before that time."""

    __slots__ = ("_allowed", "_backoff", "_now", "_waits", "connecting", "until")

    def __init__(self, now: Callable[[], float], backoff: Backoff) -> None:
        self._now = now
        self._backoff = backoff
        self._allowed = 1
        self._waits: Iterator[float] | None = None
        self.connecting = 0
        self.until = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last attempt that is over has failed."""
        return self._waits is not None

    @property
    def waiting(self) -> bool:
        """Whether the back-off forbids attempts now."""
        return self._waits is not None and self._now() < self.until

    def may_begin(self) -> bool:
        """Whether another attempt may begin now."""
        return self.connecting < self._allowed and not self.waiting

    def succeeded(self) -> None:
        """A connection has opened."""
        self._waits = None
        self._allowed = min(self._allowed + 1, MAX_ATTEMPTS)

    def failed(self) -> None:
        """An attempt came to nothing."""
        self._allowed = 1
        if self._waits is None:
            self._waits = self._backoff()
        elif self._now() < self.until:
            return
        self.until = self._now() + next(self._waits)

    def hurry(self) -> None:
        """An attempt may begin now; if it fails the next wait is as long as it would have been."""
        self.until = self._now()

    def restart(self) -> None:
        """The endpoint has no connection any more: feel the way again."""
        self._allowed = 1
