"""Files that are broken in unusual ways, values at the edges, and plugins that misbehave: always problems, never a crash."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path as FilePath
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config import nodes, plugins
from router.config.load import Loaded, load_file, load_text
from router.config.plugins import PluginError, Registry
from router.spi import Plugin

REGISTRY = Registry()
HEAD = "routers:\n- protocol: http\n"


def load(text: str, registry: Registry = REGISTRY) -> Loaded:
    return load_text(text, "t.yaml", registry)


def shown(loaded: Loaded) -> list[str]:
    return [f"{problem.line}:{problem.column} {problem.message}" for problem in loaded.problems]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a: " + "[" * 900 + "]" * 900, "a: " + "{a: " * 5000, "- " * 5000, "a: " + "!x " * 50]
)
def test_deep_nesting_does_not_end_the_process(text: str) -> None:
    assert load(text).problems
    assert load(text).config is None


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (f"  servers: [{{port: {'1' * 5000}}}]", ["3:20 expected a whole number, got inf (a number)"]),
        ("  servers: [{port: 12345678901234567890}]", ["3:20 expected a whole number, got 1.2345678901234567e+19 (a number)"]),
        ("  servers: [{port: 1.5}]", ["3:20 expected a whole number, got 1.5 (a number)"]),
        ("  servers: [{port: true}]", ["3:20 expected a whole number, got True (true or false)"]),
        ("  servers: [{port: 0x50}]", ["3:20 expected a whole number, got '0x50' (text)"]),
        ("  servers: [{port: -1}]", ["3:20 a port is between 0 and 65535, not -1"]),
        ("  servers: [{port: 65536}]", ["3:20 a port is between 0 and 65535, not 65536"]),
        ("  servers: [{port: 65535}, {port: 0}, {port: 0}]", []),
        (f"  bindingCache: {{idleTtlSecs: 1{'0' * 400}}}", ["3:31 expected a number, got inf (a number)"]),
        ("  bindingCache: {idleTtlSecs: 1}", []),
        ("  bindingCache: {paths: 0, trees: x}",
         ["3:25 must be 1 or more, not 0", "3:35 expected a whole number, got 'x' (text)"]),
        ("  originator: yes", ["3:15 expected true or false, got 'yes' (text)"]),
        ("  label: 5", ["3:10 expected text, got 5 (a whole number)"]),
        ("  label: a\n  label: b", ["4:3 duplicate key 'label' (first at line 3)"]),
        ("  client: {maxEffort: 1, maxEffort: 1}",
         ["3:12 unknown key 'maxEffort' in client", "3:26 duplicate key 'maxEffort' (first at line 3)"]),
        ("  identifier: {kind: io.l5d.path, kind: io.l5d.path}", ["3:35 duplicate key 'kind' (first at line 3)"]),
        ("  client: {protocol: htp}", ["3:22 unknown protocol 'htp'; there are grpc, h2, http — did you mean 'http'?"]),
        ("  client: {protocol: h2, initialStreamWindowBytes: 70000}", []),
        ("  service: {kind: [a]}", ["3:19 unknown kind a list; there are io.l5d.global, io.l5d.static"]),
        ("  service: {responseClassifier: {kind: io.l5d.h2.allSuccessful}}",
         ["3:40 classifier 'io.l5d.h2.allSuccessful' is not for http routers"]),
        ("  service: {kind: io.l5d.static, configs: 5}", ["3:12 io.l5d.static needs a list of 'configs'"]),
        ("  service: {kind: io.l5d.static, configs: [{totalTimeoutMs: 0}]}",
         ["3:44 missing required key 'prefix' (a path pattern)"]),
        ("  service: {kind: io.l5d.static, configs: [{prefix: /a, totalTimeoutMs: 0}]}", ["3:73 must be 1 or more, not 0"]),
        ("  servers: 5", ["3:12 expected a list with at least one server"]),
        ("  servers: [5]", ["3:13 expected a mapping, got a whole number"]),
        ("  servers: [{port: 1, ip: '::'}, {port: 1, ip: '::1'}]", ["3:34 port 1 on ::1 is taken by the server at line 3"]),
        ("  servers: [{port: 1, ip: 127.0.0.2}, {port: 1}]", []),
        ("  dtab: [a]", ["3:9 expected a dtab, got a list"]),
        ("  dtab: 5", ["3:9 expected a dtab, got a whole number"]),
        ("  dtab:", []),
        ("  dstPrefix: [a]", ["3:14 expected a path, got a list"]),
        ("  ? [a]\n  : b", ["3:5 unknown key '?' in router"]),
    ],
)  # fmt: skip
def test_values_at_the_edges(text: str, problems: list[str]) -> None:
    loaded = load(HEAD + text)
    assert shown(loaded) == problems
    assert (loaded.config is None) is bool(problems)


def test_below_an_unknown_protocol_everything_is_still_read() -> None:
    text = "routers:\n- protocol: htp\n  maxHeadersKB: 5\n  servers: [{prt: 1}]\n  client: {maxEffort: 1}\n  service: {x: 1}\n"
    assert [one.partition(" ")[0] for one in shown(load(text))] == ["2:13", "4:14", "5:12", "6:13"]


@pytest.mark.parametrize("protocol", ["", "[a]", "5", "{}"])
def test_a_protocol_that_is_no_word_is_one_problem(protocol: str) -> None:
    (problem,) = shown(load(f"routers:\n- protocol: {protocol}\n"))
    assert "expected text, got" in problem


def test_conflicts_across_routers() -> None:
    text = (
        HEAD
        + "  servers: [{port: 1, ip: 0.0.0.0}]\n- protocol: h2\n  servers: [{port: 1}]\n"
        + "- protocol: h2\n  servers: [{port: 2}]\n"
    )
    assert shown(load(text)) == [
        "5:13 port 1 on 127.0.0.1 is taken by the server at line 3",
        "6:3 two routers have the label 'h2' (first at line 4); give one a 'label'",
    ]


@pytest.mark.parametrize("text", ["\ud800", "é\x00", "a: b\n---\na: c\n", "routers: &a [*a]", "# nothing", "---", "5", "&a"])
def test_texts_that_are_no_configuration(text: str) -> None:
    assert len(load(text).problems) == 1
    assert load(text).config is None


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: FilePath) -> None:
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (nodes.MAX_BYTES + 1))
    assert "larger than" in load_file(str(big), REGISTRY).render()
    assert "larger than" in load_file("/dev/zero", REGISTRY).render()
    assert "cannot read" in load_file(str(tmp_path), REGISTRY).render()


# -- plugins ------------------------------------------------------------------------------------------------


def with_points(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> Registry:
    real = plugins.entry_points

    def fake(*, group: str) -> Any:
        return [*real(group=group), *[point for point in points if point.group == group]]

    monkeypatch.setattr(plugins, "entry_points", fake)
    return Registry()


def test_a_plugin_that_cannot_be_imported_is_told_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = with_points(monkeypatch, EntryPoint("mine", "no_such_module:PLUGIN", "waypost.identifiers"))
    (problem,) = load(HEAD + "  identifier: {kind: mine}", registry).problems
    assert (problem.line, problem.column) == (3, 22)
    assert "identifier 'mine' of an unknown distribution cannot be loaded: ModuleNotFoundError" in problem.message


def test_a_protocol_that_cannot_be_imported_does_not_disturb_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = with_points(monkeypatch, EntryPoint("broken", "no_such_module:PLUGIN", "waypost.protocols"))
    assert load(HEAD, registry).problems == ()
    (problem,) = load("routers:\n- protocol: broken\n", registry).problems
    assert "protocol 'broken' of an unknown distribution cannot be loaded" in problem.message


def test_two_plugins_of_one_kind_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = with_points(monkeypatch, EntryPoint("io.l5d.path", "other:PLUGIN", "waypost.identifiers"))
    with pytest.raises(PluginError, match="two plugins call themselves identifier 'io.l5d.path': .* and other:PLUGIN"):
        registry.get("identifier", "io.l5d.path")


def test_an_entry_point_that_is_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = with_points(monkeypatch, EntryPoint("mine", "router.spi:GROUPS", "waypost.namers"))
    with pytest.raises(PluginError, match="is not a Plugin of that kind"):
        registry.get("namer", "mine")


def _even(instance: object, attribute: object, value: int) -> None:
    if value % 2:
        raise ValueError(f"must be even, not {value}")


@attrs.frozen
class _Config:
    size_kb: int = attrs.field(validator=_even)
    names: tuple[str, ...] = ()
    ratio: float = 0.5


def test_a_plugin_of_ones_own_gets_its_configuration() -> None:
    registry = Registry({"identifier": [Plugin("mine", _Config, lambda config, context: None, frozenset({"http"}))]})
    loaded = load(HEAD + "  identifier: {kind: mine, sizeKB: 4, names: [a, b], ratio: 1}", registry)
    assert loaded.config is not None, loaded.render()
    (chosen,) = loaded.config.routers[0].base.identifier
    assert chosen.config == _Config(4, ("a", "b"), 1.0)
    wrong = load(HEAD + "  identifier: {kind: mine, sizeKB: 3, names: [a, 5], ratioo: 1}", registry)
    assert shown(wrong) == [
        "3:36 must be even, not 3",
        "3:50 expected text, got 5 (a whole number)",
        "3:54 unknown key 'ratioo' in mine — did you mean 'ratio'?",
    ]
    assert "is not for h2 routers" in load("routers:\n- protocol: h2\n  identifier: {kind: mine, sizeKB: 2}", registry).render()


@settings(deadline=None, max_examples=100)
@given(st.text(st.sampled_from("routes:-{}[]&*#|>'\"\n\t \\x/=;!%@`?,0é😀\x00\x85\u2028"), max_size=60))
def test_any_text_is_a_problem_or_a_configuration(text: str) -> None:
    for whole in (text, HEAD + "  dtab: " + text, HEAD + "  servers: " + text):
        loaded = load(whole)
        assert (loaded.config is None) is any(problem.fatal for problem in loaded.problems)
        loaded.render()
