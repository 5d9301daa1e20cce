"""The end of a turn: when all that was ready has been read once, and before anything is sent.

Whoever has seen the beginning of something and wants to know whether the same read brought its end asks to be looked at then.
It costs no timer. A turn is made by the poller; what is added outside of one (it came from no read, hence hardly ever) makes
the next one happen at once.

Bound: what one turn adds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Looking(Protocol):
    """What waits for the end of the turn."""

    def look(self) -> None:
        """The turn is over."""


class Turn:
    """``running``: there is one now; ``late``: who is looked at when it is over. Where that matters append to ``late`` while
    it is running, and call :meth:`add` only else. ``kick`` makes a turn happen."""

    __slots__ = ("kick", "late", "running")

    def __init__(self) -> None:
        self.running = False
        self.late: list[Looking] = []
        self.kick: Callable[[], None] = _nobody

    def add(self, who: Looking) -> None:
        """Have ``who`` looked at when this turn is over, or the next one where there is none."""
        self.late.append(who)
        if not self.running and len(self.late) == 1:
            self.kick()

    def end(self, crashed: Callable[[Exception], None]) -> None:
        """Look at all of them; bugs go to ``crashed``."""
        late, self.late = self.late, []
        for who in late:
            try:
                who.look()
            except Exception as error:  # noqa: BLE001 - one callback's bug must not stop the others
                crashed(error)


def _nobody() -> None:
    """Until there is a poller."""
