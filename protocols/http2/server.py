"""The HTTP/2 connections of a listener: which are taken, and what happens to all of them."""

from __future__ import annotations

from math import inf

from h2.errors import ErrorCodes

from protocols.http2 import frames
from protocols.http2.connection import measure
from protocols.http2.limits import KINDS
from protocols.http2.server_connection import Http2ServerConnection
from protocols.http2.state import Settings
from protocols.wire.connection import Connection as Wire
from protocols.wire.guard import Guard
from router.model.expiry import Expiries
from router.model.headers import RequestHead
from router.spi import ServerContext


class Http2Server:
    """The HTTP/2 connections of a listener."""

    alpn = "h2"

    def __init__(self, settings: Settings, context: ServerContext) -> None:
        self.settings = settings
        self.context = context
        where = context.metrics.path
        self.guard = Guard(settings.limits, context.host, context.metrics, KINDS, where)
        self.patience = settings.limits.head_timeout_ms / 1000 or inf
        self._connections: set[Http2ServerConnection] = set()
        self._draining = False
        measure(context.metrics.scope("stream"), self._connections)
        context.upgrades[b"h2c"] = self.upgrade
        self.expiries = Expiries(context.host.timers, context.session, context.metrics)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def admit(self, wire: Wire, connections: int, *, tell: bool) -> bool:
        """Whether there is room for a new connection; above the limit it is told that nothing of its was processed."""
        if connections < self.guard.max_connections:
            return True
        answer = frames.settings({}) + frames.goaway(0, ErrorCodes.NO_ERROR, "too many connections")
        self.guard.refuse(wire, answer if tell else b"")
        return False

    def recognises(self, data: bytes) -> bool | None:
        """Whether a connection that begins like this is ours; None while that cannot be told."""
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            return False
        return True if len(data) >= 16 else None  # "PRI * HTTP/2.0\r\n": no request line of HTTP/1

    def adopt(self, wire: Wire, data: bytes, since: float) -> None:
        """Serve a connection that came at ``since``, and of which ``data`` was read."""
        connection = self._adopt(wire, since)
        if data:
            connection.received(data)

    def upgrade(self, wire: Wire, head: RequestHead, settings: bytes, data: bytes) -> None:
        """Go on with a connection whose client asked for h2c with ``head``; ``data`` was read behind it."""
        connection = self._adopt(wire, self.guard.now())
        connection.begin_upgraded(head, settings)
        if data:
            connection.received(data)

    def _adopt(self, wire: Wire, since: float) -> Http2ServerConnection:
        connection = Http2ServerConnection(wire, self.settings, self, since)
        connection.expiry = self.expiries.watch(connection, connection.expire)
        self._connections.add(connection)
        wire.start(connection)
        if self._draining:
            connection.drain()
        return connection

    def refuse(self, wire: Wire, why: str) -> None:
        """Tell a connection that is not served why."""
        wire.write(frames.settings({}) + frames.goaway(0, ErrorCodes.PROTOCOL_ERROR, why))
        wire.close()

    def gone(self, connection: Http2ServerConnection) -> None:
        """Called by a connection that is over."""
        if connection.expiry is not None:
            connection.expiry.close()
        self._connections.discard(connection)

    def end_tunnels(self) -> None:
        """See :class:`router.spi.Server`."""
        for connection in list(self._connections):
            connection.end_tunnels("the router is stopping")

    def drain(self) -> None:
        """GOAWAY to every connection."""
        self._draining = True
        for connection in list(self._connections):
            connection.drain()
