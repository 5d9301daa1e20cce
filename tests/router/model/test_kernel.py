"""Bodies, stacks, metrics, failures and answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.grpc.timeout import parse_timeout, show_timeout
from router.model.answers import err_header, grpc_message
from router.model.body import FixedSource, Source
from router.model.failure import ANSWERS, Blame, Failure, Kind
from router.model.headers import RequestHead, is_grpc
from router.model.metrics import Metrics
from router.model.stack import Module, Stack, StackError


class Collecting:
    """A sink that accepts everything, now or when told."""

    def __init__(self, accept: bool = True) -> None:
        self.source: Source | None = None
        self.accept = accept
        self.log: list[Any] = []

    def data(self, chunk: Any, size: int, end: bool) -> None:
        self.log.append((bytes(chunk), end))
        if self.accept and self.source is not None:
            self.source.credit(size)

    def end(self, trailers: Any) -> None:
        self.log.append(("end", trailers))

    def abort(self, failure: Failure) -> None:
        self.log.append(("abort", failure.kind))


def test_a_source_holds_until_joined_and_then_pushes() -> None:
    source, sink = FixedSource(b"abc", ((b"t", b"1"),)), Collecting()
    assert source.held() == 3
    source.join(sink)
    assert sink.log == [(b"abc", False), ("end", ((b"t", b"1"),))]
    assert source.credited == 3


def test_an_end_with_the_last_bytes_stays_with_them() -> None:
    sink = Collecting()
    FixedSource(b"abc").join(sink)
    assert sink.log == [(b"abc", True)]
    empty = Collecting()
    FixedSource().join(empty)
    assert empty.log == [("end", ())]


def test_a_failure_before_the_join_is_told_after_it() -> None:
    source, sink = FixedSource(b"abc"), Collecting()
    source.fail(Failure(Kind.RESET, "gone"))
    source.join(sink)
    assert sink.log[-1] == ("abort", Kind.RESET)


def identity(params: Any, service: Any) -> Any:
    return service


def test_stacks_are_edited_by_role_and_checked() -> None:
    stack = Stack((Module("a", identity, above=frozenset({"b"})), Module("b", identity)))
    assert stack.check().insert_above("b", Module("c", identity)).roles == ["a", "c", "b"]
    assert stack.insert_below("b", Module("c", identity)).roles == ["a", "b", "c"]
    assert stack.replace("b", Module("d", identity)).remove("a").roles == ["d"]
    with pytest.raises(StackError, match="no module has the role 'x'"):
        stack.remove("x")
    with pytest.raises(StackError, match="wrong side"):
        Stack(stack.modules[::-1]).check()
    with pytest.raises(StackError, match="twice"):
        Stack((stack.modules[1], stack.modules[1])).check()


def test_the_first_module_of_a_stack_sees_the_request_first() -> None:
    def naming(name: str) -> Module:
        return Module(name, lambda params, service: f"{name}({service})")  # type: ignore[arg-type,return-value]

    assert Stack((naming("a"), naming("b"))).make(None, "x") == "a(b(x))"  # type: ignore[arg-type,comparison-overlap]


def test_metrics_are_slots_by_name() -> None:
    root = Metrics()
    scope = root.scope("rt", "http")
    scope.counter("requests").value += 2
    assert root.scope("rt").scope("http").counter("requests").value == 2
    stat = scope.stat("latency")
    for value in (0.5, 1.0, 40.0):
        stat.add(value)
    assert stat.percentile(0.5) == pytest.approx(1.0)
    assert stat.percentile(1.0) == pytest.approx(40.0)
    assert root.flat()["rt/http/latency.count"] == 3
    with pytest.raises(TypeError, match="is a Counter"):
        scope.gauge("requests")
    scope.remove()
    assert root.flat() == {}


@pytest.mark.parametrize("kind", Kind)
def test_every_failure_has_an_answer_that_applications_do_not_own(kind: Kind) -> None:
    answer = ANSWERS[kind]
    assert 400 <= answer.http < 600
    assert answer.grpc not in (0, 3, 5, 6, 9, 10, 11, 15)  # gRFC A54


def test_a_reset_goes_on_with_its_code() -> None:
    assert Failure(Kind.RESET, "", Blame.UPSTREAM, code=8).answer[1:3] == (1, 8)
    assert Failure(Kind.RESET, "", Blame.UPSTREAM, code=11).answer[1:3] == (8, 11)
    assert Failure(Kind.RESET, "", Blame.UPSTREAM, code=10).answer[1:3] == (13, 10)  # CONNECT_ERROR: of a tunnel's other end
    assert Failure(Kind.RESET, "", Blame.UPSTREAM, code=7, retryable=True).answer[1:3] == (14, 7)


def test_a_reset_that_proves_nothing_is_not_told_as_one_that_can_be_replayed() -> None:
    assert Failure(Kind.RESET, "", Blame.UPSTREAM, code=7).answer[1:3] == (14, 2)


@pytest.mark.parametrize("code", [0, 1, 3, 4, 5, 6, 9, 12, 13, 99])
def test_what_a_reset_says_of_our_own_hop_stays_on_it(code: int) -> None:
    """NO_ERROR within a body would be a clean end to a client, HTTP_1_1_REQUIRED would send it to another protocol."""
    assert Failure(Kind.RESET, "", Blame.UPSTREAM, code=code).answer.h2 == 2


@given(st.text())
def test_grpc_messages_are_printable_and_can_be_decoded(text: str) -> None:
    coded = grpc_message(text)
    assert all(0x20 <= byte < 0x7F for byte in coded)


def test_grpc_message_escapes_as_the_protocol_says() -> None:
    assert grpc_message("a%b\n\u00fc") == b"a%25b%0A%C3%BC"


def test_err_header_has_no_line_breaks() -> None:
    assert err_header("a b\nc") == b"a+b%0Ac"
    assert len(err_header("x" * 20000)) == 8192


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1S", 1.0), (b"100m", 0.1), (b"5u", 5e-6), (b"2H", 7200.0), (b"0n", 0.0), (b"99999999n", 0.099999999)],
)
def test_timeouts_are_read(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1s", b"1 S", b"1M "])
def test_what_is_no_timeout(value: bytes) -> None:
    assert parse_timeout(value) is None


@given(st.floats(min_value=1e-6, max_value=1e10))
def test_a_timeout_sent_on_never_grants_more(seconds: float) -> None:
    told = parse_timeout(show_timeout(seconds))
    assert told is not None
    assert told <= seconds * (1 + 1e-9)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpcfoo", False),
        (None, False),
    ],
)
def test_the_content_type_rule(value: bytes | None, wanted: bool) -> None:
    assert is_grpc(value) is wanted


def test_heads_keep_order_and_repetition() -> None:
    head = RequestHead(b"GET", b"http", b"a", b"/", ((b"x", b"1"), (b"y", b"2"), (b"x", b"3")))
    assert head.get(b"x") == b"1"
    assert head.get_all(b"x") == [b"1", b"3"]
    assert head.replace(path=b"/b").fields == head.fields
    assert head.with_fields(()).path == b"/"
