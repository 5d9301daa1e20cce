"""Namers, addresses, and the system namers under ``/$/``.

A namer answers a path with a name tree whose leaves are bound names or further paths. Addresses of a bound name change on
their own, inside of it; the tree does not change with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import attrs

from dtab.activity import Activity, constant
from dtab.errors import DelegationError, DtabSyntaxError
from dtab.path import ROOT, Path
from dtab.pattern import PathPattern, java_split
from dtab.reader import read_path
from dtab.tree import EMPTY, FAIL, NEG, Leaf, NameTree


@attrs.frozen
class Endpoint:
    """One address: an IP address as text, a port, a weight for balancing, and what discovery says about it."""

    host: str
    port: int
    weight: float = 1.0
    meta: tuple[tuple[str, str], ...] = ()

    def show(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"


@attrs.frozen
class AddrPending:
    """The addresses are not known yet."""


@attrs.frozen
class AddrNeg:
    """There is no such set of addresses."""


@attrs.frozen
class AddrFailed:
    """The addresses could not be had."""

    cause: str


@attrs.frozen
class AddrBound:
    """A set of addresses, perhaps empty."""

    endpoints: frozenset[Endpoint] = frozenset()


Addr: TypeAlias = AddrPending | AddrNeg | AddrFailed | AddrBound


def union_addr(addrs: list[Addr]) -> Addr:
    """The addresses of several names together: those that are bound, else what all others agree on, else pending."""
    bound = [addr for addr in addrs if isinstance(addr, AddrBound)]
    if bound or not addrs:
        return AddrBound(frozenset().union(*[addr.endpoints for addr in bound]))
    first = addrs[0]
    same = isinstance(first, AddrNeg | AddrFailed) and all(type(addr) is type(first) for addr in addrs)
    return first if same else AddrPending()


@attrs.frozen
class Bound:
    """A bound name: where it was bound (``id``), what is left of the path, and the addresses over time.

    Equality is by id and residual. ``weight`` is that of the nearest union branch, or None.
    """

    id: Path
    addr: Activity[Addr] = attrs.field(eq=False, repr=False)
    residual: Path = ROOT
    weight: float | None = None

    def show(self) -> str:
        """The id's text."""
        return self.id.show()


Name: TypeAlias = Path | Bound
Answer: TypeAlias = Activity[NameTree[Any]]
Resolver = Callable[[str, int, bool], Activity[Addr]]
"""Addresses of (host, port); the last argument says whether to resolve once only (``fixedinet``)."""


class Namer(Protocol):
    """Answers what a path below the namer's prefix stands for: a tree of :class:`Bound` and paths, or Neg."""

    def lookup(self, path: Path) -> Answer:
        """The answer for ``path``, from which the namer's prefix was removed."""


def parse_port(text: bytes) -> int | None:
    """A signed 32-bit decimal as Java reads it, or None."""
    if not re.fullmatch(rb"[+-]?0*[0-9]{1,10}", text):
        return None
    value = int(text)
    return value if -(2**31) <= value < 2**31 else None


_HOST = re.compile(rb"[A-Za-z0-9.:_-]+").fullmatch
_METHOD = re.compile(rb"[A-Z]+").fullmatch
_PORT_LABEL = re.compile(rb"[a-z0-9][-a-z0-9]*[a-z0-9]?").fullmatch


def _plain(path: Path, wanted: Callable[[bytes], Any]) -> Path | None:
    return path.drop(1) if path and wanted(path[0]) else None


def _prefixed(path: Path, wanted: Callable[[bytes], Any]) -> Path | None:
    return path.take(1).join(path.drop(2)) if len(path) > 1 and wanted(path[1]) else None


def _subdomain(domain: bytes, host: bytes) -> bytes | None:
    if not _HOST(host):
        return None
    colon = host.find(b":")
    host = host[:colon] if colon > 0 else host
    sub = host[: -len(domain) - 1]
    return sub if sub and host.endswith(b"." + domain) else None


def _subdomain_of(path: Path) -> Path | None:
    sub = _subdomain(path[0], path[1]) if len(path) > 1 else None
    return None if sub is None else Path((sub,)).join(path.drop(2))


def _subdomain_of_prefix(path: Path) -> Path | None:
    sub = _subdomain(path[0], path[2]) if len(path) > 2 else None
    return None if sub is None else Path((path[1], sub)).join(path.drop(3))


def _reversed_labels(host: bytes) -> Path:
    return Path(reversed(java_split(host, b".")))


def _domain_to_path(path: Path) -> Path | None:
    return _reversed_labels(path[0]).join(path.drop(1)) if path and _HOST(path[0]) else None


def _domain_to_path_prefix(path: Path) -> Path | None:
    if len(path) < 2 or not _HOST(path[1]):
        return None
    return path.take(1).join(_reversed_labels(path[1])).join(path.drop(2))


def _host_port(path: Path, order: tuple[int, int]) -> Path | None:
    parts = java_split(path[1], b":") if len(path) > 1 else []
    if len(parts) != 2 or len(parts[1]) > 63 or not _PORT_LABEL(parts[1]):
        return None
    return Path((path[0], parts[order[0]], parts[order[1]])).join(path.drop(2))


REWRITES: dict[str, Callable[[Path], Path | None]] = {
    "io.buoyant.http.anyMethod": lambda path: _plain(path, _METHOD),
    "io.buoyant.http.anyMethodPfx": lambda path: _prefixed(path, _METHOD),
    "io.buoyant.http.anyHost": lambda path: _plain(path, _HOST),
    "io.buoyant.http.anyHostPfx": lambda path: _prefixed(path, _HOST),
    "io.buoyant.http.subdomainOf": _subdomain_of,
    "io.buoyant.http.subdomainOfPfx": _subdomain_of_prefix,
    "io.buoyant.http.domainToPath": _domain_to_path,
    "io.buoyant.http.domainToPathPfx": _domain_to_path_prefix,
    "io.buoyant.hostportPfx": lambda path: _host_port(path, (0, 1)),
    "io.buoyant.porthostPfx": lambda path: _host_port(path, (1, 0)),
}


def inet_name(path: Path) -> tuple[str, int, int] | None:
    """(host, port, elements used) of a path behind ``/$/inet``, or None: HOST/PORT before PORT alone."""
    if len(path) > 1 and (port := parse_port(path[1])) is not None:
        return path[0].decode("latin-1"), port, 2
    if path and (port := parse_port(path[0])) is not None:
        return "127.0.0.1", port, 1
    return None


class SystemNamers:
    """Everything under ``/$/``. ``loaded`` adds namers by class name; ``resolve`` finds addresses."""

    def __init__(self, resolve: Resolver, loaded: dict[str, Namer] | None = None) -> None:
        self.resolve = resolve
        self._loaded = loaded or {}

    def lookup(self, path: Path) -> Answer | None:
        """The answer for a whole path that begins with ``/$/``; None where there is nothing to ask (Neg)."""
        if len(path) < 2 or path[0] != b"$":
            return None
        kind, rest = path[1].decode("latin-1"), path.drop(2)
        if kind in ("inet", "fixedinet") and (name := inet_name(rest)) is not None:
            host, port, used = name
            return self._bound(path, 2 + used, host, port, fixed=kind == "fixedinet")
        if kind == "fail":
            return constant(FAIL)
        if kind == "nil":
            return constant(EMPTY)
        if kind == "io.buoyant.rinet":
            return self._rinet(path)
        if kind in REWRITES:
            return constant(self._rewritten(kind, rest))
        if kind in self._loaded:
            return self._loaded[kind].lookup(rest)
        raise DelegationError("unknown_namer", f"Unknown namer: {kind} for path: {path.show()}")

    def _bound(self, path: Path, used: int, host: str, port: int, *, fixed: bool) -> Answer:
        if not 0 <= port <= 65535:
            addr: Activity[Addr] = constant(AddrFailed(f"port {port} is out of range"))
        else:
            addr = self.resolve(host, port, fixed)
        return constant(Leaf(Bound(path.take(used), addr, path.drop(used))))

    def _rinet(self, path: Path) -> Answer:
        if len(path) < 4:
            return constant(NEG)
        port = parse_port(path[2])
        return self._bound(path, 4, path[3].decode("latin-1"), -1 if port is None else port, fixed=False)

    def _rewritten(self, kind: str, rest: Path) -> NameTree[Path]:
        try:
            result = REWRITES[kind](rest)
        except ValueError as error:
            raise DelegationError("rewrite_error", f"{kind} cannot rewrite {rest.show()}: {error}") from None
        return NEG if result is None else Leaf(result)


class RewritingNamer:
    """``io.l5d.rewrite``: a pattern with captures, and the name that it becomes. The unmatched tail is dropped."""

    def __init__(self, pattern: PathPattern, name: str) -> None:
        self.pattern = pattern
        self.name = name

    def lookup(self, path: Path) -> Answer:
        found = self.pattern.match(path)
        if found is None:
            return constant(NEG)
        text = self.pattern.substitute(found, self.name)
        try:
            return constant(Leaf(read_path(text)))
        except DtabSyntaxError as error:
            raise DelegationError("rewrite_error", f"rewriting {path.show()} gives no path: {error}") from None
