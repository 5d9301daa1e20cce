"""Conversations with the HTTP/2 connection, in memory; the h2 library or raw frames are the peer."""

from __future__ import annotations

import random
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.http2.client import Http2Session
from protocols.http2.limits import Http2Limits
from protocols.http2.server import Http2Server
from protocols.http2.server_connection import Http2ServerConnection
from protocols.http2.state import Settings
from router.model.answers import render_h2
from router.model.body import FixedSource
from router.model.events import Events
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import CONNECT, RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Waiter
from router.spi import ServerContext

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/p"), (b":authority", b"a")]


class FakeWire:
    """Collects what is written."""

    peer = "test"

    def __init__(self) -> None:
        self.out = bytearray()
        self.congested = False
        self.closed = False
        self.unsent = self.sent = 0
        self.reading = True
        self.agains = 0

    def write(self, data: Any) -> None:
        self.out += data

    def write_pair(self, head: bytes, body: Any) -> None:
        self.write(head)
        self.write(body)

    def close(self) -> None:
        self.closed = True

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    def again(self, pause: float) -> None:
        self.agains += 1

    def take(self) -> bytes:
        data, self.out = bytes(self.out), bytearray()
        self.sent += len(data)
        return data

    def frames(self) -> list[Frame]:
        data, found = self.take(), []
        while data:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            frame.parse_body(memoryview(data[9 : 9 + length]))
            data = data[9 + length :]
            found.append(frame)
        return found


class FakeHost:
    """A clock that is moved by hand, and a place for crashes that fails the test."""

    def __init__(self) -> None:
        from router.model.timers import Timers

        self.timers = Timers(lambda: self.time, self.crashed)
        self.time = 0.0
        self.events = Events()

    def crashed(self, error: Exception) -> None:
        raise AssertionError("a bug in an exchange") from error

    def spawn(self, *args: Any) -> None:
        raise AssertionError("no exchange of these tests needs trio")


class Sink:
    """Takes a body; accepts bytes when told."""

    def __init__(self, accept: bool = True) -> None:
        self.source: Any = None
        self.accept = accept
        self.body = b""
        self.trailers: Any = None
        self.waiting = 0

    def data(self, chunk: Any, size: int, end: bool) -> None:
        self.body += bytes(chunk)
        self.waiting += size
        if self.accept:
            self.release()
        if end:
            self.trailers = ()

    def release(self) -> None:
        size, self.waiting = self.waiting, 0
        if self.source is not None:
            self.source.credit(size)

    def end(self, trailers: Any) -> None:
        self.trailers = trailers

    def abort(self, failure: Failure) -> None:
        self.trailers = failure


class Front:
    """A server connection whose service echoes, unless ``service`` is given."""

    def __init__(self, service: Any = None, config: Settings | None = None) -> None:
        self.wire = FakeWire()
        self.exchanges: list[Exchange] = []
        self.host: Any = FakeHost()
        context = ServerContext(self.host, None, service or self.echo, render_h2, Metrics())
        server = Http2Server(config or Settings(), context)
        self.conn = Http2ServerConnection(self.wire, server.settings, server, 0.0)  # type: ignore[arg-type]

    async def echo(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        sink = exchange.respond(ResponseHead(200, ((b"x", b"y"),)), exchange.body is None)
        exchange.conclude(())
        if exchange.body is not None:
            exchange.body.join(sink)

    def greet(self, values: dict[int, int] | None = None) -> None:
        self.conn.received(PREFACE + SettingsFrame(0, settings=values or {}).serialize())
        self.wire.take()

    def headers(self, stream: int = 1, fields: Any = None, *, end: bool = True, encoder: Any = None) -> None:
        block = (encoder or hpack.Encoder()).encode(HEAD if fields is None else fields)
        flags = ["END_HEADERS", *(["END_STREAM"] if end else [])]
        self.conn.received(HeadersFrame(stream, block, flags=flags).serialize())


def peer(*, client: bool) -> h2.connection.H2Connection:
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding=None))
    conn.initiate_connection()
    return conn


def talk(front: Front, client: h2.connection.H2Connection) -> list[Any]:
    """Exchange bytes until both are silent; returns what the client saw."""
    events: list[Any] = []
    while True:
        sent = client.data_to_send()
        if sent:
            front.conn.received(sent)
        back = front.wire.take()
        if back:
            events += client.receive_data(back)
        if not sent and not back:
            return events


def test_an_exchange_with_the_h2_library() -> None:
    front, client = Front(), peer(client=True)
    client.send_headers(1, HEAD)
    client.send_data(1, b"hello")
    client.send_headers(1, [(b"x-trailer", b"t")], end_stream=True)
    events = talk(front, client)
    kinds = [type(event).__name__ for event in events]
    assert kinds[-4:] == ["ResponseReceived", "DataReceived", "TrailersReceived", "StreamEnded"]
    assert front.conn.streams == {}
    assert front.conn.uncredited() == 0


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ([*HEAD, (b"x", b"x" * 2000)], (b":status", b"431")),
        ([*HEAD, (b"content-type", b"application/grpc"), (b"x", b"x" * 2000)], (b"grpc-status", b"8")),
        ([*HEAD[:2], (b":path", b"/" + b"x" * 2000), (b":authority", b"a")], (b":status", b"431")),
    ],
)
def test_a_head_beyond_the_limit_is_refused_in_the_clients_way(fields: Any, answer: tuple[bytes, bytes]) -> None:
    front, client = Front(config=Settings(list_size=1000)), peer(client=True)
    client.send_headers(1, fields, end_stream=True)
    (head,) = [event for event in talk(front, client) if isinstance(event, h2.events.ResponseReceived)]
    assert answer in head.headers
    assert front.exchanges == []
    assert front.conn.streams == {}


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.binary(max_size=30000), max_size=6),
    st.sampled_from([1, 100, 16384, 65535]),
    st.sampled_from([1000, 65535]),
    st.booleans(),
)
def test_any_body_crosses_any_window(chunks: list[bytes], theirs: int, ours: int, cut: bool) -> None:
    front, client = Front(config=Settings(window=ours)), peer(client=True)
    client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: theirs})
    talk(front, client)
    client.send_headers(1, HEAD)
    body = b"".join(chunks)[: 4000 if theirs == 1 else 100_000]
    left, got = body, b""
    rng = random.Random(len(body))
    for _ in range(20_000):
        window = client.local_flow_control_window(1) if left else 0
        if left and window:
            part = left[: min(window, client.max_outbound_frame_size, rng.randrange(1, 5000))]
            left = left[len(part) :]
            client.send_data(1, part)
            if not left:
                client.end_stream(1)
        elif not body:
            client.end_stream(1)
            body = b""
        data = client.data_to_send()
        for at in range(0, len(data), 7 if cut and len(data) < 2000 else len(data) or 1):
            front.conn.received(data[at : at + (7 if cut and len(data) < 2000 else len(data))])
        ended = False
        for event in client.receive_data(front.wire.take()):
            if isinstance(event, h2.events.DataReceived):
                got += event.data
                client.acknowledge_received_data(event.flow_controlled_length, 1)
            ended = ended or isinstance(event, h2.events.StreamEnded)
        if ended:
            break
    assert got == body
    assert front.conn.uncredited() == 0


def test_credit_returns_only_as_the_far_side_accepts() -> None:
    sink = Sink(accept=False)

    async def service(exchange: Exchange) -> None:
        assert exchange.body is not None
        exchange.body.join(sink)  # type: ignore[arg-type]
        await never()

    front = Front(service)
    front.greet()
    front.headers(end=False)
    for _ in range(4):
        front.conn.received(DataFrame(1, b"x" * 15000).serialize())
    assert not [frame for frame in front.wire.frames() if isinstance(frame, WindowUpdateFrame)]
    assert front.conn.uncredited() == 60000
    sink.release()
    updates = [frame for frame in front.wire.frames() if isinstance(frame, WindowUpdateFrame)]
    assert [(frame.stream_id, frame.window_increment) for frame in updates] == [(1, 60000)]
    assert front.conn.uncredited() == 0


async def never() -> None:
    from router.model.strand import Waiter

    await Waiter[None]()


def test_padding_counts_and_unread_bytes_are_credited_on_release() -> None:
    async def service(exchange: Exchange) -> None:
        held.append(exchange)
        await never()

    held: list[Exchange] = []
    front = Front(service)
    front.greet()
    front.headers(end=False)
    front.conn.received(DataFrame(1, b"hello", pad_length=255, flags=["PADDED"]).serialize())
    assert front.conn.uncredited() == 261
    front.conn.received(RstStreamFrame(1, 8).serialize())
    assert front.conn.uncredited() == 0
    assert front.conn.streams == {}


MALFORMED: list[Any] = [
    [*HEAD, (b"X", b"y")],
    [*HEAD, (b"connection", b"close")],
    [*HEAD, (b"te", b"gzip")],
    HEAD[:2] + HEAD[3:],
    [*HEAD, (b":path", b"/2")],
    [(b"x", b"y"), *HEAD],
    [*HEAD[:2], (b":path", b""), HEAD[3]],
    [*HEAD, (b":status", b"200")],
    [*HEAD, (b"host", b"other")],
    [*HEAD, (b"content-length", b"5")],
    [*HEAD, (b"content-length", b"x")],
    [*HEAD, (b"x", b"a\r\nb")],
    [*HEAD, (b"x", b" y")],
]


@pytest.mark.parametrize("fields", MALFORMED)
def test_a_malformed_request_ends_its_stream_only(fields: Any) -> None:
    front, encoder = Front(), hpack.Encoder()
    front.greet()
    front.headers(1, fields, encoder=encoder)
    assert [(type(frame), frame.stream_id, getattr(frame, "error_code", None)) for frame in front.wire.frames()] == [
        (RstStreamFrame, 1, 1)
    ]
    front.headers(3, encoder=encoder)
    assert [type(frame) for frame in front.wire.frames()] == [HeadersFrame]
    assert not front.wire.closed


def test_a_stream_too_many_is_refused_alone() -> None:
    async def service(exchange: Exchange) -> None:
        await never()

    front = Front(service, Settings(streams=2))
    front.greet()
    for stream in (1, 3, 5):
        front.headers(stream)
    frames = front.wire.frames()
    assert [(frame.stream_id, frame.error_code) for frame in frames if isinstance(frame, RstStreamFrame)] == [(5, 7)]
    assert not front.wire.closed


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", 6),  # longer than we allow
        (HeadersFrame(2, b"\x82", flags=["END_HEADERS"]).serialize(), 1),
        (DataFrame(1, b"x").serialize(), 1),
        (RstStreamFrame(1, 8).serialize(), 1),
        (WindowUpdateFrame(0, 2**31 - 1).serialize(), 3),
        (b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00", 1),  # WINDOW_UPDATE of 0
        (ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize(), 1),
        (HeadersFrame(1, b"\x80", flags=["END_HEADERS"]).serialize(), 9),
        (b"\x00\x00\x07\x06\x00\x00\x00\x00\x00" + b"1234567", 6),
        (SettingsFrame(0, settings={4: 2**31}).serialize(), 3),
        (SettingsFrame(0, settings={5: 1}).serialize(), 1),
    ],
)
def test_a_broken_connection_is_told_why(frame: bytes, code: int) -> None:
    front = Front()
    front.greet()
    front.conn.received(frame)
    last = front.wire.frames()[-1]
    assert isinstance(last, GoAwayFrame)
    assert last.error_code == code
    assert front.wire.closed


def test_an_endless_header_block_is_cut_off() -> None:
    front = Front()
    front.greet()
    front.conn.received(HeadersFrame(1, b"\x82").serialize())
    for _ in range(20):
        front.conn.received(ContinuationFrame(1, b"\x00" * 16000).serialize())
    assert front.wire.frames()[-1].error_code == 11
    assert front.wire.closed


def test_an_http1_client_is_told_what_this_port_speaks() -> None:
    front = Front()
    front.wire.take()
    front.conn.received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert front.wire.take().startswith(b"HTTP/1.1 400 ")
    assert front.wire.closed


def test_ping_is_answered() -> None:
    front = Front()
    front.greet()
    front.conn.received(PingFrame(0, b"12345678").serialize())
    (pong,) = front.wire.frames()
    assert (pong.opaque_data, set(pong.flags)) == (b"12345678", {"ACK"})


def test_a_failing_service_is_answered_or_reset() -> None:
    async def service(exchange: Exchange) -> None:
        raise Failure(exchange.request.path and kinds[0], "because")  # type: ignore[arg-type]

    kinds = [Kind.UNBOUND]
    front = Front(service)
    front.greet()
    front.headers(1)
    head, body = front.wire.frames()
    assert dict(hpack.Decoder().decode(head.data, raw=True))[b":status"] == b"502"
    assert body.data == b"because"
    kinds[0] = Kind.UNIDENTIFIED
    front.headers(3)
    (reset,) = front.wire.frames()
    assert (reset.stream_id, reset.error_code) == (3, 7)
    front.headers(5, [*HEAD, (b"content-type", b"application/grpc")])
    (trailers_only,) = front.wire.frames()
    assert "END_STREAM" in trailers_only.flags


# -- the client role ------------------------------------------------------------------------------------------


class Reply(Sink):
    """An exchange's reply that records."""

    def __init__(self) -> None:
        super().__init__()
        self.started = False
        self.head: ResponseHead | None = None
        self.informed: list[int] = []

    def inform(self, head: ResponseHead) -> None:
        self.informed.append(head.status)

    def start(self, head: ResponseHead, end: bool) -> Any:
        self.started, self.head = True, head
        if end:
            self.trailers = ()
        return self


class Back:
    """A session with the h2 library as the server."""

    def __init__(self) -> None:
        self.wire = FakeWire()
        self.host: Any = FakeHost()
        self.session = Http2Session(self.wire, Settings())  # type: ignore[arg-type]
        self.server = peer(client=False)
        self.failures: list[Failure] = []

    def start(self, body: Any = None, head: RequestHead | None = None) -> tuple[Exchange, Reply]:
        from router.model.strand import Strand

        reply = Reply()
        exchange = Exchange(self.host, head or RequestHead(b"GET", b"http", b"a", b"/p"), body, reply)  # type: ignore[arg-type]

        async def conduct() -> None:
            try:
                await self.session.conduct(exchange)
            except Failure as failure:
                self.failures.append(failure)

        exchange.strand = Strand(self.host, conduct())
        exchange.strand.start()
        return exchange, reply

    def talk(self) -> list[Any]:
        events: list[Any] = []
        while True:
            sent, back = self.wire.take(), b""
            if sent:
                events += self.server.receive_data(sent)
            back = self.server.data_to_send()
            if back:
                self.session.received(back)
            if not sent and not back:
                return events


def test_a_session_relays_head_body_and_trailers() -> None:
    back = Back()
    exchange, reply = back.start(FixedSource(b"hello", ((b"t", b"1"),)))
    events = back.talk()
    kinds = [type(event).__name__ for event in events]
    assert [kind for kind in kinds if "Settings" not in kind and "Window" not in kind] == [
        "RequestReceived",
        "DataReceived",
        "TrailersReceived",
        "StreamEnded",
    ]
    back.server.send_headers(1, [(b":status", b"103")])
    back.server.send_headers(1, [(b":status", b"200"), (b"x", b"y")])
    back.server.send_data(1, b"world")
    back.server.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
    back.talk()
    assert reply.informed == [103]
    assert (reply.body, reply.trailers) == (b"world", ((b"grpc-status", b"0"),))
    assert exchange.complete
    assert exchange.grpc_status == b"0"
    assert exchange.strand is not None
    assert exchange.strand.done
    assert back.session.streams == {}
    assert back.session.uncredited() == 0


def test_a_reset_is_a_failure_with_its_code() -> None:
    back = Back()
    exchange, _ = back.start()
    back.talk()
    back.server.reset_stream(1, 7)
    back.talk()
    (failure,) = back.failures
    assert (failure.kind, failure.code, failure.retryable) == (Kind.RESET, 7, True)
    assert not exchange.complete


@pytest.mark.parametrize(("tunnel", "told"), [(b"", ErrorCodes.INTERNAL_ERROR), (CONNECT, ErrorCodes.CONNECT_ERROR)])
def test_connect_error_means_something_to_who_asked_for_a_connection(tunnel: bytes, told: int) -> None:
    back = Back()
    exchange, _ = back.start()
    back.talk()
    exchange.request = exchange.request.replace(tunnel=tunnel)
    back.server.reset_stream(1, ErrorCodes.CONNECT_ERROR)
    back.talk()
    (failure,) = back.failures
    assert (failure.kind, failure.answer.h2) == (Kind.RESET, told)


GRPC_CALL = RequestHead(b"POST", b"http", b"a", b"/s/M", ((b"content-type", b"application/grpc"),))


@pytest.mark.parametrize(
    ("at", "code", "head", "kind"),
    [
        (1.0, ErrorCodes.CANCEL, GRPC_CALL, Kind.DEADLINE),
        (0.9985, ErrorCodes.CANCEL, GRPC_CALL, Kind.DEADLINE),
        (0.9, ErrorCodes.CANCEL, GRPC_CALL, Kind.RESET),
        (1.0, ErrorCodes.REFUSED_STREAM, GRPC_CALL, Kind.RESET),
        (1.0, ErrorCodes.CANCEL, None, Kind.RESET),
    ],
)
def test_an_endpoint_that_saw_the_deadline_first_is_an_expiry(at: float, code: int, head: Any, kind: Kind) -> None:
    back = Back()
    exchange, _ = back.start(head=head)
    exchange.tighten(1.0, "client")
    back.talk()
    back.host.time = at  # our own timer has not been looked at yet
    back.server.reset_stream(1, code)
    back.talk()
    (failure,) = back.failures
    assert failure.kind is kind
    assert kind is Kind.RESET or (failure.blame, failure.answer.grpc) == (Blame.CLIENT, 4)


def test_a_refusal_behind_a_head_is_no_proof() -> None:
    back = Back()
    back.start()
    back.talk()
    back.server.send_headers(1, [(b":status", b"200")])
    back.server.reset_stream(1, 7)
    back.talk()
    (failure,) = back.failures
    assert (failure.kind, failure.code, failure.retryable) == (Kind.RESET, 7, False)
    assert failure.answer.h2 == 2


def test_goaway_below_a_stream_that_was_answered_is_no_proof() -> None:
    back = Back()
    back.start()
    back.talk()
    back.server.send_headers(1, [(b":status", b"200")])
    back.talk()
    back.session.received(GoAwayFrame(0, 0, 0).serialize())
    assert [failure.retryable for failure in back.failures] == [False]


def test_goaway_gives_back_what_was_not_processed_and_keeps_the_rest() -> None:
    back = Back()
    (_, first), _ = back.start(), back.start()
    back.talk()
    back.session.received(GoAwayFrame(0, 1, 0).serialize())
    assert [failure.retryable for failure in back.failures] == [True]
    assert back.session.free == 0
    back.server.send_headers(1, [(b":status", b"200")], end_stream=True)
    back.talk()
    assert first.head is not None
    assert first.head.status == 200
    assert back.session.closed


def test_a_cancelled_exchange_resets_upstream_with_cancel() -> None:
    back = Back()
    exchange, _ = back.start()
    back.talk()
    assert exchange.strand is not None
    exchange.strand.cancel(Failure(Kind.DEADLINE, "late"))
    (reset,) = back.wire.frames()
    assert (type(reset), reset.error_code) == (RstStreamFrame, 8)


def test_truncation_stays_visible() -> None:
    back = Back()
    _, reply = back.start()
    back.talk()
    back.server.send_headers(1, [(b":status", b"200"), (b"content-length", b"9")])
    back.server.send_data(1, b"all", end_stream=False)
    back.server.reset_stream(1, 2)
    back.talk()
    assert reply.body == b"all"
    assert [failure.code for failure in back.failures] == [2]


def test_a_short_body_is_a_protocol_failure() -> None:
    back = Back()
    back.start()
    back.talk()
    encoder = hpack.Encoder()
    block = encoder.encode([(b":status", b"200"), (b"content-length", b"9")])
    back.session.received(HeadersFrame(1, block, flags=["END_HEADERS"]).serialize())
    back.session.received(DataFrame(1, b"all", flags=["END_STREAM"]).serialize())
    assert [failure.kind for failure in back.failures] == [Kind.PROTOCOL]


def test_the_peers_stream_limit_is_told() -> None:
    back = Back()
    assert back.session.free == 100
    back.session.received(SettingsFrame(0, settings={3: 2}).serialize())
    back.start()
    assert back.session.free == 1
    back.start()
    assert back.session.free == 0


def test_an_endpoint_that_floods_is_let_go() -> None:
    """The budgets hold for both roles; what was under way can be told apart from what was never sent."""
    back = Back()
    back.session.received(SettingsFrame(0).serialize())
    back.start()
    back.wire.take()
    ping = PingFrame(0, opaque_data=b"attacked").serialize() * 500
    for _ in range(100):
        back.session.received(ping)
    assert back.session.closed
    assert back.session.free == 0
    assert back.wire.frames()[-1].error_code == 11
    (failure,) = back.failures
    assert failure.kind is Kind.PROTOCOL


def test_who_speaks_http_1_can_read_the_answer() -> None:
    front = Front()
    assert front.wire.take() == b""
    front.conn.received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    answer = front.wire.take()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"this port speaks HTTP/2 with prior knowledge (h2c), not HTTP/1.1\n")


def test_a_connection_that_drains_before_its_first_byte_says_settings_first() -> None:
    front = Front()
    front.conn.drain()
    assert front.wire.take()[3] == 4


# -- limits (see limits.py) -------------------------------------------------------------------------------------------


def waiting_front(**config: Any) -> tuple[Front, list[Waiter[None]]]:
    """A server whose service waits until the test lets it answer."""
    waiters: list[Waiter[None]] = []

    async def service(exchange: Exchange) -> None:
        waiter: Waiter[None] = Waiter()
        waiters.append(waiter)
        await waiter
        exchange.conclude(())
        exchange.respond(ResponseHead(200), True)

    front = Front(service, Settings(**config))
    front.greet()
    return front, waiters


def cancel(front: Front, *streams: int) -> None:
    front.conn.received(b"".join(RstStreamFrame(stream, error_code=8).serialize() for stream in streams))
    while front.wire.agains:
        front.wire.agains -= 1
        front.conn.received(b"")


def counted(front: Front) -> dict[str, int]:
    values = front.conn.context.metrics.flat()
    return {name.removeprefix("abuse/"): int(value) for name, value in values.items() if name.startswith("abuse/") and value}


@pytest.mark.parametrize("wave", [1, 10, 500])
def test_a_client_that_cancels_half_of_its_calls_goes_on(wave: int) -> None:
    front, waiters = waiting_front(limits=Http2Limits(max_premature_resets=1))
    stream = 1
    for _ in range(2000 // wave // 2):
        opened = list(range(stream, stream + 4 * wave, 2))
        stream += 4 * wave
        for one in opened:
            front.headers(one)
        cancel(front, *opened[::2])
        for waiter in waiters[1::2]:
            waiter.wake(None)
        waiters.clear()
    assert not front.conn.closed
    assert counted(front) == {}
    assert front.conn.streams == {}


def test_everything_that_is_open_may_be_cancelled_at_once() -> None:
    front, _ = waiting_front(streams=200, limits=Http2Limits(max_premature_resets=1))
    for stream in range(1, 400, 2):
        front.headers(stream)
    cancel(front, *range(1, 400, 2))
    assert not front.conn.closed


def test_who_only_cancels_is_stopped_soon() -> None:
    front, waiters = waiting_front(streams=100, limits=Http2Limits(max_premature_resets=100))
    stream = 1
    while not front.conn.closed:
        front.headers(stream)
        cancel(front, stream)
        stream += 2
    assert len(waiters) == 101
    assert counted(front) == {"rapid_reset": 1}
    assert front.wire.frames()[-1].error_code == 11


def test_cancelling_what_is_a_second_old_or_has_an_answer_is_no_abuse() -> None:
    front, _ = waiting_front(streams=10, limits=Http2Limits(max_premature_resets=10))
    for stream in range(1, 401, 20):
        for one in range(stream, stream + 20, 2):
            front.headers(one)
        front.host.time += 1.1
        cancel(front, *range(stream, stream + 20, 2))
    assert not front.conn.closed
    assert counted(front) == {}


def test_cancelling_costs_nothing_in_the_long_run() -> None:
    """A hundred a second are given back."""
    front, _ = waiting_front(streams=100, limits=Http2Limits(max_premature_resets=100))
    for stream in range(1, 1001, 2):
        front.headers(stream)
        cancel(front, stream)
        front.host.time += 0.01
    assert not front.conn.closed


@pytest.mark.parametrize(("good", "closed"), [(1, False), (0, True)])
def test_faults_among_good_requests_are_forgiven(good: int, closed: bool) -> None:
    """As of a proxy that passes on what its clients do wrong."""
    front, waiters = waiting_front(limits=Http2Limits(max_stream_faults=10))
    stream = 1
    for _ in range(500):
        front.headers(stream, [(b":method", b"GET")])
        stream += 2
        for _ in range(good):
            front.headers(stream)
            stream += 2
        for waiter in waiters:
            waiter.wake(None)
        waiters.clear()
        if front.conn.closed:
            break
    assert front.conn.closed is closed
    assert counted(front) == ({"made_reset": 1} if closed else {})


def test_who_measures_its_bandwidth_with_every_frame_is_left_alone() -> None:
    """A client that acknowledges each message on its own and sends a PING with it, two thousand times in no time."""
    front = Front(config=Settings(limits=Http2Limits(max_idle_work=1000)))
    front.greet()
    front.headers(1, end=False)
    update = WindowUpdateFrame(0, window_increment=10).serialize() + WindowUpdateFrame(1, window_increment=10).serialize()
    for _ in range(2000):
        front.conn.received(DataFrame(1, b"x" * 10).serialize())
        front.conn.received(update + PingFrame(0, opaque_data=b"measured").serialize())
        front.wire.take()
    assert not front.conn.closed
    front.conn.lost("the end of the test")


def test_many_streams_in_one_read_are_worked_off_in_turns() -> None:
    front, waiters = waiting_front()
    block = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in HEAD])
    flags = ["END_HEADERS", "END_STREAM"]
    front.conn.received(b"".join(HeadersFrame(one, block, flags=flags).serialize() for one in range(1, 801, 2)))
    turns = 0
    while front.wire.agains > turns:
        assert len(waiters) <= 80 * (turns + 1)
        turns += 1
        front.conn.received(b"")
    assert turns >= 5
    assert len(waiters) == 400
    for waiter in waiters:
        waiter.wake(None)


def test_answers_that_are_not_read_stop_the_reading() -> None:
    front = Front()
    front.greet()
    front.wire.congested, front.wire.unsent = True, 2 << 20
    front.headers(1)
    assert not front.wire.reading
    assert front.exchanges == []
    front.wire.congested, front.wire.unsent = False, 0
    front.conn.writable()
    assert front.wire.reading
    assert len(front.exchanges) == 1


def test_data_under_way_to_many_streams_that_we_reset_is_no_fault() -> None:
    async def refuse(exchange: Exchange) -> None:
        raise Failure(Kind.UNBOUND, "no such name")

    front = Front(refuse, Settings(streams=1000, limits=Http2Limits(max_stream_faults=1)))
    front.greet()
    for stream in range(1, 2000, 2):
        front.headers(stream, end=False)
    for stream in range(1, 2000, 2):
        front.conn.received(DataFrame(stream, b"late").serialize())
    assert not front.conn.closed
    assert counted(front) == {}
    assert front.conn.uncredited() == 0


def test_a_limit_that_shrinks_to_nothing_and_grows_again() -> None:
    back = Back()
    changes: list[int] = []
    back.start()
    back.talk()
    back.session.changed = lambda session: changes.append(session.free)
    for limit, free in ((1, 0), (0, 0), (1, 0), (3, 2)):
        back.session.received(SettingsFrame(0, settings={3: limit}).serialize())
        assert back.session.free == free
    assert changes == [2]
    back.server.send_headers(1, [(b":status", b"200")], end_stream=True)
    back.talk()
    assert back.session.free == 3


def test_a_session_that_runs_out_of_stream_ids_takes_nothing_new_and_ends_with_its_last_stream() -> None:
    back = Back()
    back.start()
    back.talk()
    back.session.next_id = 2**31 // 4 * 3 - 1
    exchange, reply = back.start()
    assert (back.session.free, back.session.closed) == (0, False)
    back.talk()
    back.server.send_headers(1, [(b":status", b"200")], end_stream=True)
    back.talk()
    assert (back.session.draining, back.session.closed) == (True, False)
    back.server.send_headers(2**31 // 4 * 3 - 1, [(b":status", b"200")], end_stream=True)
    back.talk()
    assert exchange.complete
    assert reply.head is not None
    assert back.session.closed


def test_closing_a_session_calls_nothing_repeatable() -> None:
    back = Back()
    back.start()
    back.session.close()
    assert [(failure.kind, failure.retryable) for failure in back.failures] == [(Kind.RESET, False)]


@pytest.mark.parametrize("window", [65535, 3])
def test_the_last_bytes_of_a_body_are_credited_though_the_end_releases_the_exchange(window: int) -> None:
    """The end may be sent with them at once, or with what had to wait for the client's window."""
    front = Front()
    front.greet({4: window})
    front.headers(end=False)
    front.conn.received(DataFrame(1, b"hello", flags=["END_STREAM"]).serialize())
    if window == 3:
        front.conn.received(WindowUpdateFrame(1, window_increment=10).serialize())
    assert front.conn.streams == {}
    assert front.conn.uncredited() == 0
