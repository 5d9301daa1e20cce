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
    "io.l5d.recentRequests": {"sample_rate": 0.5},
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
    metric: Any = None
    name: str = ""

    def show(self) -> str:
        return self.name or hex(id(self))


class World:
    """A balancer of a kind, endpoints that take time, and a clock."""

    def __init__(self, plugin: Plugin) -> None:
        self.time = 0.0
        self.rng = random.Random(1)
        self.policy = plugin.make(config(plugin), BalancerContext(lambda: self.time, self.rng.random))
        self.running: list[tuple[float, float, Target]] = []

    def begin(self, target: Target, seconds: float = 1.0) -> None:
        target.load += 1
        self.running.append((self.time, seconds, target))

    def end(self, at: int) -> None:
        _, seconds, target = self.running.pop(at)
        target.load -= 1
        if self.policy.ended is not None:
            self.policy.ended(target, seconds, True)


BALANCERS = pytest.mark.parametrize("plugin", plugins("balancer"), ids=lambda one: one.kind)
ALL = [plugin for plugin in plugins("balancer") if plugin.kind != "aperture"]  # an aperture leaves some out, by design


@BALANCERS
def test_nothing_is_picked_from_nothing_and_one_from_one(plugin: Plugin) -> None:
    make_picker = World(plugin).policy.make_picker
    only = Target()
    assert make_picker(())() is None
    assert make_picker((only,))() is only


@pytest.mark.parametrize("plugin", ALL, ids=lambda one: one.kind)
def test_every_target_is_picked(plugin: Plugin) -> None:
    world, targets = World(plugin), [Target() for _ in range(5)]
    pick = world.policy.make_picker(targets)
    seen = set()
    for _ in range(400):
        world.begin(pick())
        seen.add(id(world.running[-1][2]))
        world.time += 0.01
        if len(world.running) > 7:
            world.end(0)
    assert seen == {id(target) for target in targets}


@BALANCERS
def test_dead_ones_are_picked_only_when_all_are(plugin: Plugin) -> None:
    world, targets = World(plugin), [Target() for _ in range(5)]
    pick = world.policy.make_picker(targets)
    targets[0].available = targets[1].available = False
    missed = 0
    for _ in range(500):
        target = pick()
        missed += target in targets[:2]
        world.begin(target)
        world.end(0)
    assert missed < 10
    for target in targets:
        target.available = False
    assert pick() is not None


@pytest.mark.parametrize("plugin", [one for one in ALL if one.kind != "roundRobin"], ids=lambda one: one.kind)
def test_loads_stay_close(plugin: Plugin) -> None:
    world, targets = World(plugin), [Target() for _ in range(10)]
    pick = world.policy.make_picker(targets)
    for _ in range(5000):
        world.begin(pick())
        world.time += 0.001
        if len(world.running) > 200:
            world.end(world.rng.randrange(len(world.running)))
    loads = [target.load for target in targets]
    assert max(loads) - min(loads) <= 8


@pytest.mark.parametrize("plugin", ALL, ids=lambda one: one.kind)
def test_weights_are_shares(plugin: Plugin) -> None:
    world, light, heavy = World(plugin), Target(weight=1.0), Target(weight=3.0)
    pick = world.policy.make_picker((light, heavy))
    picked = {id(light): 0, id(heavy): 0}
    for _ in range(4000):
        target = pick()
        picked[id(target)] += 1
        world.begin(target)
        world.time += 0.001
        if len(world.running) > 40:
            world.end(world.rng.randrange(len(world.running)))
    assert picked[id(heavy)] / picked[id(light)] == pytest.approx(3.0, rel=0.15)


@BALANCERS
def test_a_snapshot_is_never_changed(plugin: Plugin) -> None:
    world, targets = World(plugin), [Target(load=at, weight=1 + at % 2) for at in range(4)]
    pick = world.policy.make_picker(tuple(targets))
    for _ in range(100):
        pick()
    assert [(target.load, target.weight, target.available) for target in targets] == [(at, 1 + at % 2, True) for at in range(4)]


def test_turns_find_the_one_that_lives_however_light_it_is() -> None:
    world = World(next(plugin for plugin in ALL if plugin.kind == "roundRobin"))
    heavy, light = [Target(weight=4.0), Target(weight=2.0)], Target(weight=0.0)
    pick = world.policy.make_picker((*heavy, light))
    for target in heavy:
        target.available = False
    assert [pick() for _ in range(20)] == [light] * 20


@BALANCERS
@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "end", "die", "live", "join", "leave", "wait"]), st.integers(0, 9)), max_size=60
    )
)
def test_any_life(plugin: Plugin, steps: list[tuple[str, int]]) -> None:
    world, targets = World(plugin), [Target(weight=1.0 + at) for at in range(2)]
    pick = world.policy.make_picker(tuple(targets))
    for what, which in steps:
        if what == "begin":
            target = pick()
            assert (target is None) is (not targets)
            if target is not None:
                assert target in targets
                assert target.available or plugin.kind in ("p2c", "ewma", "aperture") or not any(t.available for t in targets)
                world.begin(target)
        elif what == "end" and world.running:
            world.end(which % len(world.running))
        elif what in ("die", "live") and targets:
            targets[which % len(targets)].available = what == "live"
        elif what == "wait":
            world.time += which
        elif what in ("join", "leave"):
            targets = [*targets, Target(weight=float(which))] if what == "join" else targets[1:]
            pick = world.policy.make_picker(tuple(targets))
    while world.running:
        world.end(0)
    assert all(target.load == 0 for target in targets)
