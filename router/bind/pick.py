"""From a bound tree to a choice, compiled once per tree.

A union draws by weight; dead branches (negative, fail, empty) without weight are dropped, those with weight keep their
share and fail it, unless ``retain_unreachable`` is off. Where all weights are zero the draw is uniform.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Hashable
from itertools import accumulate
from typing import Any, Generic, TypeVar

from dtab import Alt, Leaf, NameTree, Union

T = TypeVar("T")


class Draw(Generic[T]):
    """A choice among ``options`` with these cumulated shares (the last is 1). None stands for "nothing is there"."""

    __slots__ = ("_random", "_shares", "options", "shares")

    def __init__(self, options: list[T | None], weights: list[float], rng: Callable[[], float]) -> None:
        total = sum(weights)
        self.options = options
        self.shares = [weight / total for weight in weights] if total else [1 / len(weights)] * len(weights)
        self._shares = list(accumulate(self.shares))[:-1]
        self._random = rng

    def __call__(self) -> T | None:
        """Choose."""
        return self.options[bisect_right(self._shares, self._random())]


def compile_pick(
    tree: NameTree[Any],
    leaf: Callable[[Any], T],
    *,
    retain_unreachable: bool = True,
    rng: Callable[[], float] = random.random,
) -> Callable[[], T | None]:
    """A function that chooses one leaf of ``tree`` by weight, or None where there is none.

    ``leaf`` makes what is chosen from a leaf's value; it is called once per leaf. Nested unions are multiplied out.
    """
    flat: dict[Hashable, tuple[T | None, float]] = {}
    for value, share in _flatten(tree, 1.0, leaf, retain_unreachable):
        key = id(value) if value is not None else None
        flat[key] = (value, flat[key][1] + share) if key in flat else (value, share)
    options = [option for option, _ in flat.values()]
    if len(options) == 1:
        only = options[0]
        return lambda: only
    return Draw(options, [share for _, share in flat.values()], rng)


def _flatten(tree: NameTree[Any], share: float, leaf: Callable[[Any], T], retain: bool) -> list[tuple[T | None, float]]:
    if isinstance(tree, Leaf):
        return [(leaf(tree.value), share)]
    if isinstance(tree, Alt):
        raise ValueError("a bound tree has no alternatives")
    if not isinstance(tree, Union):
        return [(None, share)]
    branches = [branch for branch in tree.branches if not _dead(branch.tree, retain) or (retain and branch.weight)]
    if not branches:
        return [(None, share)]
    total = sum(branch.weight for branch in branches)
    flat: list[tuple[T | None, float]] = []
    for branch in branches:
        part = branch.weight / total if total else 1 / len(branches)
        flat += _flatten(branch.tree, share * part, leaf, retain)
    return flat


def _dead(tree: NameTree[Any], retain: bool) -> bool:
    """Whether a branch can serve nobody."""
    if isinstance(tree, Union):
        return all(_dead(branch.tree, retain) for branch in tree.branches)
    return not isinstance(tree, Leaf)


def probabilities(tree: NameTree[Any], *, retain_unreachable: bool = True) -> dict[Any, float]:
    """The share of each leaf's value; None for what finds nothing."""
    shares: dict[Any, float] = {}
    for value, share in _flatten(tree, 1.0, lambda value: (value,), retain_unreachable):
        key = None if value is None else value[0]
        shares[key] = shares.get(key, 0.0) + share
    return shares
