"""One port, several protocols: what a connection speaks is seen from its first bytes.

Theory of operation

1. A :class:`Front` accepts. Its servers, the router's own first, say of a connection's first bytes whether they are theirs; the
   one that takes them gets the connection with the bytes, and the front has nothing to do with it any more: after the
   first read detection costs nothing.
2. With TLS the first bytes must be a handshake. If ALPN agreed on something, that decides; else the first decrypted bytes do.
3. Whoever speaks TLS to a port in clear, or the reverse, is told so in words that its protocol can carry.
4. Bounds: after its ``patience`` a connection that is silent, or undecided, is the own server's, with its limits. Servers leave
   at most a preface undecided. A TLS handshake is bounded by its own layer. The own server says how many connections there may
   be.
5. Behind a load balancer that speaks the PROXY protocol its header comes first of all (:mod:`protocols.wire.proxy`).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from math import inf
from typing import Any, Protocol

from protocols.wire.connection import Connection
from protocols.wire.poller import Poller
from protocols.wire.proxy import Prologue, ProxyProtocol
from protocols.wire.tls import Context, TlsConnection
from router.model.ends import Ends, address
from router.model.metrics import Metrics
from router.model.timers import Timer, Timers

# How long a connection that has said nothing yet may wait with that while the listener drains, in seconds.
LAST_CALL = 1.0
_HANDSHAKE = b"\x16"  # the first byte of a TLS record with a handshake message (RFC 8446 §5.1), and of nothing else here
_WANTS_TLS = "this port expects TLS: use https"
_WANTS_CLEAR = "this port does not speak TLS: use http"


class Speaker(Protocol):
    """A server, as the front sees it."""

    alpn: str
    patience: float

    def admit(self, wire: Connection, connections: int, *, tell: bool) -> bool:
        """Whether there is room for a new connection; else it was refused, in words if ``tell``."""
        ...

    @property
    def connections(self) -> int:
        """How many are open."""
        ...

    def recognises(self, data: bytes) -> bool | None:
        """Whether these first bytes are its protocol's; None while that cannot be told."""
        ...

    def adopt(self, wire: Connection, data: bytes, since: float) -> None:
        """Serve a connection that came at ``since``, and of which ``data`` was read."""

    def refuse(self, wire: Connection, why: str) -> None:
        """Tell the peer why it is not served, and close."""

    def drain(self) -> None:
        """Let every connection finish."""

    def end_tunnels(self) -> None:
        """End the tunnels that are open."""


class Front:
    """The accepting side of a listener. ``servers``: the router's own first; ``metrics``: the server's scope."""

    def __init__(
        self,
        poller: Poller,
        timers: Timers,
        servers: Sequence[Speaker],
        metrics: Metrics,
        tls: Context | None = None,
        proxy: ProxyProtocol | None = None,
    ) -> None:
        self.timers = timers
        self.servers = servers
        self._poller = poller
        self._tls = tls
        self._proxy = proxy
        self._draining = False
        self._pending: set[_Newcomer | Prologue] = set()
        metrics.gauge("connections", lambda: self.connections)
        self._connects = metrics.counter("connects")
        self._wrong = metrics.counter("wrong_protocol")
        if tls is not None:
            self._handshakes = metrics.counter("tls/handshakes")
            self._failures = metrics.counter("tls/handshake_failures")

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._pending) + sum([server.connections for server in self.servers])

    def accept(self, sock: socket.socket, peer: Any) -> None:
        """Serve a new connection, when it was said whose it is."""
        own, since = self.servers[0], self.timers.now()
        wire = Connection(self._poller, self.timers, sock)
        wire.ends = Ends(address(peer), address(sock.getsockname()))
        if not own.admit(wire, self.connections, tell=self._tls is None):
            return
        self._connects.value += 1
        if self._proxy is None:
            self._serve(wire, sock, since)
            return

        def named(prologue: Prologue, ends: Ends | None) -> None:
            self._pending.discard(prologue)
            if ends is not None:
                wire.ends = ends
                self._serve(wire, sock, since)

        self._pending.add(self._proxy.await_header(sock, wire.ends, own.patience, named))

    def _serve(self, wire: Connection, sock: socket.socket, since: float) -> None:
        newcomer = _Newcomer(self, since)
        self._pending.add(newcomer)
        if self._tls is None:
            newcomer.wire = wire
            newcomer.wait(self.servers[0].patience)
            wire.start(newcomer)
        else:
            secure = TlsConnection(self._poller, self.timers, sock, self._tls.accepting, newcomer.secured)
            secure.ends = wire.ends
            newcomer.wire = secure
            secure.begin()
        if self._draining:
            newcomer.hurry(LAST_CALL)

    def drain(self) -> None:
        """Let every connection finish. The first request of one that is not recognised yet may be under way."""
        self._draining = True
        for newcomer in self._pending:
            newcomer.hurry(LAST_CALL)
        for server in self.servers:
            server.drain()

    def end_tunnels(self) -> None:
        """End the tunnels that are open."""
        for server in self.servers:
            server.end_tunnels()

    def gone(self, newcomer: _Newcomer) -> None:
        """Called by a connection that is recognised or over."""
        self._pending.discard(newcomer)

    def choose(self, data: bytes) -> Speaker | None:
        """Whose bytes these are; the router's own protocol has to deal with what is nobody's. None: wait for more."""
        for server in self.servers:
            verdict = server.recognises(data)
            if verdict is not False:
                return server if verdict else None
        return self.servers[0]

    def agreed(self, alpn: str | None) -> Speaker | None:
        """The server of what ALPN agreed on."""
        return next((server for server in self.servers if server.alpn == alpn), None)

    def mistaken(self, wire: Connection, data: bytes, why: str) -> None:
        """TLS where there is none, or the reverse."""
        self._wrong.value += 1
        speaker = self.choose(data) if data[:1] != _HANDSHAKE else self.agreed("http/1.1")
        (speaker or self.servers[0]).refuse(wire, why)

    def shaken(self, good: bool) -> None:
        """A TLS handshake has ended."""
        (self._handshakes if good else self._failures).value += 1


class _Newcomer:
    """A connection that is not recognised yet: a :class:`protocols.wire.connection.WireProtocol`."""

    __slots__ = ("_data", "_front", "_since", "_timer", "wire")

    wire: Connection

    def __init__(self, front: Front, since: float) -> None:
        self._front = front
        self._data = b""
        self._since = since
        self._timer: Timer | None = None

    def wait(self, seconds: float) -> None:
        """Know within ``seconds`` what it is."""
        if seconds < inf:
            self._timer = self._front.timers.after(seconds, lambda _: self._hand_over(self._front.servers[0]))

    def secured(self, wire: TlsConnection) -> None:
        """The handshake has ended, one way or the other."""
        front = self._front
        front.shaken(not wire.fault)
        if wire.clear:
            wire.start(self)
            front.mistaken(wire, wire.first, _WANTS_TLS)
            return
        if wire.fault:
            front.gone(self)
            return
        server = front.agreed(wire.alpn)
        if server is None:
            wire.start(self)
            self.wait(front.servers[0].patience)
        else:
            self._hand_over(server)

    def received(self, data: bytes) -> None:
        """First bytes."""
        front, wire = self._front, self.wire
        data = self._data + data
        if not wire.secure and data[:1] == _HANDSHAKE:
            front.mistaken(wire, data, _WANTS_CLEAR)
            return
        server = front.choose(data)
        if server is not None:
            self._data = data
            self._hand_over(server)
            return
        self._data = data

    def _hand_over(self, server: Speaker) -> None:
        self._leave()
        server.adopt(self.wire, self._data, self._since)

    def _leave(self) -> None:
        self._front.gone(self)
        if self._timer is not None:
            self._timer.cancel()

    def hurry(self, seconds: float) -> None:
        """The listener is closing: say something soon, or never."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._front.timers.after(seconds, lambda _: self.wire.abort())

    def eof(self) -> None:
        """It had nothing to say."""
        self.wire.close()

    def writable(self) -> None:
        """Nothing waits for that."""

    def lost(self, why: str) -> None:
        """The connection is gone."""
        self._leave()
