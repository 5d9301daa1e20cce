"""However often somebody looks, the calls do not notice: the same answer again for a second, and requests one after the other.

Theory of operation

1. An answer to a GET is kept for ``FRESH`` seconds, by what it depends on. Whoever asks for the same while it is being made
   waits for it. What was kept is forgotten when something was posted, since that may change what is told.
2. Requests are let through ``APART`` seconds apart, so that neither what is asked of the workers nor what the supervisor
   takes of the processors grows with those who look. How many are under way bounds how long one waits.
3. Bounds: ``MOST`` answers, ``MOST_BYTES`` together; what would be more pushes the oldest out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable

import attrs
import trio
from starlette.responses import Response

from router.serve.gather import FRESH

MOST = 64
MOST_BYTES = 64 << 20
APART = 0.01


@attrs.define(eq=False)
class _Answer:
    """``made`` is set when it is there, or will not be."""

    made: trio.Event = attrs.field(factory=trio.Event)
    response: Response | None = None
    at: float = 0.0


class Kept:
    """The answers of one application."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, _Answer] = {}

    async def answer(self, key: Hashable, make: Callable[[], Awaitable[Response]]) -> Response:
        """What ``make`` answered at most ``FRESH`` seconds ago, or answers now."""
        while (known := self._answers.get(key)) is not None:
            await known.made.wait()
            if known.response is not None and trio.current_time() - known.at < FRESH:
                return known.response
            if self._answers.get(key) is known:
                del self._answers[key]
        answer = self._answers[key] = _Answer()
        try:
            answer.response = await make()
            answer.at = trio.current_time()
            return answer.response
        finally:
            answer.made.set()
            if answer.response is None and self._answers.get(key) is answer:
                del self._answers[key]
            self._shrink()

    def clear(self) -> None:
        """Nothing is known any more."""
        self._answers.clear()

    def _shrink(self) -> None:
        done = [(key, answer.response) for key, answer in self._answers.items() if answer.response is not None]
        size = sum(len(response.body) for _, response in done)
        for at, (key, response) in enumerate(done):
            if len(done) - at <= MOST and size <= MOST_BYTES:
                return
            del self._answers[key]
            size -= len(response.body)


class Pace:
    """Lets requests through one after the other, ``APART`` seconds apart, in the order in which they came."""

    def __init__(self) -> None:
        self._turn = trio.Lock()
        self._next = -1e9

    async def turn(self) -> None:
        """Wait for it."""
        async with self._turn:
            await trio.sleep_until(self._next)
            self._next = trio.current_time() + APART
