"""Configuration files: what is good, and everything that is wrong at once, with its place."""

from __future__ import annotations

import os
from pathlib import Path as FilePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtab import read_path
from router.config.load import Loaded, effective, load_file, load_text
from router.config.plugins import PluginError, Registry
from router.config.schema import ClientBase, ServiceBase
from router.spi import Plugin

REGISTRY = Registry()
EXAMPLES = FilePath(
    os.environ.get("WAYPOST_LINKERD_CONFIGS", str(FilePath(__file__).parents[4] / "shared" / "linkerd1-configs"))
)
ROOT = FilePath(__file__).parents[3]


def load(text: str) -> Loaded:
    return load_text(text, "t.yaml", REGISTRY)


def shown(loaded: Loaded) -> list[str]:
    return [f"{problem.line}:{problem.column} {problem.severity}: {problem.message}" for problem in loaded.problems]


GOOD = """\
admin: {port: 0}
namers:
- kind: io.l5d.rewrite
  prefix: /rw
  pattern: "/{service}/api"
  name: /srv/{service}
routers:
- protocol: h2
  label: one
  dtab: |
    # a comment
    /svc => /srv ;
    /srv => 0.5 * /a &
            0.5 * /b ;
  identifier:
  - kind: io.l5d.header.path
    segments: 2
  - {kind: io.l5d.static, path: web}
  servers:
  - port: 1
    initialStreamWindowBytes: 1000
  - {port: 2, ip: 0.0.0.0}
  service:
    kind: io.l5d.static
    configs:
    - {prefix: /svc, totalTimeoutMs: 100}
    - prefix: /svc/{name}
      totalTimeoutMs: 200
      responseClassifier: {kind: io.l5d.h2.allSuccessful}
  client:
    requestAttemptTimeoutMs: 50
    loadBalancer: {kind: p2c, maxEffort: 3}
    protocol: http
- protocol: http
  dtab: /svc => /$/inet/127.1/80
"""


def test_a_good_file() -> None:
    loaded = load(GOOD)
    assert all("has no effect" in problem.message for problem in loaded.problems), shown(loaded)
    assert loaded.config is not None
    one, two = loaded.config.routers
    assert (one.label, two.label) == ("one", "http")
    assert [dentry.line for dentry in one.base.dtab] == [12, 13]
    assert [dentry.column for dentry in one.base.dtab] == [5, 5]
    assert [server.port for server in one.servers] == [1, 2]
    assert two.servers[0].port == 4140
    assert one.servers[0].protocol.initial_stream_window_bytes == 1000
    assert [chosen.plugin.kind for chosen in one.base.identifier] == ["io.l5d.header.path", "io.l5d.static"]


def test_static_configs_apply_in_order_key_by_key() -> None:
    loaded = load(GOOD)
    assert loaded.config is not None
    base = loaded.config.routers[0].base
    (some,) = effective(base.service, read_path("/svc"), ServiceBase)
    (named,) = effective(base.service, read_path("/svc/web/x"), ServiceBase)
    (none,) = effective(base.service, read_path("/other"), ServiceBase)
    assert [one.total_timeout_ms for one in (some, named, none)] == [100, 200, None]
    assert named.response_classifier.plugin.kind == "io.l5d.h2.allSuccessful"
    (client,) = effective(base.client, read_path("/$/inet/1/2"), ClientBase)
    assert (client.request_attempt_timeout_ms, client.protocol, client.load_balancer.config.max_effort) == (50, "http", 3)


def test_everything_wrong_is_told_at_once_in_order() -> None:
    text = """\
namers:
- kind: io.l5d.rewrite
  patern: x
  name: /y
routers:
- protocol: http
  dtab: |
    /a => /b ;
    /c => /d & ;
  servers:
  - port: "4140"
    ip: 127.0.0.1
    ip: 0.0.0.0
  serverz: []
- label: x
- protocol: htp
- protocol: thrift
  thriftProtocol: binary
"""
    assert shown(load(text)) == [
        "2:3 error: missing required key 'pattern'",
        "3:3 error: unknown key 'patern' in io.l5d.rewrite — did you mean 'pattern'?",
        "9:16 error: dtab: simple expected but ';' found",
        "11:11 error: expected a whole number, got '4140' (text)",
        "13:5 error: duplicate key 'ip' (first at line 12)",
        "14:3 error: unknown key 'serverz' in router — did you mean 'servers'?",
        "15:3 error: missing required key 'protocol'",
        "16:13 error: unknown protocol 'htp'; there are grpc, h2, http — did you mean 'http'?",
        "17:13 unsupported: protocol 'thrift' is not supported yet",
        "18:3 unsupported: 'thriftProtocol' is not supported yet",
    ]
    rendered = load(text).render()
    assert "t.yaml:9:16: error: dtab: simple expected but ';' found   [routers.0.dtab]" in rendered
    assert "\n     9 |     /c => /d & ;\n       |                ^" in rendered


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1:1 error: the file is empty"),
        ("- a", "1:1 error: a configuration is a mapping of keys such as 'routers'"),
        ("routers: []", "1:10 error: no routers: expected a list with at least one"),
        ("admin: {port: 1}", "1:1 error: no routers: a configuration needs at least one"),
        ("routers: {", "2:1 error: not YAML: "),
        ("interfaces: []\nstorage: {}", "1:1 error: this is a configuration of namerd, not of linkerd"),
        ("routers:\n- protocol: http\n  baseDtab: x", "3:3 error: 'baseDtab' was renamed to 'dtab' in Linkerd 0.9.0"),
        (
            "routers:\n- protocol: http\n- protocol: http\n  servers: [{port: 1}]",
            "3:3 error: two routers have the label 'http' (first at line 2)",
        ),
        (
            "routers:\n- protocol: http\n  servers: [{port: 1}, {port: 1}]",
            "3:24 error: port 1 on 127.0.0.1 is taken by the server at line 3",
        ),
        ("routers:\n- protocol: http\n  servers: [{port: 99999}]", "3:20 error: a port is between 0 and 65535, not 99999"),
        ("routers:\n- protocol: http\n  dstPrefix: svc", "3:14 error: path: '/' expected but 's' found"),
        ('routers:\n- protocol: http\n  dtab: "/a => b"', "3:16 error: dtab: simple expected but 'b' found"),
        ("routers:\n- protocol: http\n  dtab: /a => b", "3:15 error: dtab: simple expected but 'b' found"),
        ("routers:\n- protocol: http\n  identifier: {kind: io.l5d.pth}", "3:22 error: unknown identifier 'io.l5d.pth'"),
        (
            "routers:\n- protocol: http\n  identifier: {kind: io.l5d.ingress}",
            "3:22 unsupported: identifier 'io.l5d.ingress' is not supported yet",
        ),
        (
            "routers:\n- protocol: h2\n  identifier: {kind: io.l5d.methodAndHost}",
            "3:22 error: identifier 'io.l5d.methodAndHost' is not for h2 routers",
        ),
        (
            "routers:\n- protocol: http\n  service: {kind: io.l5d.statik}",
            "3:19 error: unknown kind 'io.l5d.statik'; there are io.l5d.global, io.l5d.static",
        ),
        (
            "routers:\n- protocol: http\n  client: {socketOptions: {noDelay: true}}",
            "3:12 unsupported: 'socketOptions' is not supported yet",
        ),
        ("routers:\n- protocol: http\n  bindingTimeoutMs: 0", "3:21 error: must be 1 or more, not 0"),
        ('{"routers": [{"protocol": "http", "labl": 1}]}', "1:35 error: unknown key 'labl' in router — did you mean 'label'?"),
    ],
)
def test_problems(text: str, problem: str) -> None:
    problems = shown(load(text))
    assert any(one.startswith(problem) for one in problems), problems
    assert load(text).config is None


def test_yaml_1_2_words_stay_words() -> None:
    loaded = load("routers:\n- protocol: http\n  label: no\n  identifier: {kind: io.l5d.header, header: on}\n")
    assert loaded.config is not None
    assert loaded.config.routers[0].label == "no"
    assert loaded.config.routers[0].base.identifier[0].config.header == "on"


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: FilePath) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in load_file(str(bad), REGISTRY).render()
    assert "cannot read the file" in load_file(str(tmp_path / "none"), REGISTRY).render()


def test_aliases_do_not_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 9)]
    assert "too large" in load("\n".join(lines)).render()


@settings(deadline=None, max_examples=80)
@given(st.integers(0, len(GOOD)), st.integers(0, 12), st.text(st.sampled_from(" :-{}[]&*#|>'\"\n\tx/=;"), max_size=4))
def test_a_mutated_file_is_good_or_has_problems(at: int, cut: int, text: str) -> None:
    loaded = load(GOOD[:at] + text + GOOD[at + cut :])
    assert (loaded.config is None) is any(problem.fatal for problem in loaded.problems)
    assert loaded.render() is not None


def test_the_examples_of_the_documentation_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in sorted((ROOT / "docs" / "examples").glob("*.yaml")):
        assert load_file(str(name), REGISTRY).problems == ()


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples of Linkerd 1.x are not here (WAYPOST_LINKERD_CONFIGS)")
def test_linkerds_examples_have_no_problem_but_what_is_not_supported_yet(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "linkerd").mkdir()
    (tmp_path / "linkerd" / "examples").symlink_to(EXAMPLES / "linkerd")
    monkeypatch.chdir(tmp_path)
    names = sorted((tmp_path / "linkerd" / "examples").glob("*.yaml"))
    assert len(names) > 30
    for name in names:
        problems = load_file(str(name), REGISTRY).problems
        assert [problem for problem in problems if problem.severity == "error"] == [], name


def test_a_registry_lists_what_there_is() -> None:
    with pytest.raises(PluginError, match="p2c, roundRobin — did you mean 'p2c'"):
        REGISTRY.get("balancer", "p2d")
    mine = Registry({"balancer": [Plugin("mine", object, lambda config, context: None)]})
    assert mine.kinds("balancer") == ["aperture", "ewma", "heap", "mine", "p2c", "roundRobin"]
    assert mine.get("balancer", "mine").kind == "mine"


def test_what_has_no_effect_is_told_and_refuses_nothing() -> None:
    text = """
    admin: {ip: 0.0.0.0, port: 9990, workerThreads: 3}
    routers:
    - protocol: h2
      bindingCache: {paths: 7, trees: 8}
      servers: [{port: 0, windowUpdateRatio: 0.5}]
    """
    loaded = load(text)
    assert loaded.config is not None
    told = [(problem.where, problem.severity) for problem in loaded.problems]
    assert told == [
        (where, "warning")
        for where in ("admin.workerThreads", "routers.0.bindingCache.trees", "routers.0.servers.0.windowUpdateRatio")
    ]
    assert all(problem.message.startswith("has no effect: ") for problem in loaded.problems)


@pytest.mark.parametrize(
    ("dtab", "told"),
    [
        ("|\n    /a => /b\n    /c => /d ;", "is a ';' missing before this rule?"),
        ("/a => /b, /c => /d", "rules are separated by ';'"),
        ("/a => /b/ ;", "no '/' at its end"),
        ("/a => /b ;; /c => /d", "one ';' between rules is enough"),
        ("a => /b", "paths begin with '/'"),
    ],
)
def test_the_mistakes_that_are_made_most_are_told_how_to_mend(dtab: str, told: str) -> None:
    (problem,) = load(f"routers:\n- protocol: http\n  dtab: {dtab}\n").problems
    assert problem.message.endswith(told)
