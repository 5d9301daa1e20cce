"""The PROXY protocol, versions 1 and 2: a load balancer says whose connection it is that it passes on.

Source: the specification of HAProxy's authors, "The PROXY protocol, versions 1 & 2" (2020).

Theory of operation

1. The header is the first thing that a connection says, before TLS. It is looked at with ``MSG_PEEK`` and taken off the socket
   exactly, so that whoever comes next finds a connection that begins where its client began. What belongs to the header for
   certain is taken at once: an incomplete header makes nobody spin.
2. A listener that wants it gets it: a connection that begins otherwise is closed, without an answer, since it may be that of
   somebody who found a way around the load balancer. Bounds: ``MAX_HEADER`` bytes, and the time that the server gives a head.
3. ``LOCAL`` (version 2: the load balancer's own health checks) and ``UNKNOWN`` (version 1), and families other than IP, name
   nobody: the connection keeps the addresses that it has.
4. What version 2 can say beyond addresses (TLVs) is passed over.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from math import inf
from typing import Any

from protocols.wire.guard import TELL_EVERY
from protocols.wire.poller import Poller
from router.model.ends import Address, Ends, show
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.timers import Timer, Timers

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MAX_V1 = 107
MAX_HEADER = 4096
_V1 = b"PROXY "
_IP: dict[bytes | int, type[IPv4Address | IPv6Address]] = {
    b"TCP4": IPv4Address, b"TCP6": IPv6Address, 0x11: IPv4Address, 0x21: IPv6Address,
}  # fmt: skip
_SIZES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}  # by family and transport: unspecified, and TCP over IPv4, IPv6, Unix


class ProxyFault(Exception):  # noqa: N818 - the field's word
    """No header, or a malformed one; the text says what."""


def header_size(data: bytes) -> int | None:
    """How long the header is that ``data`` begins with; None while it is not complete. Raises :class:`ProxyFault`."""
    if _V1.startswith(data[:6]):
        at = data.find(b"\r\n", 0, MAX_V1)
        if at < 0 and len(data) >= MAX_V1:
            raise ProxyFault(f"a first line of more than {MAX_V1} bytes")
        return None if at < 0 else at + 2
    if not SIGNATURE.startswith(data[:12]):
        raise ProxyFault("it does not begin with a PROXY header")
    if len(data) < 16:
        return None
    size = 16 + int.from_bytes(data[14:16])
    if size > MAX_HEADER:
        raise ProxyFault(f"a header of {size} bytes, more than {MAX_HEADER}")
    return size if len(data) >= size else None


def parse(header: bytes) -> Ends | None:
    """What a complete header says; None where it names nobody. Raises :class:`ProxyFault`."""
    return _parse_v1(header) if header[:6] == _V1 else _parse_v2(header)


def _parse_v1(header: bytes) -> Ends | None:
    words = header[:-2].split(b" ")
    if words[1] == b"UNKNOWN":
        return None
    kind = _IP.get(words[1])
    if kind is None or len(words) != 6:
        raise ProxyFault(f"a malformed first line: {header[:-2]!r}")
    try:
        hosts = [kind(word.decode("ascii")) for word in words[2:4]]
    except ValueError:
        raise ProxyFault(f"no {words[1].decode()} addresses: {header[:-2]!r}") from None
    return Ends(_address(hosts[0], _port(words[4])), _address(hosts[1], _port(words[5])))


def _address(host: IPv4Address | IPv6Address, port: int) -> Address:
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return str(mapped or host).partition("%")[0], port


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[:1] == b"0" and word != b"0") or int(word) > 65535:
        raise ProxyFault(f"no port: {word!r}")
    return int(word)


def _parse_v2(header: bytes) -> Ends | None:
    version, command, family = header[12] >> 4, header[12] & 15, header[13]
    if version != 2 or command > 1:
        raise ProxyFault(f"version {version} with command {command}")
    if command == 0:
        return None
    wanted = _SIZES.get(family)
    if wanted is None:
        raise ProxyFault(f"an address family and transport that no server here has: {family:#04x}")
    if len(header) - 16 < wanted:
        raise ProxyFault(f"{len(header) - 16} bytes for addresses that have {wanted}")
    kind = _IP.get(family)
    if kind is None:
        return None
    size = 4 if kind is IPv4Address else 16
    hosts = [kind(header[16 + at * size : 16 + (at + 1) * size]) for at in (0, 1)]
    ports = [int.from_bytes(header[16 + 2 * size + at : 18 + 2 * size + at]) for at in (0, 2)]
    return Ends(_address(hosts[0], ports[0]), _address(hosts[1], ports[1]))


class ProxyProtocol:
    """The headers of one listener's connections: what was refused is counted (``proxy_protocol/refused``), and told as an
    event (``proxy_protocol_refused``) once in ``TELL_EVERY`` seconds."""

    __slots__ = ("_host", "_poller", "_refused", "_told", "_told_of", "_where")

    def __init__(self, host: Host, poller: Poller, metrics: Metrics, where: str) -> None:
        self._host = host
        self._poller = poller
        self._where = where
        self._refused = metrics.scope("proxy_protocol").counter("refused")
        self._told = -inf
        self._told_of = 0

    def await_header(self, sock: socket.socket, ends: Ends, patience: float, done: Done) -> Prologue:
        """Wait for the header of a new connection for ``patience`` seconds; ``ends``: what is known of it."""
        return Prologue(self, self._poller, self._host.timers, sock, ends, patience, done)

    def refused(self, ends: Ends, why: str) -> None:
        """A connection was closed."""
        self._refused.value += 1
        now = self._host.timers.now()
        if now - self._told >= TELL_EVERY:
            times = self._refused.value - self._told_of
            self._told, self._told_of = now, self._refused.value
            peer = show(ends.client)
            self._host.events.warn("proxy_protocol_refused", server=self._where, peer=peer, why=why, times=times)


class Prologue:
    """A connection whose header is not complete yet: a :class:`protocols.wire.poller.Pollable`."""

    __slots__ = ("_data", "_done", "_ends", "_over", "_poller", "_proxy", "_sock", "_timer", "_timers")

    def __init__(
        self,
        proxy: ProxyProtocol,
        poller: Poller,
        timers: Timers,
        sock: socket.socket,
        ends: Ends,
        patience: float,
        done: Done,
    ) -> None:
        self._sock = sock
        self._proxy = proxy
        self._poller = poller
        self._timers = timers
        self._ends = ends
        self._data = b""
        self._over = False
        self._done = done
        self._timer: Timer | None = timers.after(patience, self._late) if patience < inf else None
        poller.register(sock.fileno(), self)

    def on_readable(self) -> None:
        """Take what is the header's, and nothing else; called by the poller."""
        try:
            header = self._take()
            ends = None if header is None else parse(header) or self._ends
        except (OSError, ProxyFault) as error:
            self._refuse(str(error))
            return
        if ends is not None:
            self._leave()
            self._done(self, ends)

    def _take(self) -> bytes | None:
        """The header, when it is complete."""
        try:
            seen = self._sock.recv(MAX_HEADER - len(self._data), socket.MSG_PEEK)
        except BlockingIOError:
            return None
        if not seen:
            raise ProxyFault("its end instead of a PROXY header" if not self._data else "an incomplete header")
        size = header_size(self._data + seen)
        self._data += self._sock.recv(len(seen) if size is None else size - len(self._data))
        return None if size is None else self._data

    def hurry(self, seconds: float) -> None:
        """The listener is closing: say something soon, or never."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timers.after(seconds, self._late)

    def _late(self, _: Any) -> None:
        self._refuse("no complete header in time")

    def _leave(self) -> None:
        self._over = True
        self._poller.unregister(self._sock.fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, why: str) -> None:
        self._proxy.refused(self._ends, why)
        self.abort()

    def abort(self) -> None:
        """Close without a word."""
        if not self._over:
            self._leave()
            self._sock.close()
            self._done(self, None)

    def on_writable(self) -> None:
        """Never asked for."""

    def on_again(self) -> None:
        """Never asked for."""

    def flush(self) -> None:
        """Nothing is ever written here."""


Done = Callable[[Prologue, "Ends | None"], None]
"""Called once: with the ends of a connection whose header was taken off its socket, or None when it was closed."""
