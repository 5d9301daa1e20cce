"""Transformers of whole trees."""

from __future__ import annotations

import pytest

import dtab as d
from dtab.namer import AddrBound, Bound
from dtab.path import Path
from dtab.tree import EMPTY, FAIL, NEG, Leaf, NameTree, Union, Weighted
from router.interpreters.transformers import replace


def leaf(*elements: str) -> NameTree[Bound]:
    return Leaf(Bound(Path.of(*elements), d.constant(AddrBound())))


SPLIT = Union((Weighted(1.0, leaf("#", "a")), Weighted(2.0, EMPTY)))
FIXED = Union((Weighted(3.0, leaf("$", "x")), Weighted(4.0, leaf("$", "y"))))
MARKED = Union((Weighted(3.0, leaf("%", "io.l5d.replace", "$", "x")), Weighted(4.0, leaf("%", "io.l5d.replace", "$", "y"))))


@pytest.mark.parametrize(
    ("given", "fixed", "wanted"),
    [
        (SPLIT, NEG, Union((Weighted(1.0, NEG), Weighted(2.0, EMPTY)))),
        (SPLIT, FIXED, Union((Weighted(1.0, MARKED), Weighted(2.0, EMPTY)))),
        (leaf("#", "a"), FIXED, MARKED),
        (FAIL, FIXED, FAIL),
        (NEG, leaf("$", "x"), NEG),
    ],
)
def test_replace_puts_a_tree_in_the_place_of_each_leaf(
    given: d.NameTree[Bound], fixed: d.NameTree[Bound], wanted: object
) -> None:
    assert replace(given, fixed) == wanted
