"""The HTTP/1.1 connections of a listener: which are taken, and what happens to all of them."""

from __future__ import annotations

from math import inf

from protocols.http1.core import Limits
from protocols.http1.reply import refusal
from protocols.http1.rules import is_request
from protocols.http1.server_connection import Http1ServerConnection
from protocols.http1.server_watch import WatchedConnection
from protocols.wire.connection import Connection as Wire
from protocols.wire.guard import Guard
from router.model.abuse import AbuseLimits
from router.model.expiry import Expiries
from router.spi import ServerContext

KINDS = ("connections", "idle", "head", "body", "stalled")
_TOO_MANY = refusal(503, "too many connections", (b"retry-after", b"1"), (b"l5d-retryable", b"true"))


class Http1Server:
    """The HTTP/1.1 connections of a listener."""

    alpn = "http/1.1"

    def __init__(self, limits: Limits, context: ServerContext, abuse: AbuseLimits) -> None:
        self.guard = Guard(abuse, context.host, context.metrics, KINDS, context.metrics.path)
        self.patience = min(abuse.head_timeout_ms or inf, abuse.first_request_timeout_ms or inf) / 1000
        self.limits = limits
        self.context = context
        self._connections: set[WatchedConnection] = set()
        self._draining = False
        self.refused = context.metrics.counter("malformed")
        self.expiries = Expiries(context.host.timers, context.session, context.metrics)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def recognises(self, data: bytes) -> bool | None:
        """Whether a connection that begins like this is ours; None while that cannot be told."""
        return is_request(data)

    def admit(self, wire: Wire, connections: int, *, tell: bool) -> bool:
        """Whether there is room for a new connection; above the limit it is answered with 503 before it asks."""
        if connections < self.guard.max_connections:
            return True
        self.guard.refuse(wire, _TOO_MANY if tell else b"")
        return False

    def adopt(self, wire: Wire, data: bytes, since: float) -> None:
        """Serve a connection that came at ``since``, and of which ``data`` was read."""
        connection = Http1ServerConnection(wire, self.limits, self, since)
        connection.expiry = self.expiries.watch(connection, connection.expire)
        self._connections.add(connection)
        wire.start(connection)
        if self._draining:
            connection.drain()
        if data:
            connection.received(data)

    def refuse(self, wire: Wire, why: str) -> None:
        """Answer a connection that is not served."""
        self.refused.value += 1
        wire.write(refusal(400, why + "\n"))
        wire.close()

    def gone(self, connection: WatchedConnection) -> None:
        """Called by a connection that is over."""
        if connection.expiry is not None:
            connection.expiry.close()
        self._connections.discard(connection)

    def end_tunnels(self) -> None:
        """See :class:`router.spi.Server`."""
        for connection in list(self._connections):
            connection.end_tunnel("the router is stopping")

    def drain(self) -> None:
        """Let every connection finish."""
        self._draining = True
        for connection in list(self._connections):
            connection.drain()
