"""Name trees: leaves, alternatives, weighted unions, and three ways to have no leaf.

``Neg`` says "no such name, try the next alternative", ``Fail`` "and do not try", ``Empty`` "it exists, without endpoints".
Recursion is safe: readers refuse trees nested deeper than ``MAX_NESTING``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

T = TypeVar("T")
U = TypeVar("U")

MAX_NESTING = 64
_ALL_DIGITS = Context(prec=320)


@attrs.frozen
class Leaf(Generic[T]):
    """One name."""

    value: T


@attrs.frozen
class Alt(Generic[T]):
    """The first alternative that is not negative."""

    trees: tuple[NameTree[T], ...]


@attrs.frozen
class Weighted(Generic[T]):
    """A branch of a union."""

    weight: float
    tree: NameTree[T]


@attrs.frozen
class Union(Generic[T]):
    """Branches that share the traffic by weight."""

    branches: tuple[Weighted[T], ...]


@attrs.frozen
class Neg:
    """No such name."""


@attrs.frozen
class Fail:
    """No such name, and no alternative either."""


@attrs.frozen
class Empty:
    """A name without endpoints."""


NameTree: TypeAlias = Leaf[T] | Alt[T] | Union[T] | Neg | Fail | Empty

NEG, FAIL, EMPTY = Neg(), Fail(), Empty()
_SYMBOLS: dict[type, str] = {Neg: "~", Fail: "!", Empty: "$"}


def map_leaves(tree: NameTree[T], change: Callable[[T], U]) -> NameTree[U]:
    """The same tree with other leaves."""
    return bind_leaves(tree, lambda value: Leaf(change(value)))


def bind_leaves(tree: NameTree[T], grow: Callable[[T], NameTree[U]]) -> NameTree[U]:
    """The same tree with a tree in the place of each leaf."""
    if isinstance(tree, Leaf):
        return grow(tree.value)
    if isinstance(tree, Alt):
        return Alt(tuple([bind_leaves(part, grow) for part in tree.trees]))
    if isinstance(tree, Union):
        return Union(tuple([Weighted(part.weight, bind_leaves(part.tree, grow)) for part in tree.branches]))
    return tree


def simplify(tree: NameTree[T]) -> NameTree[T]:
    """An equivalent tree without dead branches: ``eval`` is preserved, and simplifying twice changes nothing."""
    if isinstance(tree, Alt):
        return _simplify_alt(tree)
    if isinstance(tree, Union):
        return _simplify_union(tree)
    return tree


def _simplify_alt(tree: Alt[T]) -> NameTree[T]:
    if len(tree.trees) == 1:
        return simplify(tree.trees[0])
    kept: list[NameTree[T]] = []
    for part in tree.trees:
        simple = simplify(part)
        if simple != NEG:
            kept.append(simple)
        if simple == FAIL:
            break
    if not kept:
        return NEG
    return kept[0] if len(kept) == 1 else Alt(tuple(kept))


def _simplify_union(tree: Union[T]) -> NameTree[T]:
    if len(tree.branches) == 1:
        return simplify(tree.branches[0].tree)
    return union_of([Weighted(branch.weight, simplify(branch.tree)) for branch in tree.branches])


def union_of(branches: list[Weighted[T]]) -> NameTree[T]:
    """The simplified union of two or more branches whose own trees are simplified already."""
    kept = [branch for branch in branches if not isinstance(branch.tree, Neg | Fail)]
    if not kept:
        return NEG
    return kept[0].tree if len(kept) == 1 else Union(tuple(kept))


def evaluate(tree: NameTree[T]) -> list[T] | None:
    """The leaves that the tree stands for, without repetition, or None where it stands for nothing."""
    found = _evaluate(tree)
    return found if isinstance(found, list) else None


def _evaluate(tree: NameTree[T]) -> list[T] | Neg | Fail:
    if isinstance(tree, Leaf):
        return [tree.value]
    if isinstance(tree, Alt):
        for part in tree.trees:
            found = _evaluate(part)
            if not isinstance(found, Neg):
                return found
        return NEG
    if isinstance(tree, Union):
        if len(tree.branches) == 1:
            return _evaluate(tree.branches[0].tree)
        sets = [found for branch in tree.branches if isinstance(found := _evaluate(branch.tree), list)]
        return _unique(sets) if sets else NEG
    return [] if isinstance(tree, Empty) else tree


def _unique(sets: list[list[T]]) -> list[T]:
    unique: list[T] = []
    for found in sets:
        unique += [value for value in found if value not in unique]
    return unique


def equivalent(a: NameTree[T], b: NameTree[T]) -> bool:
    """Whether two trees are the same once simplified; weights count."""
    return simplify(a) == simplify(b)


def show_weight(weight: float) -> str:
    """Two decimals, rounded half up on the shortest decimal form (Python's own formatting rounds binary values)."""
    if weight == math.inf:
        return "1" + "0" * 309 + ".00"  # what is read as infinite again; the word could not be read
    return f"{Decimal(repr(weight)).quantize(Decimal('0.01'), ROUND_HALF_UP, _ALL_DIGITS):f}"


def show(tree: NameTree[Any]) -> str:
    """The canonical text. Leaves are shown by their own ``show``."""
    if isinstance(tree, Leaf):
        text: str = tree.value.show()
        return text
    if isinstance(tree, Alt):
        if len(tree.trees) == 1:
            return show(tree.trees[0])
        return " | ".join([_show_in(part, Alt) for part in tree.trees])
    if isinstance(tree, Union):
        if len(tree.branches) == 1:
            return show(tree.branches[0].tree)
        return " & ".join([_show_branch(branch) for branch in tree.branches])
    return _SYMBOLS[type(tree)]


def _show_branch(branch: Weighted[Any]) -> str:
    text = _show_in(branch.tree, Alt, Union)
    return text if branch.weight == 1.0 else f"{show_weight(branch.weight)}*{text}"


def _show_in(tree: NameTree[Any], *grouped: type) -> str:
    """The text of a part, in parentheses if it is of one of these kinds and has several parts of its own."""
    while (isinstance(tree, Alt) and len(tree.trees) == 1) or (isinstance(tree, Union) and len(tree.branches) == 1):
        tree = tree.trees[0] if isinstance(tree, Alt) else tree.branches[0].tree
    return f"({show(tree)})" if isinstance(tree, grouped) else show(tree)
