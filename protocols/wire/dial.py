"""Connections to endpoints, in clear or with TLS that has shaken hands: what protocols' clients begin with."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import trio

from protocols.wire.connection import Connection
from protocols.wire.listener import connect
from protocols.wire.poller import Poller
from protocols.wire.tls import Context, TlsConnection
from router.model.failure import Blame, Failure, Kind
from router.model.timers import Timers


class Secure:
    """How endpoints are reached with TLS.

    ``name``: whom their certificates must be for, and SNI; with ``verify`` off only the latter, if it is not empty.
    ``alpn``: what is offered. ``refused(address, why)`` hears of certificates that were not accepted.
    """

    __slots__ = ("alpn", "context", "name", "refused", "verify")

    def __init__(
        self, context: Context, name: str, alpn: str, refused: Callable[[str, str], None], *, verify: bool = True
    ) -> None:
        self.context = context
        self.name = name
        self.alpn = alpn
        self.refused = refused
        self.verify = verify

    def connecting(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """The client's side of a connection. Raises ValueError for a name that cannot be one."""
        return self.context.current.wrap_bio(incoming, outgoing, server_hostname=self.name or None)


async def dial(
    poller: Poller, timers: Timers, host: str, port: int, secure: Secure | None, *, insist: bool = False
) -> Connection:
    """Connect to an IP address; with TLS, up to the end of the handshake. The caller starts the connection.

    ``insist``: ALPN must have agreed on what was offered. Runs in a trio task, whose owner sets the time limit. Raises
    OSError, or a :class:`Failure` that tells what TLS did not like.
    """
    sock = await connect(host, port)
    if secure is None:
        return Connection(poller, timers, sock)
    over = trio.Event()
    try:
        wire = TlsConnection(poller, timers, sock, secure.connecting, lambda _: over.set())
    except ValueError as error:
        sock.close()
        raise _fault(f"{secure.name!r} cannot be the name of a server (commonName): {error}") from None
    wire.begin()
    try:
        await over.wait()
    except trio.Cancelled:
        wire.abort()
        raise
    if wire.fault:
        wire.close()
        raise _fault(_explained(wire, secure, f"{host}:{port}"))
    if insist and wire.alpn != secure.alpn:
        wire.close()
        chosen = f"chose {wire.alpn}" if wire.alpn else "takes no part in ALPN"
        raise _fault(f"the endpoint does not agree to {secure.alpn} by ALPN: it {chosen}")
    return wire


def _explained(wire: TlsConnection, secure: Secure, address: str) -> str:
    """What went wrong, and with whom."""
    if wire.clear:
        return f"{address} does not speak TLS: its first bytes were {wire.first[:32]!r}"
    if wire.rejected is None:
        return wire.fault
    why = f"TLS to {address}, expected to be {secure.name!r}: {wire.fault}"
    secure.refused(address, why)
    return why


def _fault(why: str) -> Failure:
    return Failure(Kind.CONNECT, why, Blame.UPSTREAM)
