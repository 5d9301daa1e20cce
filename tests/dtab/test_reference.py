"""Binding against a plain reading of the rules: no sharing, no bounds, no changes over time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import dtab as d
from dtab.delegation import Delegator
from dtab.namer import AddrBound, Bound, SystemNamers
from dtab.path import Path
from dtab.tree import NEG, Alt, Leaf, Union, Weighted, map_leaves, simplify

DEPTH = 4
TOO_DEEP = f"Max recursion level: {DEPTH} reached in Namer lookup"
NAMERS = [("/#/set", "set"), ("/#/down", "failed"), ("/#/slow", "pending"), ("/#/tree", "tree"), ("/#/down", "set")]
SYSTEM = SystemNamers(lambda host, port, fixed: d.constant(AddrBound()))

names = st.sampled_from(
    [
        "/a",
        "/b",
        "/a/b",
        "/c",
        "/$/inet/80",
        "/$/inet/h/81",
        "/$/nil",
        "/$/fail",
        "/$/none",
        "/#/set/x",
        "/#/set/y",
        "/#/down",
        "/#/slow",
        "/#/tree",
        "~",
        "!",
        "$",
    ]
)
weights = st.sampled_from(["", "0 * ", "0.5 * ", "2 * "])
trees = st.recursive(
    names,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({' | '.join(parts)})"),
        st.lists(st.tuples(weights, inner), min_size=1, max_size=3).map(lambda parts: f"({' & '.join(map(''.join, parts))})"),
    ),
    max_leaves=6,
)
prefixes = st.sampled_from(["/a", "/b", "/*", "/", "/a/*", "/c", "/b/c", "/$", "/#"])
tables = st.lists(st.tuples(prefixes, trees).map("=>".join), min_size=1, max_size=5).map(";".join)


class Namer:
    def __init__(self, prefix: Path, kind: str) -> None:
        self.prefix, self.kind = prefix, kind

    def lookup(self, path: Path) -> Any:
        if self.kind == "failed":
            return d.Source(d.Failed(RuntimeError("down")))
        if self.kind == "pending":
            return d.Source()
        if self.kind == "tree":
            return d.constant(d.read_tree("/a | ~"))
        if path.take(1) != Path.of("x"):
            return d.constant(NEG)
        return d.constant(Leaf(Bound(self.prefix.join(path.take(1)), d.constant(AddrBound()), path.drop(1))))


def made() -> list[tuple[Path, Namer]]:
    return [(d.read_path(prefix), Namer(d.read_path(prefix), kind)) for prefix, kind in NAMERS]


def answered(table: d.Dtab, path: Path) -> Any:
    """What one look-up says: the dtab, else the namers in order, else those of the system."""
    found = table.lookup(path)
    if found != NEG:
        return d.Ok(found)
    for prefix, namer in made():
        if path.starts_with(prefix):
            state = namer.lookup(path.drop(len(prefix))).sample()
            if state != d.Ok(NEG):
                return state
    try:
        answer = SYSTEM.lookup(path)
    except d.DelegationError as error:
        return d.Failed(error)
    return d.Ok(NEG) if answer is None else answer.sample()


def bind(table: d.Dtab, tree: Any, depth: int, weight: float | None) -> Any:
    if isinstance(tree, Leaf) and isinstance(tree.value, Bound):
        bound = tree.value
        return d.Ok(Leaf(Bound(bound.id, bound.addr, bound.residual, bound.weight if weight is None else weight)))
    if isinstance(tree, Leaf):
        if depth >= DEPTH:
            return d.Failed(RuntimeError(TOO_DEEP))
        state = answered(table, tree.value)
        return bind(table, state.value, depth + 1, weight) if isinstance(state, d.Ok) else state
    if isinstance(tree, Alt):
        for part in tree.trees:
            state = bind(table, part, depth, weight)
            if state != d.Ok(NEG):
                return state
        return d.Ok(NEG)
    if isinstance(tree, Union):
        states = [(branch.weight, bind(table, branch.tree, depth, branch.weight)) for branch in tree.branches]
        good = [Weighted(share, state.value) for share, state in states if isinstance(state, d.Ok)]
        failed = [state for _, state in states if isinstance(state, d.Failed)]
        return d.Ok(simplify(Union(tuple(good)))) if good else failed[0] if failed else d.Pending()
    return d.Ok(tree)


def comparable(state: Any) -> Any:
    if isinstance(state, d.Failed):
        return str(state.error)
    if isinstance(state, d.Pending):
        return "pending"
    return simplify(map_leaves(state.value, lambda bound: (bound.id, bound.residual, bound.weight)))


@settings(max_examples=120)
@given(tables, st.sampled_from(["/a", "/a/b", "/b", "/c/x", "/#/set/x/y"]))
def test_binding_is_what_the_rules_say(text: str, path: str) -> None:
    table, name = d.read_dtab(text), d.read_path(path)
    wanted = bind(table, Leaf(name), 0, None)
    assert comparable(Delegator(SYSTEM, made(), DEPTH).bind(table, name).sample()) == comparable(wanted)
