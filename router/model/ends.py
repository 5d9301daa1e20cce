"""The two ends of a client's connection: made once for each, looked at by whoever needs an address."""

from __future__ import annotations

from typing import Any

Address = tuple[str, int]
"""IP address and port."""


class Ends:
    """``client`` and ``server``: the addresses of both sides; None where there is none (another family, or a load balancer that
    does not say). Behind a load balancer that speaks the PROXY protocol they are those that its header names.

    ``forwarded`` is room for :mod:`router.filters.forwarded`; ``text`` for the client's address as text, once somebody has
    asked the connection for it.
    """

    __slots__ = ("client", "forwarded", "server", "text")

    def __init__(self, client: Address | None = None, server: Address | None = None) -> None:
        self.client = client
        self.server = server
        self.forwarded: bytes | None = None
        self.text = ""


def address(name: Any) -> Address | None:
    """The address in what ``accept`` and ``getsockname`` return: without an IPv6 scope, IPv4 as such where it is mapped."""
    if not isinstance(name, tuple):
        return None
    host, port = name[:2]
    if ":" in host:
        host = host.partition("%")[0]
        if host.startswith("::ffff:") and "." in host:
            host = host.removeprefix("::ffff:")
    return host, port


def show(known: Address | None) -> str:
    """``1.2.3.4:80`` or ``[::1]:80``; ``?`` where it is not known."""
    if known is None:
        return "?"
    host, port = known
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
