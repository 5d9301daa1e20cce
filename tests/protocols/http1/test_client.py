"""Conversations with an endpoint over HTTP/1.1: what a session makes of its answers, and of its ends."""

from __future__ import annotations

from typing import Any

import pytest

from protocols.http1.client import Http1Session
from protocols.http1.core import Limits
from router.model.body import FixedSource
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead, ResponseHead
from router.model.stale import StaleConnection
from tests.support.fakes import Call, FakeHost, RecordingReply
from tests.support.fakewire import FakeWire

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Hinted(RecordingReply):
    def __init__(self) -> None:
        super().__init__()
        self.hints: list[ResponseHead] = []

    def inform(self, head: ResponseHead) -> None:
        self.hints.append(head)


class Back:
    """A session, and what it told the pool."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.wire = FakeWire()
        self.session = Http1Session(self.wire, Limits())  # type: ignore[arg-type]
        self.wire.start(self.session)
        self.changes: list[tuple[bool, int]] = []
        self.session.changed = lambda one: self.changes.append((one.closed, one.free))

    def call(self, method: bytes = b"GET", body: Any = None, head: RequestHead | None = None) -> Call:
        async def conduct(exchange: Exchange) -> None:
            exchange.body = body
            call_reply = Hinted()
            exchange.reply = call_reply  # type: ignore[assignment]
            self.reply = call_reply
            await self.session.conduct(exchange)

        call = Call(self.host, conduct, head or RequestHead(method, b"http", b"web", b"/"))
        self.asked = self.wire.take()
        return call

    def say(self, data: bytes) -> None:
        self.session.received(data)

    def failure(self, call: Call) -> Failure:
        assert call.failure is not None
        return call.failure


def test_one_exchange_after_the_other() -> None:
    back = Back()
    for _ in range(2):
        call = back.call()
        assert back.asked == b"GET / HTTP/1.1\r\nhost: web\r\n\r\n"
        assert (back.session.free, back.session.active) == (0, 1)
        back.say(OK)
        assert (call.done, call.failure, back.reply.body) == (True, None, b"ok")
        assert (back.session.free, back.session.active) == (1, 0)
    assert back.changes == [(False, 1)] * 2


def test_hints_go_on_and_100_does_not() -> None:
    back = Back()
    call = back.call()
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    back.say(b"HTTP/1.1 100 Continue\r\n\r\n" + hint + hint + OK)
    assert (call.done, call.failure) == (True, None)
    assert [(head.status, head.fields) for head in back.reply.hints] == [(103, ((b"link", b"x"),))] * 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 33,
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabcd\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_an_answer_that_is_malformed(answer: bytes) -> None:
    back = Back()
    call = back.call()
    back.say(answer)
    failure = back.failure(call)
    assert (failure.kind, failure.blame, failure.retryable) == (Kind.PROTOCOL, Blame.UPSTREAM, False)
    assert back.wire.aborted
    assert back.changes == [(True, 0)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", "within a message"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "within a message"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "within a message"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "closed by the endpoint"),
    ],
)
def test_an_answer_that_is_cut_off(answer: bytes, why: str) -> None:
    back = Back()
    call = back.call()
    back.say(answer)
    back.session.eof()
    failure = back.failure(call)
    assert (failure.kind, failure.blame, failure.retryable) == (Kind.RESET, Blame.UPSTREAM, False)
    assert why in failure.why
    assert back.session.closed
    assert back.changes == [(True, 0)]
    back.session.lost("gone")  # and again
    back.session.eof()
    back.session.close()
    assert back.changes == [(True, 0)]


def test_an_answer_that_ends_with_its_connection() -> None:
    back = Back()
    call = back.call()
    back.say(b"HTTP/1.1 200 OK\r\n\r\nto the end")
    assert not call.done
    back.session.eof()
    assert (call.done, call.failure, back.reply.body, back.reply.trailers) == (True, None, b"to the end", ())
    assert call.exchange.complete
    assert back.session.closed


def test_what_nobody_asked_for_ends_the_connection() -> None:
    """A 408 before it closes, for instance."""
    back = Back()
    call = back.call()
    back.say(OK)
    assert call.done
    back.say(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert (back.session.closed, back.changes) == (True, [(False, 1), (True, 0)])


def test_an_answer_that_comes_before_its_request_has_left_is_none() -> None:
    back = Back()
    first = back.call()
    back.say(OK)
    assert first.done

    async def conduct(exchange: Exchange) -> None:
        await back.session.conduct(exchange)

    second = Call(back.host, conduct)
    back.say(OK)  # a response that was split off from another one, perhaps: it is not given to this request
    failure = back.failure(second)
    assert isinstance(failure, StaleConnection)
    assert not failure.sent
    assert back.wire.aborted  # or the request would leave after all


def test_bytes_behind_an_answer_end_the_connection_with_it() -> None:
    back = Back()
    call = back.call()
    back.say(OK + b"HTTP/1.1 200 OK\r\n")
    assert (call.done, call.failure, back.reply.body) == (True, None, b"ok")
    assert back.session.closed


def test_a_connection_that_the_endpoint_closes_is_used_once() -> None:
    back = Back()
    call = back.call()
    back.say(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    assert (call.done, call.failure) == (True, None)
    assert back.session.closed


@pytest.mark.parametrize(("method", "stale"), [(b"GET", True), (b"POST", False), (b"DELETE", False)])
def test_a_connection_that_was_idle_and_ends_without_a_word(method: bytes, stale: bool) -> None:
    back = Back()
    back.call()
    back.say(OK)
    call = back.call(method)
    back.session.eof()
    failure = back.failure(call)
    assert isinstance(failure, StaleConnection) is stale
    assert failure.kind is Kind.RESET


def test_a_body_goes_out_as_the_wire_takes_it() -> None:
    back = Back()
    source = FixedSource(b"x" * 100)
    back.wire.congested = True
    call = back.call(b"POST", source)
    assert back.asked.startswith(b"POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n64\r\n")
    assert source.credited == 0
    back.wire.congested = False
    back.session.writable()
    assert source.credited == 100
    back.say(OK)
    assert (call.done, call.failure) == (True, None)
    back.session.writable()  # nothing is under way
    assert back.session.free == 1


def test_an_answer_before_the_end_of_the_request_is_the_last_of_its_connection() -> None:
    class Endless(FixedSource):
        def __init__(self) -> None:
            super().__init__(b"")
            self.ended, self._pending_end = False, None

    back = Back()
    call = back.call(b"POST", Endless())
    back.say(OK)
    assert (call.done, call.failure) == (True, None)
    assert back.wire.aborted


def test_a_post_without_a_body_says_so() -> None:
    back = Back()
    back.call(b"POST")
    assert b"content-length: 0\r\n" in back.asked
    other = Back()
    other.call(head=RequestHead(b"POST", b"http", b"web", b"/", ((b"content-length", b"0"),), length=0))
    assert other.asked.count(b"content-length") == 1


def test_a_client_that_does_not_want_the_rest_costs_the_connection() -> None:
    back = Back()
    call = back.call()
    back.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")
    back.reply.source.stop(None)
    assert back.wire.aborted
    assert call.done
    assert back.session.closed


def test_grpc_cannot_be_carried() -> None:
    back = Back()
    head = RequestHead(b"POST", b"http", b"web", b"/", ((b"content-type", b"application/grpc"),))
    failure = back.failure(back.call(head=head))
    assert (failure.kind, failure.blame) == (Kind.UNSUPPORTED, Blame.ROUTER)
    assert back.asked == b""
    assert back.session.free == 1


def test_draining() -> None:
    back = Back()
    call = back.call()
    back.session.drain()
    assert (back.session.closed, back.session.free) == (False, 0)
    back.say(OK)
    assert (call.done, call.failure, back.session.closed) == (True, None, True)
    idle = Back()
    idle.session.drain()
    assert (idle.session.closed, idle.changes) == (True, [(True, 0)])


def test_a_cancelled_exchange_leaves_no_half_answer_behind() -> None:
    back = Back()
    call = back.call()
    back.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")
    call.strand.cancel(Failure(Kind.RESET, "", Blame.CLIENT))
    assert call.done
    assert back.wire.aborted
    back.say(b"late")
    assert back.session.closed
