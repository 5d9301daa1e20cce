"""Properties of names: reading and printing, looking up, simplifying, binding within bounds, activities."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dtab as d
from dtab import explain, tree
from dtab.activity import Activity, Computed, Ok, Pending, Source, collect
from dtab.delegation import Delegator, Evaluation
from dtab.errors import DelegationError, DtabSyntaxError
from dtab.namer import SystemNamers
from dtab.path import Path
from dtab.table import Dentry, Dtab

labels = st.one_of(st.sampled_from([b"a", b"b", b"svc", b"#", b"$"]), st.binary(min_size=1, max_size=4))
paths = st.lists(labels, max_size=4).map(Path)
weights = st.integers(0, 400).map(lambda hundredths: hundredths / 100)


def trees(leaves: Any = paths) -> Any:
    simple = st.one_of(leaves.map(tree.Leaf), st.sampled_from([tree.NEG, tree.FAIL, tree.EMPTY]))

    def grow(inner: Any) -> Any:
        alts = st.lists(inner, min_size=2, max_size=3).map(lambda parts: tree.Alt(tuple(parts)))
        unions = st.lists(st.tuples(weights, inner), min_size=2, max_size=3).map(
            lambda parts: tree.Union(tuple(tree.Weighted(weight, part) for weight, part in parts))
        )
        return st.one_of(alts, unions)

    return st.recursive(simple, grow, max_leaves=8)


prefixes = st.lists(st.one_of(labels, st.none()), max_size=3).map(d.Prefix)
dtabs = st.lists(st.tuples(prefixes, trees()), max_size=5).map(lambda rows: Dtab(tuple(Dentry(*row) for row in rows)))


@given(paths)
def test_a_printed_path_reads_back(path: Path) -> None:
    assert d.read_path(path.show()) == path


@pytest.mark.slow
@settings(deadline=None)
@given(dtabs)
def test_a_printed_dtab_reads_back(table: Dtab) -> None:
    assert d.read_dtab(table.show()) == table


@pytest.mark.slow
@given(trees())
def test_simplifying_keeps_the_meaning_and_is_done_once(made: Any) -> None:
    simple = tree.simplify(made)
    assert tree.simplify(simple) == simple
    assert tree.evaluate(simple) == tree.evaluate(made)


@pytest.mark.slow
@given(dtabs, paths)
def test_look_up_is_the_alternatives_of_all_that_match_last_first(table: Dtab, path: Path) -> None:
    wanted = []
    for dentry in table:
        prefix = list(dentry.prefix)
        fits = len(prefix) <= len(path) and all(mine in (None, theirs) for mine, theirs in zip(prefix, path, strict=False))
        assert fits is (dentry.prefix.mismatch(path) is None)
        if fits:
            rest = tuple(path[len(prefix) :])
            wanted.insert(0, tree.map_leaves(dentry.destination, lambda leaf, rest=rest: Path(tuple(leaf) + rest)))
    found = table.lookup(path)
    assert found == (tree.NEG if not wanted else wanted[0] if len(wanted) == 1 else tree.Alt(tuple(wanted)))


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(dtabs, paths)
def test_binding_and_explaining_always_end(table: Dtab, path: Path) -> None:
    delegator = Delegator(SystemNamers(lambda host, port, fixed: d.constant(d.AddrBound())))
    state = delegator.bind(table, path).sample()
    if isinstance(state, Ok):
        assert tree.simplify(state.value) == state.value
    try:
        explain.explain(delegator.evaluation(table, lambda activity: activity.sample()), path)
    except DelegationError as error:
        assert error.code in ("max_depth", "too_large", "unknown_namer", "rewrite_error")  # noqa: PT017 - it may succeed too


def evaluation(text: str) -> tuple[Evaluation, list[Path]]:
    asked: list[Path] = []

    def ask(path: Path) -> Any:
        asked.append(path)
        return Ok(tree.NEG)

    return Evaluation(d.read_dtab(text), ask), asked


@pytest.mark.parametrize("text", ["/a => /a & /a", "/a => /a | /a", "/a => /a & /a | /a & /a"])
def test_work_is_shared_where_a_name_doubles(text: str) -> None:
    made, _ = evaluation(text)
    state = made.bind(tree.Leaf(d.read_path("/a")))
    assert isinstance(state, d.Failed)
    assert len(made._steps) == 100


def test_a_chain_that_ends_in_nothing_asks_once_per_step() -> None:
    made, asked = evaluation(";".join(f"/x{at} => /x{at + 1} | /x{at + 1}" for at in range(60)))
    assert made.bind(tree.Leaf(d.read_path("/x0"))) == Ok(tree.NEG)
    assert len(asked) == 1


def test_names_that_grow_are_cut_off() -> None:
    made, _ = evaluation("/a => /a/x & /a/y")
    state = made.bind(tree.Leaf(d.read_path("/a")))
    assert isinstance(state, d.Failed)
    crowd, _ = evaluation(";".join(["/ => /a"] * 1000))
    assert isinstance(crowd.bind(tree.Leaf(d.read_path("/a"))), d.Failed)
    assert len(crowd._steps) < 20
    bound = ";".join(f"/x{at} => /x{at + 1} & /x{at + 1}" for at in range(40)) + ";/x40 => /$/inet/1"
    delegator = Delegator(SystemNamers(lambda host, port, fixed: d.constant(d.AddrBound())))
    large = delegator.bind(d.read_dtab(bound), d.read_path("/x0")).sample()
    assert isinstance(large, d.Failed)
    assert "too_large" in str(getattr(large.error, "code", ""))


def test_explaining_is_bounded() -> None:
    made, _ = evaluation(";".join(f"/x{at} => /x{at + 1} | /x{at + 1}" for at in range(60)))
    node = explain.explain(made, d.read_path("/x0"))

    def count(one: explain.Node) -> int:
        return 1 + sum(count(part) for _, part in one.parts)

    assert count(node) <= 2 * explain.MAX_NODES


def test_nesting_is_bounded_and_told_with_its_place() -> None:
    deep = "(" * 64 + "/a" + ")" * 64
    assert d.read_tree(deep) == d.read_tree("/a")
    with pytest.raises(DtabSyntaxError, match="64 levels") as caught:
        d.read_tree("(" + deep + ")")
    assert caught.value.offset == 64
    assert d.read_dtab("# " + "(" * 200 + "\n/a=>/b").show() == "/a=>/b"


def test_errors_show_line_column_and_caret() -> None:
    with pytest.raises(DtabSyntaxError) as caught:
        d.read_dtab("/a => /b ;\n/c =>\t/d | ;\n")
    error = caught.value
    assert (error.line, error.column, error.expected, error.found) == (2, 12, "simple", "';'")
    assert error.caret() == "/c =>\t/d | ;\n     \t     ^ simple expected but ';' found"


def test_dentries_know_their_lines() -> None:
    table = d.read_dtab("# one\n/a => /b ;\n\n  /c => /d |\n /e ; /f => !")
    assert [(dentry.line, dentry.column) for dentry in table] == [(2, 1), (4, 3), (5, 7)]


@given(st.text(max_size=30))
def test_any_text_reads_or_tells(text: str) -> None:
    for read in (d.read_path, d.read_prefix, d.read_tree, d.read_dentry, d.read_dtab):
        try:
            read(text)  # type: ignore[operator]
        except DtabSyntaxError as error:
            assert 0 <= error.offset <= len(text) + 1  # noqa: PT017 - it may succeed too
            assert error.caret()  # noqa: PT017


# -- activities -----------------------------------------------------------------------------------------------


def watch(activity: Activity[Any]) -> tuple[list[Any], Any]:
    seen: list[Any] = []
    return seen, activity.observe(seen.append)


def test_a_diamond_has_no_glitch_and_is_computed_once() -> None:
    source: Source[int] = Source(Ok(1))
    double, plus = source.map(lambda value: value * 2), source.map(lambda value: value + 1)
    runs: list[Any] = []

    def compute(track: Any) -> Any:
        pair = (track(double).value, track(plus).value)
        runs.append(pair)
        return Ok(pair)

    seen, observation = watch(Computed(compute))
    source.set(Ok(5))
    assert runs == [(2, 2), (10, 6)]
    assert seen == [Ok((2, 2)), Ok((10, 6))]
    observation.close()
    assert not source.observed


def test_equal_states_do_not_propagate() -> None:
    source: Source[int] = Source(Ok(1))
    seen, _ = watch(source.map(lambda value: value % 2))
    source.set(Ok(3))
    source.set(Ok(3))
    source.set(Ok(4))
    assert seen == [Ok(1), Ok(0)]


def test_sources_start_with_the_first_observer_and_stop_with_the_last() -> None:
    log: list[str] = []
    source: Source[int] = Source(start=lambda: log.append("start"), stop=lambda: log.append("stop"))
    mapped = source.map(lambda value: value)
    assert log == []
    _, first = watch(mapped)
    _, second = watch(source)
    first.close()
    first.close()
    assert log == ["start"]
    second.close()
    assert log == ["start", "stop"]


def test_flat_map_makes_before_it_breaks() -> None:
    log: list[str] = []
    inner: Source[int] = Source(Ok(0), start=lambda: log.append("start"), stop=lambda: log.append("stop"))
    source: Source[int] = Source(Ok(1))
    seen, observation = watch(source.flat_map(lambda value: inner.map(lambda base: base + value)))
    source.set(Ok(2))
    inner.set(Ok(10))
    assert seen == [Ok(1), Ok(2), Ok(12)]
    assert log == ["start"]
    observation.close()
    assert log == ["start", "stop"]


def test_an_exception_is_a_failure_and_collect_waits_for_all() -> None:
    source: Source[int] = Source(Ok(0))
    other: Source[int] = Source()
    inverse = source.map(lambda value: 1 // value)
    assert isinstance(inverse.sample(), d.Failed)
    both = collect([source, other])
    assert both.sample() == Pending()
    other.set(Ok(2))
    assert both.sample() == Ok([0, 2])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=30))
def test_observed_and_sampled_agree_whatever_is_set(changes: list[tuple[int, int]]) -> None:
    sources: list[Source[int]] = [Source(Ok(0)) for _ in range(3)]
    switch = sources[0].flat_map(lambda value: sources[1] if value % 2 else sources[2])
    total = collect([switch, sources[1], sources[0].map(lambda value: value // 2)]).map(sum)
    seen, observation = watch(total)
    for which, value in changes:
        sources[which].set(Ok(value))
        a, b, c = (source.state.value for source in sources)  # type: ignore[union-attr]
        assert seen[-1] == Ok((b if a % 2 else c) + b + a // 2)
    observation.close()
    assert not any(source.observed for source in sources)


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (1e15, "1000000000000000.00"),
        (1e22, "1" + "0" * 22 + ".00"),
        (123456789012345.675, "123456789012345.67"),
        (0.005, "0.01"),
    ],
)
def test_large_weights_are_shown_by_their_digits(weight: float, text: str) -> None:
    assert tree.show_weight(weight) == text


def test_even_an_infinite_weight_can_be_read_again() -> None:
    made = d.read_tree("9" * 400 + " * /a & /b")
    assert d.read_tree(tree.show(made)) == made
