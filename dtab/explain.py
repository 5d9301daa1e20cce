"""The decision tree, for people and programs: Linkerd's delegation tree (``/delegator.json``) and text for a terminal.

Made from the steps of :class:`dtab.delegation.Evaluation`, the same that bind. All alternatives are followed, also after a
hit. Bound: ``MAX_NODES`` nodes; what would be more is an ``exception`` node that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from dtab.activity import Failed, Pending
from dtab.delegation import Evaluation, Step
from dtab.errors import DelegationError
from dtab.namer import Addr, AddrBound, AddrFailed, AddrNeg, Bound
from dtab.path import Path
from dtab.table import Dentry, Dtab
from dtab.tree import EMPTY, FAIL, NEG, Alt, Leaf, NameTree, Union

MAX_NODES = 1_000
TOO_DEEP = "Max recursion level reached."
_FAIL_PATH = Path.of("$", "fail")


@attrs.define
class Node:
    """One node. ``kind`` as in Linkerd: delegate, alt, union, leaf, neg, fail, empty, exception, transformation.

    ``path`` is the text that is shown; ``dentry`` the rule that led here; ``parts`` the subtrees with their weights (1.0
    but in unions); ``note`` the message of an exception or the name of a transformation, whose ``bound`` is what it changed.
    """

    kind: str
    path: str
    dentry: Dentry | None = None
    parts: list[tuple[float, Node]] = attrs.field(factory=list)
    bound: Bound | None = None
    note: str = ""


def explain(evaluation: Evaluation, path: Path) -> Node:
    """The simplified delegation tree of ``path``. Raises :class:`DelegationError` for a straight loop."""
    return simplify_node(_Explainer(evaluation).path(path, None, 0))


class _Explainer:
    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._count = 0

    def path(self, path: Path, dentry: Dentry | None, depth: int) -> Node:
        """The look-up of ``path``, to which ``dentry`` led."""
        self._count += 1
        if self._count > MAX_NODES:
            return Node("exception", path.show(), dentry, note=f"more than {MAX_NODES} nodes")
        if depth >= self._evaluation.max_depth:
            raise DelegationError("max_depth", TOO_DEEP)
        step = self._evaluation.step(path, depth)
        if not step.branches:
            return self._answer(step, dentry)
        if len(step.branches) == 1:
            matched, tree = step.branches[0]
            return Node("delegate", path.show(), dentry, [(1.0, self._tree(tree, path, matched, depth + 1))])
        parts = [(1.0, self._safe(tree, path, matched, depth + 1, path, dentry)) for matched, tree in step.branches]
        return Node("alt", path.show(), dentry, parts)

    def _safe(
        self, tree: NameTree[Any], path: Path, matched: Dentry | None, depth: int, over: Path, dentry: Dentry | None
    ) -> Node:
        """A branch; its error stays its own."""
        try:
            return self._tree(tree, path, matched, depth)
        except DelegationError as error:
            return Node("exception", over.show(), dentry, note=str(error))

    def _answer(self, step: Step, dentry: Dentry | None) -> Node:
        state = step.answer
        if isinstance(state, Failed):
            return Node("exception", step.path.show(), dentry, note=str(state.error))
        if isinstance(state, Pending) or state is None:
            return Node("exception", step.path.show(), dentry, note="the namer has not answered yet")
        return self._tree(state.value, step.path, dentry, step.depth + 1, named=True)

    def _tree(self, tree: NameTree[Any], path: Path, dentry: Dentry | None, depth: int, *, named: bool = False) -> Node:
        """A tree that ``dentry`` (or, if ``named``, a namer) made of ``path``."""
        if isinstance(tree, Leaf):
            if isinstance(tree.value, Bound):
                return Node("leaf", path.show(), dentry, bound=tree.value)
            return self.path(tree.value, dentry, depth)
        if isinstance(tree, Alt | Union):
            return self._several(tree, path, dentry, depth)
        if tree == NEG:
            return Node("neg", path.show() if named else "~", dentry)
        if tree == FAIL:
            return Node("fail", path.show() if path.starts_with(_FAIL_PATH) else "!", dentry)
        assert tree == EMPTY
        return Node("empty", path.show(), dentry)

    def _several(self, tree: Alt[Any] | Union[Any], path: Path, dentry: Dentry | None, depth: int) -> Node:
        if isinstance(tree, Alt):
            weighted = [(1.0, part) for part in tree.trees]
        else:
            weighted = [(branch.weight, branch.tree) for branch in tree.branches]
        parts = [(weight, self._safe(part, path, dentry, depth, path, dentry)) for weight, part in weighted]
        return Node("alt" if isinstance(tree, Alt) else "union", path.show(), dentry, parts)


def simplify_node(node: Node) -> Node:
    """Collapse delegates over nodes of the same path, splice alternatives of the same path, name empty ones."""
    parts = [(weight, simplify_node(part)) for weight, part in node.parts]
    if node.kind in ("alt", "union") and not parts:
        return Node("neg", node.path, node.dentry)
    if node.kind in ("alt", "union") and len(parts) == 1:
        return simplify_node(attrs.evolve(node, kind="delegate", parts=parts))
    if node.kind == "delegate":
        child = parts[0][1]
        if child.path == node.path and child.kind not in ("neg", "fail", "empty"):
            return attrs.evolve(child, dentry=node.dentry)
    if node.kind == "alt":
        spliced: list[tuple[float, Node]] = []
        for weight, part in parts:
            same = part.kind == "alt" and part.path == node.path
            spliced += part.parts if same else [(weight, part)]
        parts = spliced
    return attrs.evolve(node, parts=parts)


def find(node: Node, wanted: Callable[[Node], bool]) -> list[tuple[str, str]] | None:
    """(path, dentry) from the root to the first leaf that is ``wanted``, or None. A transformer stands behind the dentry."""
    here = [(node.path, _shown(node))]
    if node.kind == "leaf":
        return here if wanted(node) else None
    if node.kind == "transformation" and (leaf := node.parts[0][1]).kind == "leaf":
        return [(node.path, _shown(leaf)), (leaf.path, node.note)] if wanted(leaf) else None
    for _, part in node.parts:
        rest = find(part, wanted)
        if rest is not None:
            return here + rest
    return None


def _shown(node: Node) -> str:
    return node.dentry.show() if node.dentry is not None else ""


def to_json(node: Node, addr_of: Callable[[Bound], Addr]) -> dict[str, Any]:
    """Linkerd's JSON form (§7.1 of its admin interface)."""
    out: dict[str, Any] = {"type": node.kind, "path": node.path}
    if node.dentry is not None:
        out["dentry"] = {"prefix": node.dentry.prefix.show(), "dst": node.dentry.show().partition("=>")[2]}
    parts = [to_json(part, addr_of) for _, part in node.parts]
    if node.kind == "delegate":
        out["delegate"] = parts[0]
    elif node.kind == "alt":
        out["alt"] = parts
    elif node.kind == "union":
        weights = [weight for weight, _ in node.parts]
        out["union"] = [{"weight": weight, "tree": part} for weight, part in zip(weights, parts, strict=True)]
    elif node.kind == "exception":
        out["message"] = node.note
    elif node.kind == "transformation":
        out |= {"name": node.note, "tree": parts[0]}
    if node.bound is not None:
        out["bound"] = bound_json(node.bound, addr_of(node.bound))
    return out


def bound_json(bound: Bound, addr: Addr) -> dict[str, Any]:
    """A bound name with its addresses; the weight of its branch is said of these."""
    shown = addr_json(addr)
    if bound.weight is not None and "meta" in shown:
        shown["meta"] = {"namer_nametree_weight": bound.weight}
    return {"addr": shown, "id": bound.id.show(), "path": bound.residual.show()}


def tree_json(tree: NameTree[Bound], addr_of: Callable[[Bound], Addr]) -> dict[str, Any]:
    """A bound tree, the body of namerd's ``/api/1/bind``."""
    if isinstance(tree, Leaf):
        return {"type": "leaf", "bound": bound_json(tree.value, addr_of(tree.value))}
    if isinstance(tree, Alt):
        return {"type": "alt", "alt": [tree_json(part, addr_of) for part in tree.trees]}
    if isinstance(tree, Union):
        parts = [{"weight": part.weight, "tree": tree_json(part.tree, addr_of)} for part in tree.branches]
        return {"type": "union", "union": parts}
    return {"type": {NEG: "neg", FAIL: "fail", EMPTY: "empty"}[tree]}


def addr_json(addr: Addr) -> dict[str, Any]:
    """An address state."""
    if isinstance(addr, AddrBound):
        ends = sorted(addr.endpoints, key=lambda end: (end.host, end.port))
        return {
            "type": "bound",
            "addrs": [{"ip": e.host, "port": e.port, "meta": dict(e.meta)} for e in ends],
            "meta": {},
        }
    if isinstance(addr, AddrFailed):
        return {"type": "failed", "cause": addr.cause}
    return {"type": "neg" if isinstance(addr, AddrNeg) else "pending"}


def unmatched(dtab: Dtab, path: Path) -> list[tuple[Dentry, str]]:
    """The dentries that did not match ``path``, and why, in the table's order."""
    return [(dentry, why) for dentry in dtab if (why := dentry.prefix.mismatch(path)) is not None]
