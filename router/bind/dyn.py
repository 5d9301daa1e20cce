"""A name's service while the name changes: who comes before the first answer waits, who comes after it is served.

Once a name was bound, failures and pauses of discovery never reach its users: the last tree stays. A negative answer is an
answer, and replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from router.model.strand import Waiter

T = TypeVar("T")
MAX_QUEUE = 10_000


class ClosedError(Exception):
    """The binding was closed."""


class QueueFullError(Exception):
    """More than ``MAX_QUEUE`` users wait for the first answer."""


class DynBinding(Generic[T]):
    """States: pending with a queue, named (``current`` is the value), failed, closed. ``current`` may be read directly."""

    __slots__ = ("_queue", "closed", "current", "error")

    def __init__(self) -> None:
        self.current: T | None = None
        self.error: Exception | None = None
        self.closed = False
        self._queue: dict[int, Waiter[T]] = {}

    @property
    def status(self) -> str:
        """``busy`` while pending, ``closed`` when failed or closed, else ``of_tree``: the tree's own."""
        if self.closed or self.error is not None:
            return "closed"
        return "busy" if self.current is None else "of_tree"

    def named(self, value: T) -> None:
        """The name is bound to ``value``: serve the queue, in order."""
        if not self.closed:
            self.current, self.error = value, None
            self._serve(lambda waiter: waiter.wake(value))

    def failed(self, error: Exception) -> None:
        """The name could not be bound; ignored once it was."""
        if not self.closed and self.current is None:
            self.error = error
            self._serve(lambda waiter: waiter.throw(error))

    def close(self) -> None:
        """For good: the queue fails, later users too."""
        self.closed = True
        self.current = None
        self._serve(lambda waiter: waiter.throw(ClosedError()))

    def request(self) -> Waiter[T]:
        """A waiter that has the value or gets it. Give it back with :meth:`cancel` when it is not waited for any more."""
        waiter: Waiter[T] = Waiter()
        if self.closed:
            waiter.throw(ClosedError())
        elif self.current is not None:
            waiter.wake(self.current)
        elif self.error is not None:
            waiter.throw(self.error)
        elif len(self._queue) >= MAX_QUEUE:
            waiter.throw(QueueFullError())
        else:
            self._queue[id(waiter)] = waiter
        return waiter

    def cancel(self, waiter: Waiter[T]) -> None:
        """Forget a waiter; harmless when it was served."""
        self._queue.pop(id(waiter), None)

    @property
    def waiting(self) -> int:
        """How many wait for the first answer."""
        return len(self._queue)

    def _serve(self, deliver: Callable[[Waiter[T]], None]) -> None:
        queue, self._queue = self._queue, {}
        for waiter in queue.values():
            deliver(waiter)
