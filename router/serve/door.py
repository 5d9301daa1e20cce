"""Where the supervisor is reached: sockets that survive reloads as long as their address stays.

The admin interface has a port of its own, and one where requests are told their names (``httpIdentifierPort``). A port that
was not asked for (9990, the default) may be taken; then there is no admin interface, with a warning. One that was asked for
must be had.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import trio

from protocols.wire.listener import listen
from router.config.schema import Admin
from router.config.tls import ServerTls

if TYPE_CHECKING:
    from router.serve.supervisor import Supervisor

DEFAULT_PORT = 9990
ServeAdmin = Callable[["Supervisor", socket.socket, "ServerTls | None"], Awaitable[None]]
Place = Callable[[Admin], "tuple[str, int | None] | None"]
"""The IP address and port of a configuration: None for a port that is not given, None for no door at all."""


def admin_place(admin: Admin) -> tuple[str, int | None] | None:
    """The admin interface's."""
    return admin.ip, admin.port


def identifier_place(admin: Admin) -> tuple[str, int | None] | None:
    """That of ``httpIdentifierPort``."""
    return None if admin.http_identifier_port is None else (admin.ip, admin.http_identifier_port)


@attrs.frozen
class Opened:
    """What a configuration asks for, ready to be used."""

    asked: tuple[str, int | None] | None
    tls: ServerTls | None
    sock: socket.socket | None
    new: bool

    def drop(self) -> None:
        """It will not be used."""
        if self.new and self.sock is not None:
            self.sock.close()


class Doors:
    """Several doors, which move together or not at all."""

    def __init__(self, *doors: AdminDoor) -> None:
        self._doors = doors

    def prepare(self, admin: Admin) -> list[Opened]:
        """Listen where ``admin`` says, wherever we do not. Raises OSError, with nothing changed."""
        opened: list[Opened] = []
        try:
            for door in self._doors:
                opened.append(door.prepare(admin))  # noqa: PERF401 - those before one that fails are to be dropped
        except OSError:
            self.drop(opened)
            raise
        return opened

    def drop(self, opened: list[Opened]) -> None:
        """What was prepared will not be used."""
        for one in opened:
            one.drop()

    def use(self, opened: list[Opened]) -> None:
        """From now on serve there."""
        for door, one in zip(self._doors, opened, strict=True):
            door.use(one)

    async def run(self) -> None:
        """Serve at all of them until cancelled."""
        async with trio.open_nursery() as nursery:
            for door in self._doors:
                nursery.start_soon(door.run)

    def close(self) -> None:
        """Listen no more."""
        for door in self._doors:
            door.close()


class AdminDoor:
    """``serve`` is given each socket in turn; None: there is no such door."""

    def __init__(self, serve: ServeAdmin | None, supervisor: Supervisor, place: Place = admin_place) -> None:
        self._serve = serve
        self._supervisor = supervisor
        self._place = place
        self._now = Opened(None, None, None, new=False)
        self._moved = trio.Event()

    @property
    def address(self) -> tuple[str, int] | None:
        """IP address and port, if it can be reached."""
        return None if self._now.sock is None else self._now.sock.getsockname()[:2]

    def prepare(self, admin: Admin) -> Opened:
        """Listen where ``admin`` says, unless that is where we listen. Raises OSError."""
        asked = None if self._serve is None else self._place(admin)
        if asked == self._now.asked:
            return Opened(asked, admin.tls, self._now.sock, new=False)
        return Opened(asked, admin.tls, None if asked is None else self._listen(*asked), new=True)

    def use(self, opened: Opened) -> None:
        """From now on serve there."""
        before, self._now = self._now, opened
        if opened.new and before.sock is not None:
            before.sock.close()
        if opened.new or opened.tls != before.tls:
            self._moved.set()

    def _listen(self, ip: str, port: int | None) -> socket.socket | None:
        try:
            return listen(ip, DEFAULT_PORT if port is None else port)
        except OSError as error:
            if port is not None:
                raise
            cause, advice = str(error.args[-1]), "give it a port: admin: {port: ...}"
            self._supervisor.events.warn("admin_missing", cause=cause, advice=advice)
            return None

    async def run(self) -> None:
        """Serve, there and wherever it moves, until cancelled."""
        while True:
            self._moved = trio.Event()
            async with trio.open_nursery() as nursery:
                if self._serve is not None and self._now.sock is not None:
                    nursery.start_soon(self._serve, self._supervisor, self._now.sock, self._now.tls)
                await self._moved.wait()
                nursery.cancel_scope.cancel()

    def close(self) -> None:
        """Listen no more."""
        if self._now.sock is not None:
            self._now.sock.close()
        self._now = Opened(None, None, None, new=False)
