"""Linkerd's ``addForwardedHeader``: whose request it was, in a field of its own behind those that came (RFC 7239).

``by`` and ``for`` are labelled by kinds: ``ip`` and ``ip:port`` tell the address; the others are obfuscated identifiers (§6.3),
which begin with an underscore: random ones per request or connection, the router's label, or a given one. An address that is
not known is ``unknown`` (§6.2). A request over HTTP/1 tells its ``host``, one over HTTP/2 its ``authority``, as with Linkerd;
values that are no tokens are quoted, which Linkerd forgets.

What is constant over a connection is written once for it, and once per shared head.
"""

from __future__ import annotations

import re
from random import getrandbits

import attrs

from router.model.ends import Address, Ends, show
from router.model.exchange import Exchange
from router.model.headers import Field, RequestHead
from router.model.service import Service

NAME = b"forwarded"
KINDS = ("ip", "ip:port", "connectionRandom", "requestRandom", "router", "static")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_LABELS = re.compile(r"[^A-Za-z0-9._-]")


@attrs.frozen
class Label:
    """How one side is told: one of :data:`KINDS`; ``text`` of ``router`` and ``static``."""

    kind: str = "requestRandom"
    text: str = ""

    def show(self, known: Address | None) -> bytes:
        """A value of ``by`` or ``for`` (RFC 7239 §6)."""
        if self.kind in ("router", "static"):
            return b"_" + _NOT_IN_LABELS.sub("_", self.text).encode()
        if self.kind not in ("ip", "ip:port"):
            return b"_%012x" % getrandbits(48)
        if known is None:
            return b"unknown"
        host = f"[{known[0]}]" if ":" in known[0] else known[0]
        return _quoted((host if self.kind == "ip" else show(known)).encode())


@attrs.frozen
class ForwardedConfig:
    """The two sides: ourselves (``by``) and who sent the request (``sender``: ``for``)."""

    by: Label = Label()
    sender: Label = Label()

    def show(self, ends: Ends) -> bytes:
        """The first half of the field."""
        return b"by=%b;for=%b" % (self.by.show(ends.server), self.sender.show(ends.client))


def forwarded(config: ForwardedConfig | None, next_service: Service) -> Service:
    """Add the field to every request."""
    if config is None:
        return next_service
    constant = "requestRandom" not in (config.by.kind, config.sender.kind)

    async def forwarded_service(exchange: Exchange) -> None:
        head, ends = exchange.request, exchange.reply.ends
        if not constant:
            exchange.request = head.with_fields((*head.fields, _field(config.show(ends), head)))
            exchange.request.shared = False
        else:
            exchange.request = _of_connection(config, ends, head)
        await next_service(exchange)

    return forwarded_service


def _of_connection(config: ForwardedConfig, ends: Ends, head: RequestHead) -> RequestHead:
    """The head with the field; a connection's shared heads are its own."""
    cached = head.forwarded
    if cached is not None and cached[0] is ends:
        known: RequestHead = cached[1]
        return known
    told = ends.forwarded
    if told is None:
        told = ends.forwarded = config.show(ends)
    sent = head.with_fields((*head.fields, _field(told, head)))
    if head.shared:
        head.forwarded = (ends, sent)
    return sent


def _field(told: bytes, head: RequestHead) -> Field:
    name = b"authority" if head.version >= (2, 0) else b"host"
    host = b";%b=%b" % (name, _quoted(head.authority)) if head.authority else b""
    return NAME, b"%b%b;proto=%b" % (told, host, head.scheme)


def _quoted(value: bytes) -> bytes:
    """A token as it is, anything else as a quoted string (RFC 9110 §5.6.4)."""
    if _TOKEN.fullmatch(value):
        return value
    return b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
