"""Addresses of ``/$/inet``: literals at once, names by the system's resolver, again and again while they are used.

Theory of operation

1. A name is looked up when somebody first observes it, and every ``REFRESH`` seconds while it is observed; the system's
   resolver does not tell for how long its answer is good. ``fixedinet`` ends with the first answer.
2. Several ports of a name share one look-up. Look-ups run in threads, at most ``LOOKUPS`` at a time.
3. A failed look-up is repeated after 1, 2, 4, ... seconds, at most ``REFRESH``. It never takes known addresses away:
   discovery advises. A name that was never resolved has an address state that says why.
4. Bound: one task per name that is observed, hence by the binding caches.
"""

from __future__ import annotations

import ipaddress
import socket

import trio

from dtab import Activity, Addr, AddrBound, AddrFailed, Computed, Endpoint, Ok, Source, State, constant
from dtab.activity import Track
from router.model.host import Host
from router.spi import Watched

REFRESH = 10.0
FIRST_RETRY = 1.0
LOOKUPS = 16


def literal(host: str) -> str | None:
    """The canonical form of an IP address, also short IPv4 such as ``127.1``; None for a name."""
    try:
        socket.inet_pton(socket.AF_INET, host)  # the canonical form only, at a twentieth of the price of ipaddress
        return host
    except (OSError, ValueError):
        pass
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not (host.isascii() and host.replace(".", "").isdigit()):
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


class InetResolver:
    """A :data:`dtab.namer.Resolver` on trio. Look-ups run as tasks of the host's nursery."""

    def __init__(self, host: Host, refresh: float = REFRESH) -> None:
        self.host = host
        self.refresh = refresh
        self.limit = trio.CapacityLimiter(LOOKUPS)
        self._names: dict[tuple[str, bool], _Name] = {}

    def __call__(self, name: str, port: int, fixed: bool) -> Activity[Addr]:
        """The addresses of ``name``; ``fixed`` resolves once."""
        ip = literal(name)
        if ip is not None:
            return constant(AddrBound(frozenset([Endpoint(ip, port)])))

        def compute(track: Track) -> State[Addr]:
            state: State[frozenset[str] | AddrFailed] = track(self._name(name, fixed).found)
            if not isinstance(state, Ok):
                return state
            if isinstance(state.value, AddrFailed):
                return Ok(state.value)
            return Ok(AddrBound(frozenset([Endpoint(ip, port) for ip in state.value])))

        return Computed(compute)

    def watched(self) -> list[Watched]:
        """The names that are looked up now; see :class:`router.spi.Watching`."""
        return [name.watched() for name in list(self._names.values())]

    def _name(self, name: str, fixed: bool) -> _Name:
        return self._names.get((name, fixed)) or _Name(self, self._names, name, fixed)


class _Name:
    """The look-ups of one name; among ``names`` while it is observed."""

    def __init__(self, resolver: InetResolver, names: dict[tuple[str, bool], _Name], name: str, fixed: bool) -> None:
        self._resolver = resolver
        self._names = names
        self._name = name
        self._fixed = fixed
        self._scope = trio.CancelScope()
        self._since = self._error_at = 0.0
        self._error = ""
        self.found: Source[frozenset[str] | AddrFailed] = Source(start=self._start, stop=self._stop)

    def _start(self) -> None:
        self._names.setdefault((self._name, self._fixed), self)
        self._scope = trio.CancelScope()
        self._since = self._now()
        self._resolver.host.nursery.start_soon(self._run, self._scope)

    def _stop(self) -> None:
        self._scope.cancel()
        if self._names.get((self._name, self._fixed)) is self:
            del self._names[self._name, self._fixed]

    async def _run(self, scope: trio.CancelScope) -> None:
        retry = FIRST_RETRY
        with scope:
            while True:
                found = await look_up(self._name, self._resolver.limit)
                if not isinstance(found, AddrFailed):
                    self._succeeded(found, again=retry != FIRST_RETRY)
                    if self._fixed:
                        return
                    retry = FIRST_RETRY
                    await trio.sleep(self._resolver.refresh)
                    continue
                self._failed(found, first=retry == FIRST_RETRY)
                await trio.sleep(min(retry, self._resolver.refresh))
                retry = min(2 * retry, self._resolver.refresh)

    def _succeeded(self, found: frozenset[str], *, again: bool) -> None:
        if again and isinstance(self.found.state, Ok) and not isinstance(self.found.state.value, AddrFailed):
            self._resolver.host.events.emit("namer_dns_recovered", name=self._name)
        self._set(Ok(found))

    def _failed(self, failure: AddrFailed, *, first: bool) -> None:
        """Known addresses stay. Logged is the loss of a name that worked; clients can make up any number of others."""
        self._error, self._error_at = failure.cause, self._now()
        if not isinstance(self.found.state, Ok) or isinstance(self.found.state.value, AddrFailed):
            self._set(Ok(failure))
        elif first:
            self._resolver.host.events.warn("namer_dns_failed", name=self._name, cause=failure.cause, addresses="stay in use")

    def _set(self, state: State[frozenset[str] | AddrFailed]) -> None:
        if state != self.found.state:
            self._since = self._now()
        self.found.set(state)

    def _now(self) -> float:
        return self._resolver.host.wall_ns() / 1e9

    def watched(self) -> Watched:
        """What is known, for people; ports are not part of it."""
        state, source = self.found.state, "the system's resolver, once" if self._fixed else "the system's resolver"
        known: Addr | None = None
        if isinstance(state, Ok):
            found = state.value
            known = found if isinstance(found, AddrFailed) else AddrBound(frozenset([Endpoint(ip, 0) for ip in found]))
        word = "pending" if known is None else "bound" if isinstance(known, AddrBound) else "failed"
        return Watched("/" + self._name, source, word, self._since, self._error, self._error_at, known)


async def look_up(name: str, limit: trio.CapacityLimiter) -> frozenset[str] | AddrFailed:
    """Ask the system's resolver once for the IP addresses of ``name``."""
    try:
        async with limit:
            found = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return AddrFailed(f"cannot resolve {name}: {error.strerror or error}")
    except ValueError:  # what Python cannot encode as a host name: an empty label, a label of more than 63 bytes
        return AddrFailed(f"cannot resolve {name}: not a host name")
    return frozenset([str(address[0]) for *_, address in found])
