"""What is done to bound names before they are used (Linkerd's transformers), as functions over names and addresses.

Each puts ``/%/`` and its own prefix in front of the id, so that the name tells what was done to it, and keeps the residual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, ip_address

import attrs

from dtab import Addr, AddrBound, AddrNeg, Bound, Endpoint, NameTree, Ok, Path
from dtab.activity import Computed, Track
from dtab.tree import bind_leaves, map_leaves

MARK = b"%"
Change = Callable[[Addr], Addr]


def strip_prefix(path: Path) -> Path:
    """The path of the namer: without everything that transformers put in front of it."""
    if not path or path[0] != MARK:
        return path
    for at, element in enumerate(path):
        if element in (b"#", b"$"):
            return path.drop(at)
    return path


def is_local(mask: str, a: str, b: str) -> bool:
    """Whether two IPv4 addresses are in the same network."""
    bits = int(IPv4Address(mask))
    return int(IPv4Address(a)) & bits == int(IPv4Address(b)) & bits


def transform_bound(bound: Bound, prefix: Path, change: Change) -> Bound:
    """A bound name whose addresses are changed, now and later."""

    def compute(track: Track) -> Ok[Addr]:
        state = track(bound.addr)
        return Ok(change(state.value)) if isinstance(state, Ok) else state  # type: ignore[return-value]

    return attrs.evolve(bound, id=Path((MARK,)).join(prefix).join(bound.id) if prefix else bound.id, addr=Computed(compute))


def port(number: int) -> Change:
    """Set the port of each address."""

    def change(addr: Addr) -> Addr:
        if not isinstance(addr, AddrBound):
            return addr
        return AddrBound(frozenset([attrs.evolve(endpoint, port=number) for endpoint in addr.endpoints]))

    return change


def subnet_local(local: Iterable[str], mask: str) -> Change:
    """Keep the addresses that share a network with a local one; with none left the name is negative."""
    here = list(local)

    def change(addr: Addr) -> Addr:
        if not isinstance(addr, AddrBound):
            return addr
        kept = [end for end in addr.endpoints if not _is_ipv4(end.host) or any(is_local(mask, end.host, ip) for ip in here)]
        return AddrBound(frozenset(kept)) if kept else AddrNeg()

    return change


def subnet_gateway(gateways: Iterable[Endpoint], mask: str) -> Change:
    """Replace each address by the gateways of its network; with none left the name is negative."""
    known = list(gateways)

    def change(addr: Addr) -> Addr:
        if not isinstance(addr, AddrBound):
            return addr
        hosts = [end.host for end in addr.endpoints if _is_ipv4(end.host)]
        kept = [gate for gate in known if any(is_local(mask, gate.host, host) for host in hosts)]
        return AddrBound(frozenset(kept)) if kept else AddrNeg()

    return change


def replace(tree: NameTree[Bound], fixed: NameTree[Bound]) -> NameTree[Bound]:
    """Every leaf becomes the tree of a fixed name; other nodes stay."""
    marked = _marked(fixed, Path.of("io.l5d.replace"))
    return bind_leaves(tree, lambda _: marked)


def const(fixed: NameTree[Bound]) -> NameTree[Bound]:
    """The tree of a fixed name, whatever there was."""
    return _marked(fixed, Path.of("io.l5d.const"))


def _marked(tree: NameTree[Bound], prefix: Path) -> NameTree[Bound]:
    start = Path((MARK,)).join(prefix)
    return map_leaves(tree, lambda bound: attrs.evolve(bound, id=start.join(bound.id)))


def _is_ipv4(host: str) -> bool:
    try:
        return ip_address(host).version == 4
    except ValueError:
        return False
