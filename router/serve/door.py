"""Where the admin interface is reached: a socket that survives reloads as long as its address stays.

A port that was not asked for (9990, the default) may be taken; then there is no admin interface, with a warning. One that was
asked for must be had.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from protocols.wire.listener import listen
from router.config.schema import Admin

if TYPE_CHECKING:
    from router.serve.supervisor import Supervisor

DEFAULT_PORT = 9990
ServeAdmin = Callable[["Supervisor", socket.socket], Awaitable[None]]


class AdminDoor:
    """``serve`` is given each socket in turn; None: there is no admin interface."""

    def __init__(self, serve: ServeAdmin | None, supervisor: Supervisor) -> None:
        self._serve = serve
        self._supervisor = supervisor
        self._asked: tuple[str, int | None] | None = None
        self._sock: socket.socket | None = None
        self._moved = trio.Event()

    @property
    def address(self) -> tuple[str, int] | None:
        """IP address and port, if it can be reached."""
        return None if self._sock is None else self._sock.getsockname()[:2]

    def open(self, admin: Admin) -> None:
        """Listen where ``admin`` says, unless that is where we listen. Raises OSError."""
        asked = (admin.ip, admin.port)
        if self._serve is None or asked == self._asked:
            return
        sock = self._listen(admin)
        self.close()
        self._asked, self._sock = asked, sock
        self._moved.set()

    def _listen(self, admin: Admin) -> socket.socket | None:
        try:
            return listen(admin.ip, DEFAULT_PORT if admin.port is None else admin.port)
        except OSError as error:
            if admin.port is not None:
                raise
            cause, advice = str(error.args[-1]), "give it a port: admin: {port: ...}"
            self._supervisor.events.warn("admin_missing", cause=cause, advice=advice)
            return None

    async def run(self) -> None:
        """Serve, there and wherever it moves, until cancelled."""
        while True:
            self._moved = trio.Event()
            async with trio.open_nursery() as nursery:
                if self._serve is not None and self._sock is not None:
                    nursery.start_soon(self._serve, self._supervisor, self._sock)
                await self._moved.wait()
                nursery.cancel_scope.cancel()

    def close(self) -> None:
        """Listen no more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
