"""Records as text: the fast JSON says what the plain values say, and nothing in a record can forge another line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtab import Bound, Path, read_dtab
from dtab.namer import Endpoint
from router.access_log.forms import read_form
from router.access_log.record import values
from router.config.access_log import FIELDS, read_template
from router.model.ends import Ends
from router.model.exchange import Attempt, Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead, ResponseHead
from tests.support.fakes import FakeHost, RecordingReply
from tests.support.records import Routes, taken, written

raw = st.binary(max_size=20)


def exchange(head: RequestHead, **changes: Any) -> Exchange:
    made = Exchange(FakeHost(), head, None, RecordingReply())  # type: ignore[arg-type]
    made.attempts = []
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def head(**changes: Any) -> RequestHead:
    fields = changes.pop("fields", ((b"user-agent", b'me "x"'), (b"referer", b"/from")))
    given_ = {"method": b"GET", "scheme": b"http", "authority": b"web", "path": b"/a?b=c", **changes}
    return RequestHead(**given_, fields=fields)


routes = Routes()


def line_of(form: str, made: Exchange) -> str:
    """Of an exchange that is over now."""
    return written(taken(read_form(form, "web", "127.0.0.1:80", routes), made), made)


def as_json(made: Exchange) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the line says, and what it should."""
    line = line_of("json", made)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    said = json.loads(line)
    return said, json.loads(json.dumps(values(made, "web", "127.0.0.1:80", routes, said["time"], made.now())))


def test_a_success() -> None:
    host = FakeHost()
    made = Exchange(host, head(), None, RecordingReply())  # type: ignore[arg-type]
    made.attempts = [Attempt("10.0.0.1:80", "reset 0x7", 0.5, 0.0, 0.75), Attempt("10.0.0.2:80", "status 200", 1.0, 1.25, 1.5)]
    made.path, made.local_dtab = Path.of("svc", "web"), read_dtab("/a=>/b")
    made.bound = Bound(Path.of("#", "x"), None, Path.of("rest"))  # type: ignore[arg-type]
    made.endpoint, made.retries = Endpoint("10.0.0.2", 80), 1
    made.deadline = 2.0
    host.time = 1.5
    made.conclude(())
    made.respond(ResponseHead(200, (), length=5), False).data(b"hello", 5, True)
    made.reply.sent = 5
    made.responded_at = 1.25
    said, plain = as_json(made)
    assert said == plain
    assert tuple(said) == FIELDS
    assert said["time"].startswith("2023-11-14T22:13:21.500000") or said["time"][13:].startswith(":13:21.500000")
    assert said["name"] == "/svc/web"
    assert said["route"] == [{"dentry": "/svc=>/x", "line": 3}]
    assert (said["client"], said["residual"], said["endpoint"]) == ("/#/x", "/rest", "10.0.0.2:80")
    assert [attempt["outcome"] for attempt in said["attempts"]] == ["reset 0x7", "status 200"]
    assert said["attempts"][0]["first_byte_ms"] is None
    assert (said["sent_ms"], said["first_byte_ms"], said["total_ms"]) == (500.0, 1250.0, 1500.0)
    assert (said["deadline_ms"], said["left_ms"]) == (2000.0, 500.0)
    assert (said["status"], said["upstream_status"], said["response_bytes"]) == (200, 200, 5)


seconds = st.floats(0, 2).map(lambda value: round(value, 6))
ways = st.fixed_dictionaries(
    {
        "peer": st.sampled_from(["192.0.2.1:1", "192.0.2.1:2"]),
        "path": st.sampled_from([Path.of("svc", "web"), Path.of("svc", "b")]),
        "endpoint": st.sampled_from([Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)]),
        "status": st.sampled_from([200, 200, 200, 404, None]),
        "trailers": st.sampled_from([((b"grpc-status", b"0"),)] * 3 + [((b"grpc-status", b"5"),), ()]),
        "failure": st.sampled_from([None] * 4 + [Failure(Kind.RESET, "reset", Blame.UPSTREAM)]),
        "attempts": st.sampled_from([1, 1, 1, 1, 0, 2]),
        "times": st.lists(seconds, min_size=4, max_size=4).map(sorted),
        "deadline": st.sampled_from([None, None, 0.5, 5.0]),
        "heard": st.sampled_from([True, True, True, False]),
        "grpc": st.sampled_from([True, True, False]),
        "sent": st.integers(0, 3),
    }
)


def gone(way: dict[str, Any], head: RequestHead, ends: Ends, bound: Bound) -> Exchange:
    """An exchange that went this way, and is over."""
    host = FakeHost()
    host.time = 10.0
    made = Exchange(host, head, None, RecordingReply())  # type: ignore[arg-type]
    began, heard, ended, total = way["times"]
    made.reply.ends, made.reply.peer, made.reply.sent = ends, ends.text, way["sent"]  # type: ignore[misc]
    made.path, made.bound, made.endpoint, made.failure = way["path"], bound, way["endpoint"], way["failure"]
    if way["status"] is not None:
        made.respond(ResponseHead(way["status"]), False)
        made.conclude(way["trailers"])
    outcome = "ok" if way["trailers"] else f"status {way['status']}"
    made.responded_at = 10 + heard if way["heard"] and way["status"] else 0.0
    attempt = Attempt(way["endpoint"].show(), outcome, 10 + began, made.responded_at, 10 + ended)
    made.attempts = [attempt] * way["attempts"]
    made.retries = max(0, way["attempts"] - 1)
    if way["deadline"] is not None:
        made.deadline = 10 + way["deadline"]
    host.time = 10 + total
    return made


BOUND = Bound(Path.of("#", "x"), None, Path())  # type: ignore[arg-type]


def heads() -> dict[bool, RequestHead]:
    """Of gRPC and of others, such as come again and again."""
    made = {kind: head(fields=((b"content-type", b"application/grpc"),) if kind else ()) for kind in (True, False)}
    for one in made.values():
        one.shared = True
    return made


@given(st.lists(ways, min_size=2, max_size=8))
def test_one_line_after_the_other_says_what_it_should(all_of_them: list[dict[str, Any]]) -> None:
    routes, of_kind = Routes(), heads()
    ends = {peer: Ends() for peer in ("192.0.2.1:1", "192.0.2.1:2")}
    for peer, one in ends.items():
        one.text = peer
    form = read_form("json", "web", "127.0.0.1:80", routes)
    later: list[tuple[Exchange, Any]] = []
    lines: list[tuple[Exchange, str]] = []
    for way in all_of_them:
        for wait in (False, True):  # the second one is like the one before, but for its line, which is made last
            made = gone(way, of_kind[way["grpc"]], ends[way["peer"]], BOUND)
            later.append((made, taken(form, made)))
            if not wait:
                made, waiting = later.pop()
                lines.append((made, written(waiting, made)))
    lines += [(made, written(waiting, made)) for made, waiting in later]
    for made, line in lines:
        said = json.loads(line)
        plain = json.loads(json.dumps(values(made, "web", "127.0.0.1:80", routes, said["time"], made.now())))
        assert tuple(said) == FIELDS
        for name, value in plain.items():  # a millionth of a second may be rounded the other way
            assert said[name] == value or name == "attempts" or said[name] == pytest.approx(value, abs=0.0011), name
        for ours, theirs in zip(said["attempts"], plain["attempts"], strict=True):
            assert ours == {name: _about(value) for name, value in theirs.items()}


PATH, HERE = Path.of("svc", "web"), Endpoint("10.0.0.1", 80)
USUAL: dict[str, Any] = {
    "peer": "192.0.2.1:1", "path": PATH, "endpoint": HERE, "status": 200, "heard": True,
    "trailers": ((b"grpc-status", b"0"),), "failure": None, "attempts": 1, "times": [0.0, 0.1, 0.2, 0.3], "deadline": None,
    "grpc": True, "sent": 3,
}  # fmt: skip
UNUSUAL = [
    {"status": 404}, {"trailers": ((b"grpc-status", b"5"),)}, {"failure": Failure(Kind.RESET, "reset", Blame.UPSTREAM)},
    {"attempts": 2}, {"attempts": 0}, {"heard": False}, {"endpoint": Endpoint("10.0.0.2", 80)}, {"path": Path.of("svc", "b")},
]  # fmt: skip


def test_only_the_figures_of_the_usual_exchange_are_written_anew() -> None:
    routes, request, ends, other = Routes(), heads()[True], Ends(), Endpoint("10.0.0.2", 80)
    form = read_form("json", "web", "127.0.0.1:80", routes)

    def usual(bound: Bound = BOUND, **changes: Any) -> bool:
        """Whether nobody had to be asked for the way of this one."""
        before, made = routes.asked, gone({**USUAL, **changes}, request, ends, bound)
        written(taken(form, made), made)
        return routes.asked == before

    assert [usual() for _ in range(3)] == [False, True, True]
    for changes in UNUSUAL:
        assert not usual(**changes), changes
    usual()
    assert [usual(endpoint=other), usual(endpoint=other), usual()] == [False, True, True]
    assert not usual(Bound(Path.of("#", "x"), None, Path()))  # type: ignore[arg-type]
    usual()
    routes.interpreter.dtab = object()
    assert [usual(), usual()] == [False, True]


def _about(value: Any) -> Any:
    return pytest.approx(value, abs=0.0011) if isinstance(value, float) else value


def test_what_we_answered_ourselves() -> None:
    refused = Failure(Kind.UNBOUND, "no such name", Blame.ROUTER)
    said, plain = as_json(exchange(head(), failure=refused))
    assert said == plain
    assert (said["status"], said["upstream_status"], said["failure"], said["blame"]) == (502, None, "no such name", "router")
    grpc = head(fields=((b"content-type", b"application/grpc"),))
    said, _ = as_json(exchange(grpc, failure=refused))
    assert (said["status"], said["grpc_status"]) == (200, 14)


def test_grpcs_status_and_traces() -> None:
    fields = ((b"content-type", b"application/grpc"), (b"traceparent", b"00-%032x-%016x-01" % (0xABC << 64, 0xDEF)))
    made = exchange(head(fields=fields))
    made.respond(ResponseHead(200, ()), False)
    made.conclude(((b"grpc-status", b"5"),))
    said, plain = as_json(made)
    assert said == plain
    assert (said["grpc_status"], said["trace"]) == (5, f"{0xABC << 64:032x}")
    b3 = ((b"b3", b"%016x-%016x-1" % (0x4BF9, 0xF0)),)
    assert as_json(exchange(head(fields=b3)))[0]["trace"] == f"{0x4BF9:016x}"
    assert as_json(exchange(head(fields=((b"x-b3-traceid", b"77"),))))[0]["trace"] is None


@given(raw, raw, raw, raw, st.text(max_size=20))
def test_no_field_can_break_a_line(method: bytes, authority: bytes, path: bytes, agent: bytes, why: str) -> None:
    request = head(method=method, authority=authority, path=path, fields=((b"user-agent", agent), (b"referer", path)))
    made = exchange(request, failure=Failure(Kind.UNBOUND, why, Blame.ROUTER))
    said, plain = as_json(made)
    assert said == plain
    for form in ("linkerd", "{method} {authority} {path} {failure} {user_agent} {route}"):
        line = line_of(form, made)
        assert line.endswith("\n")
        assert len(line.splitlines()) == 1
        assert line[:-1].isprintable()


def test_linkerds_line() -> None:
    made = exchange(head(version=(1, 1)))
    made.respond(ResponseHead(404, (), length=7), False)
    line = line_of("linkerd", made)
    before, _, after = line.partition("[")
    assert before == "web 192.0.2.1 - - "
    assert after.partition("] ")[2] == '"GET /a?b=c HTTP/1.1" 404 7 "/from" "me \\"x\\""\n'
    made = exchange(head(fields=()))
    assert line_of("linkerd", made).partition("] ")[2] == '"GET /a?b=c HTTP/2" - - "-" "-"\n'


def test_a_template() -> None:
    made = exchange(head(), failure=Failure(Kind.UNBOUND, "no\nway", Blame.ROUTER))
    assert line_of("{status} {endpoint} {failure} {{x}}", made) == "502 - no\\nway {x}\n"


@pytest.mark.parametrize("form", ["{nope}", "{}", "{status:d}", "{status!r}", "{status.real}"])
def test_what_is_no_template(form: str) -> None:
    with pytest.raises(ValueError, match="is no field of the access log; there are time, router"):
        read_template(form)


def test_an_address_cannot_forge_a_field() -> None:
    strange = Endpoint('x","status":"1', 80)
    made = exchange(head(), endpoint=strange, attempts=[Attempt(strange.show(), "ok", 0.0, 0.0, 0.0)])
    said, plain = as_json(made)
    assert said == plain
    assert said["endpoint"] == said["attempts"][0]["endpoint"] == 'x","status":"1:80'
