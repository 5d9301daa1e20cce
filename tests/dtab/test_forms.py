"""What decision trees and bound names look like to programs, where Linkerd's tests have no example."""

from __future__ import annotations

import dtab as d
from dtab import explain
from dtab.namer import Addr, AddrBound, Bound
from dtab.path import Path
from dtab.tree import Leaf, Union, Weighted


def bound(name: str, weight: float | None = None) -> Bound:
    addr: Addr = AddrBound(frozenset([d.Endpoint("127.0.0.1", 80)]))
    return Bound(Path.of("#", name), d.constant(addr), weight=weight)


def addr_of(name: Bound) -> Addr:
    state = name.addr.sample()
    assert isinstance(state, d.Ok)
    found: Addr = state.value
    return found


def test_the_weight_of_a_branch_is_said_of_its_addresses() -> None:
    union = Union((Weighted(0.7, Leaf(bound("a", 0.7))), Weighted(0.3, Leaf(bound("b", 0.3)))))
    form = explain.tree_json(union, addr_of)
    assert [part["weight"] for part in form["union"]] == [0.7, 0.3]
    metas = [part["tree"]["bound"]["addr"]["meta"] for part in form["union"]]
    assert metas == [{"namer_nametree_weight": 0.7}, {"namer_nametree_weight": 0.3}]
    assert explain.tree_json(Leaf(bound("a")), addr_of)["bound"]["addr"]["meta"] == {}


def transformed() -> explain.Node:
    leaf = explain.Node("leaf", "/%/port/1/#/a", d.read_dentry("/b=>/#/a"), bound=bound("a"))
    change = explain.Node("transformation", "/#/a", None, [(1.0, leaf)], bound("a"), note="port")
    return explain.Node("delegate", "/b", d.read_dentry("/a=>/b"), [(1.0, change)])


def test_a_way_through_a_transformer_names_it_behind_the_dentry() -> None:
    way = explain.find(transformed(), lambda node: node.bound == bound("a"))
    assert way == [("/b", "/a=>/b"), ("/#/a", "/b=>/#/a"), ("/%/port/1/#/a", "port")]


def test_a_transformation_shows_the_name_before_and_the_tree_after() -> None:
    form = explain.to_json(transformed(), addr_of)["delegate"]
    assert (form["type"], form["name"], form["bound"]["id"], form["tree"]["type"]) == ("transformation", "port", "/#/a", "leaf")
    assert "dentry" not in form
