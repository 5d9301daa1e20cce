"""Strands: the coroutine of one exchange, driven by events and not by a scheduler.

Theory of operation

1. A strand awaits only *traps*: a :class:`Waiter` (somebody has the news and resumes us synchronously) or
   :func:`in_trio` (a trio task of the host runs a function and resumes us with its result). Awaiting anything
   that belongs to trio's scheduler raises an error in the strand that says so: a strand is not a task.
2. Whoever has the news calls :meth:`Waiter.wake` or :meth:`Waiter.throw`; the strand runs at once, on the
   caller's stack, until its next park. The caller must therefore have its own state in order *before* it wakes.
3. A waiter holds one value and parks one strand. It may be woken before it is awaited; the value is kept.
4. :meth:`Strand.cancel` throws an error into the strand at its park, once. A strand that is running (it may have
   caused the event that cancels it) gets the error at its next park, never re-entrantly; of several errors that
   come while it runs, the first wins.
5. Cleanup in ``finally`` is synchronous. Only the outermost shell parks again after a cancellation, to wait until
   the answer it rendered has left.
6. Nothing escapes: an exception that ends a strand goes to ``host.crashed``.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from router.model.host import Host

T = TypeVar("T")

_UNSET: Any = object()


class Waiter(Generic[T]):
    """A parking place for one strand, with room for one value.

    ``await waiter`` returns what :meth:`wake` was given or raises what :meth:`throw` was given.
    """

    __slots__ = ("_error", "_strand", "_value")

    def __init__(self) -> None:
        self._strand: Strand | None = None
        self._value: Any = _UNSET
        self._error: BaseException | None = None

    @property
    def woken(self) -> bool:
        """Whether the news has come, awaited or not."""
        return self._value is not _UNSET or self._error is not None

    def wake(self, value: T) -> None:
        """Deliver ``value``; a second delivery is ignored, since only the first outcome of a wait counts."""
        if self._value is not _UNSET or self._error is not None:
            return
        self._value = value
        strand = self._strand
        if strand is not None:
            self._strand = None
            strand.resume(self)

    def throw(self, error: BaseException) -> None:
        """Deliver ``error`` instead of a value."""
        if self._value is not _UNSET or self._error is not None:
            return
        self._error = error
        strand = self._strand
        if strand is not None:
            self._strand = None
            strand.resume(self)

    def __await__(self) -> Generator[Any, None, T]:
        if self._value is _UNSET and self._error is None:
            yield self
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def park(self, strand: Strand) -> None:
        self._strand = strand

    def leave(self) -> None:
        self._strand = None


class _InTrio:
    """The trap of :func:`in_trio`: a function to run and the waiter that gets its result."""

    __slots__ = ("args", "fn", "scope", "waiter")

    def __init__(self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.args = args
        self.scope = trio.CancelScope()
        self.waiter: Waiter[Any] = Waiter()


@types.coroutine
def _trap(trap: _InTrio) -> Generator[Any, None, None]:
    yield trap


async def in_trio(fn: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run ``await fn(*args)`` as a task of the host's nursery; the strand resumes with its result or error.

    A cancelled strand does not wait for the function: its task is cancelled, and its result dropped.
    """
    trap = _InTrio(fn, args)
    await _trap(trap)
    try:
        result: T = await trap.waiter
    finally:
        trap.scope.cancel()
    return result


class Strand:
    """The coroutine of one exchange. Create it, then :meth:`start` it once."""

    __slots__ = ("_coro", "_park", "_pending", "_running", "done", "host")

    def __init__(self, host: Host, coro: Coroutine[Any, Any, None]) -> None:
        self.host = host
        self.done = False
        self._coro = coro
        self._park: Waiter[Any] | None = None
        self._pending: BaseException | None = None
        self._running = False

    def start(self) -> None:
        """Run to the first park."""
        self._drive(None)

    def resume(self, waiter: Waiter[Any]) -> None:
        """Called by the waiter at which the strand is parked."""
        if self._park is waiter and not self._running:
            self._park = None
            self._drive(None)

    def cancel(self, error: BaseException) -> None:
        """Throw ``error`` at the park; while the strand runs, at its next park. Ignored once the strand is done."""
        if self.done:
            return
        if self._running:
            if self._pending is None:
                self._pending = error
            return
        self._unpark()
        self._drive(error)

    def _unpark(self) -> None:
        park = self._park
        if park is not None:
            park.leave()
            self._park = None

    def _drive(self, error: BaseException | None) -> None:
        """Advance until the strand is parked at a waiter that is not woken yet, or has ended."""
        self._running = True
        try:
            while True:
                trap = self._coro.send(None) if error is None else self._coro.throw(error)
                error = self._parked(trap)
                if error is None and self._park is not None:
                    return
        except StopIteration:
            self.done = True
        except BaseException as crash:
            self.done = True
            if not isinstance(crash, Exception):
                raise
            self.host.crashed(crash)
        finally:
            self._running = False

    def _parked(self, trap: Any) -> BaseException | None:
        """Take note of a park. Returns an error to throw at once, or None."""
        error = self._pending
        if error is not None:
            self._pending = None
            return error
        if isinstance(trap, Waiter):
            if not trap.woken:
                trap.park(self)
                self._park = trap
            return None
        if isinstance(trap, _InTrio):
            self.host.spawn(trap.fn, trap.args, trap.scope, trap.waiter)
            return None
        return RuntimeError(
            f"a strand awaited {trap!r}, which only a trio task can await: wrap the call in `await in_trio(fn, ...)`"
        )
