"""All sockets of a worker behind one epoll set, and one trio task that serves it.

Theory of operation

1. A connection is not a task. Its file descriptor is registered once (level-triggered) in an epoll set of our own;
   trio waits for the *set* to become readable. What a task would pay per wake-up (reschedule, one ``epoll_ctl``)
   is paid once per turn for all connections, and an idle connection costs no stack.
2. A turn asks the set what is ready, lets each connection read once and act, synchronously, looks at what waits for just that
   (:mod:`router.model.turn`), and then flushes: each connection that was written to sends its whole output with one
   syscall. Nobody flushes by hand.
3. A few turns may follow each other while there is work (``TURNS``); then the task yields to trio, so that timers and
   discovery are never starved by traffic. One read is bounded by the connection's buffer size: that bounds a turn.
4. Who has more to do than fits into a turn asks to be called :meth:`again` in the next one, after the others had theirs, tasks
   of trio included.
5. Code that runs outside a turn (a timer, a task) marks connections in the same way; the first mark writes to an
   eventfd in the set, which makes a turn happen.
6. A handler that raises is a bug of ours: its connection is aborted, the others go on.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Protocol

import trio

from router.model.turn import Turn

TURNS = 4
EVENTS_PER_TURN = 256


class Pollable(Protocol):
    """What can be registered: readiness comes as these calls."""

    def on_readable(self) -> None: ...

    def on_writable(self) -> None: ...

    def on_again(self) -> None: ...

    def flush(self) -> None: ...

    def abort(self) -> None: ...


class Poller:
    """The epoll set of a worker. Use it as ``nursery.start_soon(poller.run)``; ``close`` it after that."""

    def __init__(self, crashed: Callable[[Exception], None], turn: Turn | None = None) -> None:
        self._epoll = select.epoll()
        self._kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._kick, select.EPOLLIN)
        self._handlers: dict[int, Pollable] = {}
        self._dirty: list[Pollable] = []
        self._again: list[Pollable] = []
        self._turn = Turn() if turn is None else turn
        self._turn.kick = self._wake
        self._crashed = crashed

    def register(self, fd: int, handler: Pollable) -> None:
        """Tell ``handler`` when ``fd`` is readable."""
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def interest(self, fd: int, *, read: bool, write: bool) -> None:
        """Change what ``fd`` is watched for."""
        self._epoll.modify(fd, (select.EPOLLIN if read else 0) | (select.EPOLLOUT if write else 0))

    def unregister(self, fd: int) -> None:
        """Stop watching; call before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def __len__(self) -> int:
        return len(self._handlers)

    def dirty(self, handler: Pollable) -> None:
        """Have ``handler.flush()`` called at the end of this turn, or in a turn that is made to happen soon.

        A handler marks itself once and clears its mark in ``flush``.
        """
        self._dirty.append(handler)
        if not self._turn.running and len(self._dirty) == 1:
            self._wake()

    def again(self, handler: Pollable) -> None:
        """Have ``handler.on_again()`` called at the end of the next turn, which is made to happen at once."""
        self._again.append(handler)
        if len(self._again) == 1:
            self._wake()

    def _wake(self) -> None:
        os.eventfd_write(self._kick, 1)

    async def run(self) -> None:
        """Serve until cancelled."""
        fd = self._epoll.fileno()
        while True:
            await trio.lowlevel.wait_readable(fd)
            for _ in range(TURNS):
                if not self.turn() or self._again:
                    break

    def turn(self) -> int:
        """Serve what is ready now; returns how many descriptors were."""
        events = self._epoll.poll(0, EVENTS_PER_TURN)
        handlers = self._handlers
        self._turn.running = True
        again, self._again = self._again, []
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:
                try:
                    if mask & select.EPOLLOUT:
                        handler.on_writable()
                    if mask & ~select.EPOLLOUT and fd in handlers:
                        handler.on_readable()
                except Exception as error:  # noqa: BLE001 - rule 6
                    self._failed(handler, error)
            elif fd == self._kick:
                os.eventfd_read(fd)
        for handler in again:
            try:
                handler.on_again()
            except Exception as error:  # noqa: BLE001 - rule 6
                self._failed(handler, error)
        while self._turn.late:
            self._turn.end(self._crashed)
        while self._dirty:
            self._flush()
        self._turn.running = False
        return len(events)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for handler in dirty:
            try:
                handler.flush()
            except Exception as error:  # noqa: BLE001 - rule 6
                self._failed(handler, error)

    def _failed(self, handler: Pollable, error: Exception) -> None:
        self._crashed(error)
        handler.abort()

    def abort_all(self) -> None:
        """Abort everything that is registered."""
        for handler in list(self._handlers.values()):
            handler.abort()

    def close(self) -> None:
        """Give the descriptors back; only after :meth:`run` has ended."""
        self.abort_all()
        self._epoll.close()
        os.close(self._kick)
