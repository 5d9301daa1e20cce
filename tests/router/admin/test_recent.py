"""``io.l5d.recentRequests``: what is recorded, merged over workers, and shown; and what is not recorded costs no layer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.config.load import load_text
from router.config.plugins import Registry
from router.filters.access_log import AccessLog, access_log, recent_requests
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.serve.answers import Answers
from router.telemeters.recent_requests import Config, Ring
from tests.router.admin.test_admin import TEXT, HereChannel, HereSlot, admin
from tests.support.fakes import Call, FakeHost, answering


async def test_the_last_requests_are_shown_with_their_way() -> None:
    async with admin() as rig:
        assert (await rig.ask("/requests.json")).json == []
        for _ in range(3):
            await rig.call()
        first, second = (await rig.ask("/requests.json")).json
        assert first["time"] >= second["time"]
        assert (first["router"], first["name"], first["client"]) == ("web", "/svc/a", "/$/inet/127.0.0.1/1")
        assert first["route"] == [{"dentry": "/svc=>/$/inet/127.0.0.1/1", "line": 7}]
        assert first["status"] == 502
        assert {attempt["endpoint"] for attempt in first["attempts"]} == {"127.0.0.1:1"}
        page = await rig.ask("/requests")
        assert page.headers[b"content-type"].startswith(b"text/html")
        assert page.body.count(b"<tr><td>") == 2
        assert b"/svc=&gt;/$/inet/127.0.0.1/1 (line 7)" in page.body


async def test_those_of_all_workers_together_are_as_many_as_one_keeps() -> None:
    async with admin() as rig:
        await rig.call()
        ring = Ring(Config(sample_rate=1.0, capacity=2))
        text = json.dumps((await rig.ask("/requests.json")).json[0])
        for name in ("a", "b", "c"):
            ring.keep(text.replace('"/svc/a"', f'"/svc/{name}<"'))
        other = Answers(rig.worker).handlers | {"requests": lambda: answer([[2, ring.recent]])}
        assert rig.supervisor.generation is not None
        slot: Any = HereSlot(HereChannel(other), number=1)
        rig.supervisor.generation.slots.append(slot)
        assert [record["name"] for record in (await rig.ask("/requests.json")).json] == ["/svc/c<", "/svc/b<"]
        assert b"/svc/c&lt;" in (await rig.ask("/requests")).body


async def answer(value: Any) -> Any:
    return value


async def test_where_nothing_is_recorded_there_is_nothing_to_show() -> None:
    text = "\n".join([line for line in TEXT.splitlines() if "telemetry" not in line])
    async with admin(text) as rig:
        for path in ("/requests", "/requests.json"):
            told = await rig.ask(path)
            assert (told.status, "kind: io.l5d.recentRequests" in told.json["error"]) == (404, True)


def test_without_recorders_there_is_no_layer() -> None:
    service = answering()
    assert recent_requests((), service) is service


@pytest.mark.parametrize(("sample", "kept"), [(0.0, 0), (1.0, 1)])
def test_the_sample_is_drawn_before_anything_is_kept(sample: float, kept: int) -> None:
    written: list[str] = []
    seen: list[Any] = []

    async def service(exchange: Exchange) -> None:
        seen.append(exchange.attempts)
        await answering()(exchange)

    log = AccessLog(lambda exchange: written.append("record"), sample)
    assert Call(FakeHost(), recent_requests((log,), service)).done
    assert (len(written), seen) == (kept, [[]] if kept else [None])


def test_a_record_is_made_when_the_exchange_is_closed_and_a_bug_in_it_ends_nothing() -> None:
    seen: list[Failure | None] = []
    crashes: list[Exception] = []
    host = FakeHost()
    host.crashed = crashes.append  # type: ignore[method-assign, assignment]

    def broken(exchange: Exchange) -> None:
        raise ValueError("a bug")

    async def service(exchange: Exchange) -> None:
        await recent_requests((AccessLog(lambda exchange: seen.append(exchange.failure)),), answering())(exchange)
        assert not seen
        exchange.failure = gone  # while the answer left

    gone = Failure(Kind.RESET, "the client went away", Blame.CLIENT)
    call = Call(host, access_log(AccessLog(broken), access_log(AccessLog(lambda one: seen.append(one.failure)), service)))
    assert call.done
    assert (seen, len(crashes)) == ([gone, gone], 1)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", "missing required key 'sampleRate'"),
        (", sampleRate: 1.5", "must be between 0 and 1, not 1.5"),
        (", sampleRate: 1, capacity: 0", "must be between 1 and 1000, not 0"),
        (", sampleRate: 1, capacity: 1001", "must be between 1 and 1000, not 1001"),
    ],
)
def test_wrong_keys(keys: str, told: str) -> None:
    text = f"telemetry:\n- {{kind: io.l5d.recentRequests{keys}}}\nrouters:\n- protocol: http\n"
    loaded = load_text(text, "test.yaml", Registry())
    assert loaded.config is None
    assert told in loaded.render()
    assert all(problem.line == 2 for problem in loaded.problems)
