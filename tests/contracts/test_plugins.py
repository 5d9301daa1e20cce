"""What every plugin is: a kind, a config class whose defaults make a thing, and identifiers, classifiers and pickers."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtab import Path
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead, ResponseHead
from router.model.verdict import RETRYABLE, SUCCESS, Verdict
from router.spi import GROUPS, BalancerContext, IdentifierContext, Plugin, ProtocolPlugin
from tests.contracts.conftest import REGISTRY, plugins
from tests.support.fakes import FakeHost, RecordingReply

# What the config classes without defaults need.
NEEDED: dict[str, dict[str, Any]] = {
    "io.l5d.static": {"path": "/fixed"},
    "io.l5d.successRate": {"success_rate": 0.8, "requests": 10},
    "io.l5d.successRateWindowed": {"success_rate": 0.8, "window": 30},
    "io.l5d.h2.grpc.retryableStatusCodes": {"retryable_status_codes": (8, 14)},
}


def config(plugin: Plugin) -> Any:
    return plugin.config(**NEEDED.get(plugin.kind, {}))


@pytest.mark.parametrize("plugin", [plugin for category in GROUPS for plugin in plugins(category)], ids=lambda one: one.kind)
def test_every_plugin_is_a_frozen_config_and_a_function(plugin: Plugin) -> None:
    assert attrs.has(plugin.config)
    assert plugin.config.__doc__
    with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
        plugin.config.__new__(plugin.config).anything = 1  # type: ignore[attr-defined]
    assert callable(plugin.make)


@pytest.mark.parametrize("plugin", plugins("protocol"), ids=lambda one: one.kind)
def test_protocols(plugin: Plugin) -> None:
    made = plugin.make(None, None)
    assert isinstance(made, ProtocolPlugin)
    assert made.name == plugin.kind
    assert 0 < made.port < 65536
    REGISTRY.get("identifier", made.identifier)
    REGISTRY.get("classifier", made.classifier)
    for own in (made.router_config, made.server_config, made.client_config):
        assert hash(own()) == hash(own())  # clients of the same configuration share what is made of it


# -- identifiers ----------------------------------------------------------------------------------------------

text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map(str.encode)
fields = st.lists(st.tuples(st.sampled_from([b"l5d-name", b"x", b"content-type", b"l5d-dst"]), text), max_size=4).map(tuple)
heads = st.builds(
    RequestHead,
    st.sampled_from([b"GET", b"POST", b"OPTIONS"]),
    st.just(b"http"),
    text,
    st.one_of(st.just(b"*"), text.map(lambda rest: b"/" + rest)),
    fields,
    version=st.sampled_from([(1, 0), (1, 1), (2, 0)]),
)


@pytest.mark.parametrize("plugin", plugins("identifier"), ids=lambda one: one.kind)
@given(head=heads)
def test_an_identifier_names_below_its_prefix_or_says_why_not(plugin: Plugin, head: RequestHead) -> None:
    identify = plugin.make(config(plugin), IdentifierContext(Path.of("svc", "x")))
    before = (head.method, head.path, head.authority, head.fields)
    named = identify(head)
    if isinstance(named, tuple) and not isinstance(named, Path):
        named, changed = named
        assert isinstance(changed, RequestHead)
        assert (changed.method, changed.authority) == (head.method, head.authority)
    if isinstance(named, str):
        assert named
    else:
        assert named.starts_with(Path.of("svc", "x"))
    assert (head.method, head.path, head.authority, head.fields) == before
    again = identify(head)
    assert (again if not isinstance(again, tuple) or isinstance(again, Path) else again[0]) == named


# -- classifiers ----------------------------------------------------------------------------------------------


@st.composite
def outcomes(draw: st.DrawFn) -> Exchange:
    grpc = draw(st.booleans())
    head = RequestHead(b"POST", b"http", b"web", b"/", ((b"content-type", b"application/grpc"),) if grpc else ())
    made = Exchange(FakeHost(), head, None, RecordingReply())
    if draw(st.booleans()):
        made.respond(ResponseHead(draw(st.integers(200, 599)), draw(st.sampled_from([(), ((b"grpc-status", b"x"),)]))), False)
        if draw(st.booleans()):
            made.conclude(draw(st.sampled_from([(), ((b"grpc-status", b"0"),), ((b"grpc-status", b"14"),)])))
    if not made.complete:
        made.failure = Failure(draw(st.sampled_from(Kind)), "as told", draw(st.sampled_from(Blame)))
    return made


@pytest.mark.parametrize("plugin", plugins("classifier"), ids=lambda one: one.kind)
@given(over=outcomes())
def test_a_classifier_judges_everything_and_what_did_not_end_is_no_success(plugin: Plugin, over: Exchange) -> None:
    classify = plugin.make(config(plugin), None)
    verdict = classify(over)
    assert isinstance(verdict, Verdict)
    assert over.complete or verdict is not SUCCESS
    assert classify(over) is verdict
    if verdict is RETRYABLE and over.response is not None and over.complete:
        assert any(classify.holds(over, over.response, end) for end in (True, False))  # or the client would have seen it


# -- pickers --------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Target:
    load: int = 0
    weight: float = 1.0
    available: bool = True
    service: Any = None


CONTEXT = BalancerContext(lambda: 0.0)
PICKERS = pytest.mark.parametrize("make_picker", [one.make(config(one), CONTEXT).make_picker for one in plugins("balancer")])


@PICKERS
def test_nothing_is_picked_from_nothing_and_one_from_one(make_picker: Any) -> None:
    only = Target()
    assert make_picker(())() is None
    assert make_picker((only,))() is only


@PICKERS
def test_every_target_is_picked_and_dead_ones_only_when_all_are(make_picker: Any) -> None:
    targets = [Target() for _ in range(5)]
    pick = make_picker(targets)
    assert {id(pick()) for _ in range(400)} == {id(target) for target in targets}
    targets[0].available = targets[1].available = False
    missed = sum(pick() in targets[:2] for _ in range(500))
    assert missed < 10
    for target in targets:
        target.available = False
    assert pick() is not None


@PICKERS
def test_loads_stay_close(make_picker: Any) -> None:
    targets = [Target() for _ in range(10)]
    pick = make_picker(targets)
    running: list[Target] = []
    random.seed(1)  # pickers draw from it too
    for _ in range(5000):
        target = pick()
        target.load += 1
        running.append(target)
        if len(running) > 200:
            running.pop(random.randrange(len(running))).load -= 1
    assert max(target.load for target in targets) - min(target.load for target in targets) <= 8


@PICKERS
def test_weights_are_shares_of_load(make_picker: Any) -> None:
    light, heavy = Target(weight=1.0), Target(weight=3.0)
    pick = make_picker((light, heavy))
    for _ in range(400):
        pick().load += 1
    assert heavy.load / light.load == pytest.approx(3.0, rel=0.1)


@PICKERS
def test_a_snapshot_is_never_changed(make_picker: Any) -> None:
    targets = [Target(load=at, weight=1 + at % 2) for at in range(4)]
    pick = make_picker(tuple(targets))
    for _ in range(100):
        pick()
    assert [(target.load, target.weight, target.available) for target in targets] == [(at, 1 + at % 2, True) for at in range(4)]
