"""Explanations for the command line, from the evaluator that routes."""

from __future__ import annotations

import json
from typing import Any

import trio

from dtab import (
    Activity,
    Addr,
    AddrBound,
    AddrPending,
    Bound,
    Computed,
    Delegator,
    Dtab,
    Ok,
    SystemNamers,
    read_dtab,
    read_path,
)
from dtab.activity import Pending, Track
from dtab.delegation import Evaluation
from dtab.explain import Node, explain, to_json, unmatched
from dtab.path import Path
from dtab.tree import Leaf, show
from router.app import make_namers
from router.config.schema import Config, Router
from router.model.host import Host
from router.model.metrics import Metrics
from router.namers.inet import InetResolver

WAIT = 2.0


def choose(config: Config, label: str | None) -> Router:
    """The router of that label, or the first. Raises LookupError with the labels there are."""
    for router in config.routers:
        if label in (None, router.label):
            return router
    labels = ", ".join(repr(router.label) for router in config.routers)
    raise LookupError(f"no router has the label {label!r}; there are {labels}")


async def explain_text(name: str, config: Config, path: str, local: str, label: str | None, as_json: bool) -> str:
    """The delegation tree of ``path``, as text or JSON."""
    router = choose(config, label)
    override = read_dtab(local)
    table = router.base.dtab + override
    target = read_path(path)
    async with trio.open_nursery() as nursery:
        host = Host(nursery)
        system, namers = make_namers(config, host, Metrics())
        delegator = Delegator(system, namers)
        node, addrs, bound = await settled(delegator, table, target)
        nursery.cancel_scope.cancel()
    if as_json:
        return json.dumps(to_json(node, lambda one: addrs.get(one.id, AddrPending())), indent=2)
    lines = [f"{target.show()} in router {router.label!r} ({name})", ""]
    lines += _lines(node, 0, name, len(router.base.dtab), table, addrs)
    lines += ["", f"bound to: {bound}"]
    missed = unmatched(table, target)
    if missed:
        lines += ["", f"dentries that did not match {target.show()}:"]
        lines += [f"  {_where(dentry, name, table, len(router.base.dtab))}  {dentry.show()}  ({why})" for dentry, why in missed]
    return "\n".join(lines)


async def settled(delegator: Delegator, table: Dtab, path: Path) -> tuple[Node, dict[Path, Addr], str]:
    """Observe until nothing is pending, at most ``WAIT`` seconds; then explain what is known."""
    answers: dict[Path, list[Any]] = {}
    found: dict[str, Any] = {}
    changed = trio.Event()

    def compute(track: Track) -> Ok[int]:
        pending = False

        def noting(activity: Activity[Any]) -> Any:
            nonlocal pending
            state = track(activity)
            pending = pending or isinstance(state, Pending)
            return state

        evaluation: Evaluation = delegator.evaluation(table, noting, answers)
        node = explain(evaluation, path)
        found["node"], found["bound"] = node, delegator.evaluation(table, noting, answers)
        addrs: dict[Path, Addr] = {}
        for bound in _bounds(node):
            state = noting(bound.addr)
            addrs[bound.id] = state.value if isinstance(state, Ok) else AddrPending()
        found["addrs"], found["pending"] = addrs, pending
        found["tree"] = found["bound"].bind(Leaf(path))
        found["serial"] = found.get("serial", 0) + 1
        changed.set()
        return Ok(found["serial"])

    observed = Computed(compute)
    observation = observed.observe(lambda state: None)
    if "node" not in found:
        state = observed.state
        observation.close()
        raise state.error  # type: ignore[union-attr]
    with trio.move_on_after(WAIT):
        while found["pending"]:
            changed = trio.Event()
            await changed.wait()
    observation.close()
    tree = found["tree"]
    text = show(tree.value) if isinstance(tree, Ok) else type(tree).__name__.lower()
    error = getattr(tree, "error", None)
    return found["node"], found["addrs"], text if error is None else f"failed: {error}"


def _bounds(node: Node) -> list[Bound]:
    found = [node.bound] if node.bound is not None else []
    for _, part in node.parts:
        found += _bounds(part)
    return found


def _where(dentry: Any, name: str, table: Dtab, base: int) -> str:
    """Where a dentry was written: the file's line, or the override."""
    at = next((at for at, other in enumerate(table) if other is dentry), 0)
    return f"{name}:{dentry.line}" if at < base else f"--dtab:{dentry.line}"


def _lines(node: Node, depth: int, name: str, base: int, table: Dtab, addrs: dict[Path, Addr]) -> list[str]:
    """A node a line, indented, with the rule that led to it."""
    rule = ""
    if node.dentry is not None:
        rule = f"   by {node.dentry.show()}  ({_where(node.dentry, name, table, base)})"
    text = {"delegate": "", "alt": "  first of:", "union": "  share of:", "neg": "  no such name", "fail": "  fail",
            "empty": "  no endpoints"}.get(node.kind, "")  # fmt: skip
    if node.kind == "exception":
        text = f"  error: {node.note}"
    if node.bound is not None:
        text = f"  bound {node.bound.id.show()}{_endpoints(addrs.get(node.bound.id))}"
        if node.bound.residual:
            text += f" residual {node.bound.residual.show()}"
    lines = [f"{'  ' * depth}{node.path}{text}{rule}"]
    seen: set[str] = set()
    for weight, part in node.parts:
        inner = _lines(part, depth + 1, name, base, table, addrs)
        if node.kind == "union":
            inner[0] = f"{'  ' * (depth + 1)}{weight:g} * {inner[0].lstrip()}"
        elif (shown := "\n".join(inner)) in seen:
            continue
        else:
            seen.add(shown)
        lines += inner
    if seen and len(seen) < len(node.parts):
        lines.append(f"{'  ' * (depth + 1)}({len(node.parts) - len(seen)} more that are the same as these)")
    return lines


def _endpoints(addr: Addr | None) -> str:
    if not isinstance(addr, AddrBound):
        return "" if addr is None else f" ({type(addr).__name__[4:].lower()})"
    return " at " + (", ".join(sorted(endpoint.show() for endpoint in addr.endpoints)) or "no endpoints")


async def evaluate_text(table: Dtab, path: str) -> str:
    """What a path is bound to, with the system namers only."""
    target = read_path(path)
    async with trio.open_nursery() as nursery:
        delegator = Delegator(SystemNamers(InetResolver(Host(nursery))))
        state = delegator.bind(table, target).sample()
        nursery.cancel_scope.cancel()
    if isinstance(state, Ok):
        return show(state.value)
    error = getattr(state, "error", None)
    if isinstance(error, Exception):
        raise error
    return "pending"
