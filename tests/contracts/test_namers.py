"""What a dtab may rely on: every namer answers at once, with a state, and works only while it is observed."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import pytest
import trio

from dtab import Activity, Failed, Ok, Path, Pending, read_path
from dtab.tree import NEG, Leaf
from router.model.host import Host
from router.model.metrics import Metrics
from router.spi import NamerContext, Watching
from tests.contracts.conftest import REGISTRY, plugins

KINDS = [plugin.kind for plugin in plugins("namer")]
# A configuration of each kind, a name that it knows, and one that it does not.
KNOWN: dict[str, tuple[dict[str, Any], str, str]] = {
    "io.l5d.fs": ({}, "/web/rest", "/nobody"),
    "io.l5d.rewrite": ({"prefix": "/r", "pattern": "/{a}/b", "name": "/$/inet/{a}/1"}, "/x/b/rest", "/x/c"),
}


@pytest.fixture
async def host(nursery: trio.Nursery) -> Host:
    return Host(nursery)


def namer(kind: str, host: Host, directory: FilePath) -> Any:
    plugin = REGISTRY.get("namer", kind)
    settings = dict(KNOWN[kind][0])
    if kind == "io.l5d.fs":
        (directory / "web").write_text("127.0.0.1 80\n")
        settings["root_dir"] = str(directory)
    return plugin.make(plugin.config(**settings), NamerContext(host, Metrics()))


async def settled(activity: Activity[Any]) -> Any:
    states: list[Any] = []
    changed = trio.Event()

    def heard(state: Any) -> None:
        states.append(state)
        changed.set()

    observation = activity.observe(heard)
    assert states, "an observer is told the state at once"
    with trio.fail_after(2):
        while isinstance(states[-1], Pending):
            changed = trio.Event()
            await changed.wait()
    observation.close()
    return states[-1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_known_name_is_a_leaf_or_another_name(kind: str, host: Host, tmp_path: FilePath) -> None:
    made = namer(kind, host, tmp_path)
    state = await settled(made.lookup(read_path(KNOWN[kind][1])))
    assert isinstance(state, Ok)
    assert isinstance(state.value, Leaf)
    leaf = state.value.value
    if not isinstance(leaf, Path):
        assert leaf.residual == Path.of("rest")
        assert isinstance(leaf.addr, Activity)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_name_is_negative_and_not_an_error(kind: str, host: Host, tmp_path: FilePath) -> None:
    made = namer(kind, host, tmp_path)
    assert await settled(made.lookup(read_path(KNOWN[kind][2]))) == Ok(NEG)
    assert await settled(made.lookup(Path())) == Ok(NEG)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("element", [b"..", b".", b"\0", b"\xff\xfe", b"a" * 5000, b"a/b", b"~"])
async def test_no_name_breaks_it(kind: str, element: bytes, host: Host, tmp_path: FilePath) -> None:
    made = namer(kind, host, tmp_path)
    for path in (Path((element,)), Path((element, b"b")), Path((b"web", element))):
        state = await settled(made.lookup(path))
        assert isinstance(state, Ok | Failed)


@pytest.mark.parametrize("kind", KINDS)
async def test_asking_twice_is_the_same_answer(kind: str, host: Host, tmp_path: FilePath) -> None:
    made = namer(kind, host, tmp_path)
    path = read_path(KNOWN[kind][1])
    one, other = made.lookup(path), made.lookup(path)
    assert await settled(one) == await settled(other)
    assert await settled(one) == await settled(other)  # observed again after nobody did


@pytest.mark.parametrize("kind", KINDS)
async def test_a_namer_that_watches_tells_of_names_in_use_and_of_no_others(kind: str, host: Host, tmp_path: FilePath) -> None:
    made = namer(kind, host, tmp_path)
    if not isinstance(made, Watching):
        return
    activity = made.lookup(read_path(KNOWN[kind][1]))
    await settled(activity)
    assert list(made.watched()) == []
    observation = activity.observe(lambda state: None)
    told = list(made.watched())
    assert any(KNOWN[kind][1].startswith(one.name) and one.state == "bound" and one.since > 1e9 for one in told)
    observation.close()
    assert list(made.watched()) == []
