"""Addresses of ``/$/inet``: literals at once, names by the system's resolver, again and again while they are used.

A failed look-up never takes known addresses away; balancers keep them. Bound: one task per name that is observed.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

import trio

from dtab import Activity, Addr, AddrBound, AddrFailed, Endpoint, Ok, Source, constant
from router.model.host import Host

log = logging.getLogger("waypost.namer.inet")

REFRESH = 10.0


def literal(host: str) -> str | None:
    """The canonical form of an IP address, also short IPv4 such as ``127.1``; None for a name."""
    if ":" in host:
        try:
            return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host))
        except OSError:
            return None
    if not host.replace(".", "").isdigit():
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


class InetResolver:
    """A :data:`dtab.namer.Resolver` on trio. One activity per (host, port), started when first observed."""

    def __init__(self, host: Host, refresh: float = REFRESH) -> None:
        self._host = host
        self._refresh = refresh

    def __call__(self, name: str, port: int, fixed: bool) -> Activity[Addr]:
        """The addresses of ``name``; ``fixed`` resolves once."""
        ip = literal(name)
        if ip is not None:
            return constant(AddrBound(frozenset([Endpoint(ip, port)])))
        return self._watch(name, port, fixed)

    def _watch(self, name: str, port: int, fixed: bool) -> Activity[Addr]:
        scopes: list[trio.CancelScope] = []

        def start() -> None:
            scope = trio.CancelScope()
            scopes.append(scope)
            self._host.nursery.start_soon(self._resolve, scope, source, name, port, fixed)

        def stop() -> None:
            scopes.pop().cancel()

        source: Source[Addr] = Source(start=start, stop=stop)
        return source

    async def _resolve(self, scope: trio.CancelScope, source: Source[Addr], name: str, port: int, fixed: bool) -> None:
        with scope:
            while True:
                addr = await look_up(name, port)
                if isinstance(addr, AddrFailed):
                    log.warning("cannot resolve %s: %s; known addresses stay in use", name, addr.cause)
                source.set(Ok(addr))
                if fixed and isinstance(addr, AddrBound):
                    return
                await trio.sleep(self._refresh)


async def look_up(name: str, port: int) -> Addr:
    """Ask the system's resolver once."""
    try:
        found: list[Any] = await trio.socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return AddrFailed(f"{name}: {error.strerror or error}")
    return AddrBound(frozenset([Endpoint(str(address[0]), port) for *_, address in found]))
