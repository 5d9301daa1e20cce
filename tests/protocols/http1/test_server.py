"""Conversations with a client's HTTP/1.1 connection: what its shell makes of messages, of services, and of the wire."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from protocols.http1.core import Limits
from protocols.http1.server import Http1Server
from protocols.http1.server_connection import REQUESTS_PER_TURN
from protocols.http1.server_watch import LAST_CALL
from router.model.abuse import AbuseLimits
from router.model.answers import render_http
from router.model.body import FixedSource, Sink
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Waiter
from router.spi import ServerContext
from tests.support.fakes import FakeHost
from tests.support.fakewire import FakeWire

GET = b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n"
NO_TIMES = AbuseLimits(first_request_timeout_ms=0, head_timeout_ms=0, body_timeout_ms=0, stall_timeout_ms=0)


class CrashHost(FakeHost):
    """A host that keeps crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.crashes: list[Exception] = []

    def crashed(self, error: Exception) -> None:
        self.crashes.append(error)


class Front:
    """One connection, and the exchanges that came of it."""

    def __init__(self, service: Any = None, abuse: AbuseLimits = NO_TIMES, limits: Limits = Limits()) -> None:  # noqa: B008
        self.host: Any = CrashHost()
        self.wire = FakeWire()
        self.exchanges: list[Exchange] = []
        self.metrics = Metrics()
        context = ServerContext(self.host, None, self._service(service or self.echo), render_http, self.metrics)
        self.server = Http1Server(limits, context, abuse)
        self.server.adopt(self.wire, b"", 0.0)  # type: ignore[arg-type]
        self.connection = self.wire.protocol

    def _service(self, service: Any) -> Any:
        async def noted(exchange: Exchange) -> None:
            self.exchanges.append(exchange)
            await service(exchange)

        return noted

    async def echo(self, exchange: Exchange) -> None:
        sink = exchange.respond(ResponseHead(200), exchange.body is None)
        exchange.conclude(())
        if exchange.body is not None:
            exchange.body.join(sink)

    def say(self, data: bytes) -> bytes:
        self.connection.received(data)
        return self.wire.take()


async def never(exchange: Exchange) -> None:
    await Waiter[None]()


def streaming(waiter: Waiter[None]) -> Any:
    """A service that begins an answer without a length, waits, and ends it."""

    async def service(exchange: Exchange) -> None:
        sink = exchange.respond(ResponseHead(200), False)
        source = FixedSource(b"data")
        source.join(sink)
        await waiter
        exchange.conclude(())

    return service


# -- what is answered, by version and method -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_line", "connection", "framing", "body", "stays"),
    [
        (b"GET / HTTP/1.1", b"", b"transfer-encoding: chunked\r\n", b"4\r\ndata\r\n0\r\n\r\n", True),
        (b"GET / HTTP/1.1", b"close", b"transfer-encoding: chunked\r\nconnection: close\r\n", b"4\r\ndata\r\n0\r\n\r\n", False),
        (b"GET / HTTP/1.0", b"", b"connection: close\r\n", b"data", False),
        (b"GET / HTTP/1.0", b"keep-alive", b"connection: close\r\n", b"data", False),  # else it had no end
        (b"HEAD / HTTP/1.1", b"", b"", b"", True),
        (b"HEAD / HTTP/1.0", b"keep-alive", b"connection: keep-alive\r\n", b"", True),
    ],
)
def test_an_answer_without_a_length(request_line: bytes, connection: bytes, framing: bytes, body: bytes, stays: bool) -> None:
    waiter: Waiter[None] = Waiter()
    front = Front(streaming(waiter))
    if b"HEAD" in request_line:
        front = Front(_head_of_a_stream)
    fields = b"connection: " + connection + b"\r\n" if connection else b""
    answer = front.say(request_line + b"\r\nhost: a\r\n" + fields + b"\r\n")
    waiter.wake(None)
    answer += front.wire.take()
    assert answer == b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + body
    assert front.wire.closed is not stays


async def _head_of_a_stream(exchange: Exchange) -> None:
    sink = exchange.respond(ResponseHead(200), False)
    exchange.conclude(())
    sink.end(())


@pytest.mark.parametrize("status", [204, 304])
def test_what_never_has_a_body_gets_no_framing(status: int) -> None:
    async def service(exchange: Exchange) -> None:
        exchange.conclude(())
        exchange.respond(ResponseHead(status), True)

    answer = Front(service).say(GET % 1)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.endswith(b"\r\n\r\n")
    assert b"length" not in answer
    assert b"chunked" not in answer


@pytest.mark.parametrize(("version", "told"), [(b"1.1", True), (b"1.0", False)])
def test_hints_go_to_those_who_know_them_and_never_behind_the_answer(version: bytes, told: bool) -> None:
    async def service(exchange: Exchange) -> None:
        hint = ResponseHead(103, ((b"link", b"</style.css>"),))
        exchange.reply.inform(hint)
        exchange.conclude(())
        exchange.respond(ResponseHead(200), True)
        exchange.reply.inform(hint)

    answer = Front(service).say(b"GET / HTTP/%b\r\nhost: a\r\n\r\n" % version)
    assert answer.count(b"103 Early Hints") == told
    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\nHTTP/1.1 200 ") is told


def test_who_waits_for_100_gets_it_when_the_body_is_wanted() -> None:
    waiter: Waiter[None] = Waiter()

    async def service(exchange: Exchange) -> None:
        await waiter
        await front.echo(exchange)

    front = Front(service)
    assert front.say(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n") == b""
    waiter.wake(None)
    assert front.wire.take() == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"  # the answer has begun: no need for it
    assert front.say(b"data") == b"4\r\ndata\r\n0\r\n\r\n"

    class Taker:
        source: Any = None

        def data(self, chunk: Any, size: int, end: bool) -> None:
            self.source.credit(size)

        def end(self, trailers: Any) -> None:
            waited.wake(None)

        def abort(self, failure: Failure) -> None:
            raise AssertionError

    async def reading(exchange: Exchange) -> None:
        assert exchange.body is not None
        exchange.body.join(Taker())
        await waited
        exchange.conclude(())
        exchange.respond(ResponseHead(200), True)

    waited: Waiter[None] = Waiter()
    front = Front(reading)
    ask = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
    assert front.say(ask) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert front.say(b"data").startswith(b"HTTP/1.1 200 ")
    waited = Waiter()
    assert front.say(ask + b"data") == b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


# -- services that do not do what they should ----------------------------------------------------------------


def test_a_bug_is_a_500_and_ends_nothing_else() -> None:
    async def service(exchange: Exchange) -> None:
        if exchange.request.path == b"/1":
            raise ZeroDivisionError("a secret")
        await front.echo(exchange)

    front = Front(service)
    answer = front.say(GET % 1)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"internal error: ZeroDivisionError" in answer
    assert b"secret" not in answer
    assert [type(error) for error in front.host.crashes] == [ZeroDivisionError]
    assert front.exchanges[0].failure is not None
    assert front.say(GET % 2).startswith(b"HTTP/1.1 200 ")


def test_a_service_that_returns_without_an_answer_is_a_bug() -> None:
    async def service(exchange: Exchange) -> None:
        pass

    front = Front(service)
    assert front.say(GET % 1).startswith(b"HTTP/1.1 500 ")
    assert len(front.host.crashes) == 1


def test_a_bug_behind_the_head_breaks_the_answer_off() -> None:
    async def service(exchange: Exchange) -> None:
        exchange.respond(ResponseHead(200), False)
        raise ZeroDivisionError

    front = Front(service)
    answer = front.say(GET % 1)
    assert answer == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"  # and no last chunk
    assert front.wire.closed


def test_a_failure_behind_a_started_answer_while_it_leaves() -> None:
    """The exchange is over, its answer is not: the client goes away."""
    sources: list[Any] = []

    async def service(exchange: Exchange) -> None:
        exchange.conclude(())
        sources.append(exchange.respond(ResponseHead(200), False))

    front = Front(service)
    front.say(GET % 1)
    (exchange,) = front.exchanges
    assert exchange.failure is None
    front.connection.lost("gone")
    assert exchange.failure is not None
    assert (exchange.failure.kind, exchange.failure.blame) == (Kind.RESET, Blame.CLIENT)
    assert front.server.connections == 0


# -- bodies that nobody wants --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"content-length: 5\r\n\r\nhello", b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
def test_a_body_that_is_not_read_ends_the_connection_behind_the_answer(body: bytes) -> None:
    async def service(exchange: Exchange) -> None:
        exchange.conclude(())
        exchange.respond(ResponseHead(200), True)

    front = Front(service)
    answer = front.say(b"POST / HTTP/1.1\r\nhost: a\r\n" + body + GET % 2)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert len(front.exchanges) == 1
    assert front.wire.closed
    assert front.say(GET % 3) == b""  # whatever comes now


def test_a_body_that_is_stopped_ends_the_connection_behind_the_answer() -> None:
    waiter: Waiter[None] = Waiter()

    async def service(exchange: Exchange) -> None:
        assert exchange.body is not None
        exchange.body.stop(None)
        await waiter
        exchange.conclude(())
        exchange.respond(ResponseHead(200), True)

    front = Front(service)
    assert front.say(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello") == b""
    waiter.wake(None)
    assert b"connection: close" in front.wire.take()
    assert front.wire.closed


# -- pipelining, and a wire that is full ---------------------------------------------------------------------


def test_many_pipelined_requests_take_turns() -> None:
    front = Front()
    many = REQUESTS_PER_TURN * 2 + 10
    got = front.say(b"".join([GET % at for at in range(many)]))
    assert got.count(b"HTTP/1.1 200 ") == REQUESTS_PER_TURN
    turns = 1
    while front.wire.agains:
        front.wire.agains -= 1
        got += front.say(b"")
        turns += 1
    assert (got.count(b"HTTP/1.1 200 "), turns) == (many, 3)
    assert [exchange.request.path for exchange in front.exchanges] == [b"/%d" % at for at in range(many)]


def test_a_client_that_does_not_read_gets_no_further_answers_until_it_does() -> None:
    front = Front()
    front.wire.congested = True
    assert front.say(GET % 1 + GET % 2).count(b"HTTP/1.1 200 ") == 1
    assert not front.wire.reading
    front.wire.congested = False
    front.connection.writable()
    assert front.wire.take().count(b"HTTP/1.1 200 ") == 1
    assert front.wire.reading
    front.connection.writable()  # nothing waits
    assert front.wire.take() == b""


def test_credit_is_held_while_the_wire_is_full() -> None:
    waiter: Waiter[None] = Waiter()
    source = FixedSource(b"x" * 1000)

    async def service(exchange: Exchange) -> None:
        source.join(exchange.respond(ResponseHead(200), False))
        await waiter

    front = Front(service)
    front.wire.congested = True
    front.say(GET % 1)
    assert source.credited == 0
    front.wire.congested = False
    front.connection.writable()
    assert source.credited == 1000


def test_a_pipelined_request_that_is_malformed_is_answered_in_its_turn() -> None:
    waiter: Waiter[None] = Waiter()

    async def service(exchange: Exchange) -> None:
        await waiter
        await front.echo(exchange)

    front = Front(service)
    assert front.say(GET % 1 + b"GET / HTTP/1.1\r\n\r\n") == b""
    waiter.wake(None)
    first, second = front.wire.take().split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 ")
    assert second.startswith(b"400 ")
    assert front.wire.closed
    assert front.metrics.flat()["malformed"] == 1


def test_a_body_that_is_malformed_breaks_the_exchange_off() -> None:
    front = Front(never)
    got = front.say(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n")
    assert got.startswith(b"HTTP/1.1 400 ")
    (exchange,) = front.exchanges
    assert exchange.failure is not None
    assert exchange.failure.kind is Kind.MALFORMED
    assert front.wire.closed


def test_a_body_that_is_malformed_behind_the_beginning_of_an_answer() -> None:
    waiter: Waiter[None] = Waiter()
    front = Front(streaming(waiter))
    got = front.say(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n")
    assert got.count(b"HTTP/1.1") == 1  # not a second one within the first
    assert front.wire.closed


def test_another_version_is_told_what_this_port_speaks() -> None:
    got = Front().say(b"GET / HTTP/2.0\r\nhost: a\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 505 ")


# -- the ends of a connection --------------------------------------------------------------------------------


def test_a_drained_connection_says_close_with_its_answer_or_takes_a_last_request() -> None:
    waiter: Waiter[None] = Waiter()

    async def service(exchange: Exchange) -> None:
        if exchange.request.path == b"/1":
            await waiter
        await front.echo(exchange)

    front = Front(service)
    front.say(GET % 1)
    front.server.drain()
    waiter.wake(None)
    assert b"connection: close\r\n" in front.wire.take()
    assert front.wire.closed

    front = Front()
    front.say(GET % 2)
    front.server.drain()
    assert not front.wire.closed
    assert b"connection: close\r\n" in front.say(GET % 3)  # it was under way
    assert front.wire.closed

    front = Front()
    front.server.drain()
    front.host.pass_time(LAST_CALL + 0.1)
    assert front.wire.closed
    front.connection.lost("closed")
    assert front.host.timers.pending() == 0


def test_a_connection_that_comes_while_the_server_drains_has_one_request() -> None:
    front = Front()
    front.server.drain()
    late = FakeWire()
    front.server.adopt(late, GET % 1, 0.0)  # type: ignore[arg-type]
    assert b"connection: close\r\n" in late.take()
    assert late.closed


def test_a_client_that_ends_its_half_is_gone() -> None:
    front = Front(never)
    front.say(GET % 1)
    front.connection.eof()
    (exchange,) = front.exchanges
    assert exchange.failure is not None
    assert exchange.failure.blame is Blame.CLIENT
    assert front.wire.closed
    idle = Front()
    idle.connection.eof()
    assert idle.wire.closed
    assert idle.server.connections == 0


def test_a_second_head_has_its_time_too() -> None:
    front = Front(abuse=attrs.evolve(NO_TIMES, head_timeout_ms=1000))
    front.say(GET % 1)
    front.host.pass_time(5)  # nothing to look at any more
    assert front.host.timers.pending() == 0
    front.say(b"GET / HT")
    assert front.host.timers.pending() == 1
    front.host.pass_time(0.9)
    assert front.wire.take() == b""
    for _ in range(3):
        front.host.pass_time(0.6)
    assert front.wire.take().startswith(b"HTTP/1.1 408 ")
    assert front.metrics.flat()["abuse/head"] == 1


def test_what_a_reply_knows_of_its_client() -> None:
    front = Front(never)
    front.wire.client_certificate = b"Subject=x"
    front.say(GET % 1)
    reply: Any = front.exchanges[0].reply
    assert (reply.peer, reply.ends, reply.client_certificate) == (front.wire.peer, front.wire.ends, b"Subject=x")
    assert (reply.carries_grpc, reply.discreet, reply.started) == (False, False, False)
    sink: Sink = reply
    assert sink.source is None
