"""Connections to endpoints whose bytes are the client's own business: what a CONNECT opens (RFC 9110 §9.3.6).

Such a session carries one tunnel. It is ready when TCP is: nothing is read before the tunnel is there, and what the endpoint
has said by then goes to the client behind the answer. A tunnel that does not come to its end on both sides ends with a TCP
reset, by which the endpoint can tell truncation from an end (RFC 9113 §8.5).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from protocols.wire.connection import Connection
from protocols.wire.dial import dial
from protocols.wire.poller import Poller
from protocols.wire.tunnel import EndpointEnd
from router.model.exchange import Exchange
from router.model.failure import CONNECT_ERROR
from router.model.headers import ResponseHead
from router.model.strand import Waiter
from router.model.timers import Timers


class PlainSession:
    """A connection to an endpoint for one tunnel: a :class:`router.spi.Session`."""

    def __init__(self, wire: Connection) -> None:
        self.wire = wire
        self.closed = False
        self.draining = False
        self.begun = 0
        self.changed: Callable[[Any], None] = _ignore
        self._tunnel: EndpointEnd | None = None
        wire.start(self)
        wire.pause()

    @property
    def free(self) -> int:
        """1 until the tunnel begins."""
        return int(not (self.begun or self.closed or self.draining))

    @property
    def active(self) -> int:
        """1 while the tunnel is open."""
        return int(self._tunnel is not None)

    async def conduct(self, exchange: Exchange) -> None:
        """Open the tunnel, and wait until both of its directions have ended."""
        self.begun = 1
        over: Waiter[None] = Waiter()
        tunnel = self._tunnel = EndpointEnd(self.wire, exchange, over, CONNECT_ERROR)
        try:
            tunnel.open(ResponseHead(200), b"")
            await over
        finally:
            self._tunnel = None
            whole = tunnel.finished and tunnel.ended
            tunnel.release()
            self._end(whole)

    def _end(self, whole: bool) -> None:
        if not self.closed:
            self.closed = True
            if whole:
                self.wire.close()
            else:
                self.wire.reset()
            self.changed(self)

    # -- from the wire, while there is no tunnel yet --------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Nothing is read."""

    def eof(self) -> None:
        """Nothing is read."""

    def writable(self) -> None:
        """Nothing is written."""

    def lost(self, why: str) -> None:
        """The endpoint took the connection back."""
        if not self.closed:
            self.closed = True
            self.changed(self)

    # -- the end --------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no tunnel; one that is open ends by itself."""
        self.draining = True
        if self._tunnel is None:
            self._end(True)

    def close(self) -> None:
        """Close now; an open tunnel breaks off."""
        self._end(self._tunnel is None)


def _ignore(_: Any) -> None:
    pass


def connector(poller: Poller, timers: Timers) -> Callable[[str, int], Awaitable[PlainSession]]:
    """How the pool opens sessions. In clear: whatever TLS there is, is the client's."""

    async def open_session(host: str, port: int) -> PlainSession:
        return PlainSession(await dial(poller, timers, host, port, None))

    return open_session
