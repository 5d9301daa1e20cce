"""Peers that break the rules of HTTP/2, in every way that RFC 9113 names: what ends, with which code, and what goes on."""

from __future__ import annotations

from typing import Any

import attrs
import hpack
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from protocols.http2 import frames
from protocols.http2.client import Http2Session
from protocols.http2.limits import Http2Limits
from protocols.http2.server_connection import DRAIN_ROUND_TRIP
from protocols.http2.state import RESETS_KEPT, Settings
from protocols.http2.validation import Malformed, trailer_fields
from router.model.body import FixedSource
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import CONNECT, RequestHead, ResponseHead
from router.model.strand import Waiter
from tests.protocols.http2.test_connection import HEAD, Back, Front, counted, waiting_front

NO, PROTOCOL, INTERNAL, FLOW, CLOSED, SIZE, CALM = 0, 1, 2, 3, 5, 6, 11  # RFC 9113 §7


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.head(len(payload), kind, flags, stream) + payload


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """A header block, by an encoder of its own: it refers to nothing but itself."""
    return bytes(hpack.Encoder().encode(list(fields)))


def headers(stream: int, *fields: tuple[bytes, bytes], end: bool = False) -> bytes:
    return raw(frames.HEADERS, frames.END_HEADERS | (frames.END_STREAM if end else 0), stream, block(*fields))


def resets(wire: Any) -> list[tuple[int, int]]:
    return [(frame.stream_id, frame.error_code) for frame in wire.frames() if isinstance(frame, RstStreamFrame)]


def open_front(**config: Any) -> Front:
    """A server with stream 1 open and waiting for its body."""

    async def service(exchange: Exchange) -> None:
        front.exchanges.append(exchange)
        await Waiter[None]()

    front = Front(service, Settings(**config))
    front.greet()
    front.conn.received(headers(1, *HEAD))
    front.wire.take()
    return front


# -- what ends the connection --------------------------------------------------------------------------------

CONNECTION_FAULTS: dict[str, tuple[bytes, int]] = {
    "a frame inside a header block": (raw(frames.HEADERS, 0, 3, b"\x82") + raw(frames.PING, 0, 0, b"12345678"), PROTOCOL),
    "DATA inside a header block": (raw(frames.HEADERS, 0, 3, b"\x82") + raw(frames.DATA, 0, 1, b"x"), PROTOCOL),
    "CONTINUATION of another stream": (raw(frames.HEADERS, 0, 3, b"\x82") + raw(frames.CONTINUATION, 4, 5, b""), PROTOCOL),
    "DATA on stream 0": (raw(frames.DATA, 0, 0, b"x"), PROTOCOL),
    "DATA whose padding is too long": (raw(frames.DATA, frames.PADDED, 1, b"\x05abcd"), PROTOCOL),
    "DATA that is padded and empty": (raw(frames.DATA, frames.PADDED, 1, b""), PROTOCOL),
    "DATA beyond the window of the connection": (raw(frames.DATA, 0, 1, bytes(16384)) * 4, FLOW),
    "HEADERS on stream 0": (headers(0, *HEAD), PROTOCOL),
    "HEADERS whose padding is too long": (raw(frames.HEADERS, 4 | frames.PADDED, 3, b"\xff\x82"), PROTOCOL),
    "HEADERS that are padded and empty": (raw(frames.HEADERS, 4 | frames.PADDED, 3, b""), PROTOCOL),
    "HEADERS with too short a priority": (raw(frames.HEADERS, 4 | frames.WITH_PRIORITY, 3, b"\0\0\0"), PROTOCOL),
    "HEADERS that depend on themselves": (raw(frames.HEADERS, 4 | frames.WITH_PRIORITY, 3, b"\0\0\0\3\0\x82"), PROTOCOL),
    "PRIORITY on stream 0": (raw(frames.PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "RST_STREAM of 3 bytes": (raw(frames.RST_STREAM, 0, 1, bytes(3)), SIZE),
    "RST_STREAM on stream 0": (raw(frames.RST_STREAM, 0, 0, bytes(4)), PROTOCOL),
    "RST_STREAM on an idle stream of ours": (raw(frames.RST_STREAM, 0, 2, bytes(4)), PROTOCOL),
    "SETTINGS on a stream": (raw(frames.SETTINGS, 0, 1), PROTOCOL),
    "SETTINGS of 5 bytes": (raw(frames.SETTINGS, 0, 0, bytes(5)), SIZE),
    "an acknowledgement with a payload": (raw(frames.SETTINGS, frames.ACK, 0, bytes(6)), SIZE),
    "ENABLE_PUSH of 2": (raw(frames.SETTINGS, 0, 0, b"\0\2\0\0\0\2"), PROTOCOL),
    "ENABLE_CONNECT_PROTOCOL of 2": (raw(frames.SETTINGS, 0, 0, b"\0\x08\0\0\0\2"), PROTOCOL),
    "ENABLE_CONNECT_PROTOCOL taken back": (raw(frames.SETTINGS, 0, 0, b"\0\x08\0\0\0\1\0\x08\0\0\0\0"), PROTOCOL),
    "MAX_FRAME_SIZE that is too large": (raw(frames.SETTINGS, 0, 0, b"\0\5\1\0\0\0"), PROTOCOL),
    "a stream's window that SETTINGS make too large": (
        raw(frames.WINDOW_UPDATE, 0, 1, b"\x7f\xff\0\0") + raw(frames.SETTINGS, 0, 0, b"\0\4\0\1\xff\xff"),
        FLOW,
    ),
    "PUSH_PROMISE": (raw(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82"), PROTOCOL),
    "PING on a stream": (raw(frames.PING, 0, 1, b"12345678"), PROTOCOL),
    "GOAWAY on a stream": (raw(frames.GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "GOAWAY of 7 bytes": (raw(frames.GOAWAY, 0, 0, bytes(7)), SIZE),
    "WINDOW_UPDATE of 3 bytes": (raw(frames.WINDOW_UPDATE, 0, 1, bytes(3)), SIZE),
    "WINDOW_UPDATE on an idle stream": (raw(frames.WINDOW_UPDATE, 0, 3, b"\0\0\0\1"), PROTOCOL),
    "WINDOW_UPDATE on an idle stream of ours": (raw(frames.WINDOW_UPDATE, 0, 2, b"\0\0\0\1"), PROTOCOL),
    "HEADERS on a stream before the last one": (headers(5, *HEAD) + headers(3, *HEAD), CLOSED),
    "a header block that is none": (raw(frames.HEADERS, 5, 3, b"\x80"), 9),
}


@pytest.mark.parametrize("name", CONNECTION_FAULTS)
def test_what_ends_the_connection(name: str) -> None:
    data, code = CONNECTION_FAULTS[name]
    front = open_front(streams=1) if "window of the connection" in name else open_front()
    front.conn.received(data)
    (told,) = [frame for frame in front.wire.frames() if isinstance(frame, GoAwayFrame)]
    assert told.error_code == code
    assert front.wire.closed
    (exchange,) = front.exchanges[:1]
    assert exchange.failure is not None
    assert (exchange.failure.kind, exchange.failure.blame) == (Kind.PROTOCOL, Blame.CLIENT)
    assert front.conn.streams == {}
    front.conn.received(raw(frames.PING, 0, 0, b"12345678"))  # whatever comes now
    front.conn.fault(frames.ErrorCodes.PROTOCOL_ERROR, "again")
    assert front.wire.take() == b""


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + raw(frames.PING, 0, 0, bytes(8)), "the first frame is not SETTINGS"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20), "no HTTP/2 connection preface"),
    ],
)
def test_what_does_not_begin_as_it_should(data: bytes, told: str) -> None:
    front = Front()
    for at in range(len(data)):
        front.conn.received(data[at : at + 1])
    last = front.wire.frames()[-1]
    assert isinstance(last, GoAwayFrame)
    assert (last.error_code, last.additional_data) == (PROTOCOL, told.encode())
    assert front.wire.closed


# -- what ends a stream --------------------------------------------------------------------------------------

STREAM_FAULTS: dict[str, tuple[bytes, int, int]] = {
    "DATA beyond the window of the stream": (raw(frames.DATA, 0, 1, bytes(16000)) * 2, 1, FLOW),
    "WINDOW_UPDATE of 0": (raw(frames.WINDOW_UPDATE, 0, 1, bytes(4)), 1, PROTOCOL),
    "WINDOW_UPDATE beyond 2^31-1": (raw(frames.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), 1, FLOW),
    "PRIORITY of 4 bytes": (raw(frames.PRIORITY, 0, 3, bytes(4)), 3, SIZE),
    "PRIORITY of a stream that depends on itself": (raw(frames.PRIORITY, 0, 3, b"\0\0\0\3\0"), 3, PROTOCOL),
    "trailers that do not end the stream": (headers(1, (b"x", b"y")), 1, PROTOCOL),
    "trailers with a pseudo-header": (headers(1, (b":path", b"/"), end=True), 1, PROTOCOL),
    "trailers with a connection field": (headers(1, (b"connection", b"close"), end=True), 1, PROTOCOL),
    "trailers with an illegal name": (headers(1, (b"X", b"y"), end=True), 1, PROTOCOL),
    "a request without :method": (headers(3, *HEAD[1:], end=True), 3, PROTOCOL),
    "a request whose path is relative": (headers(3, HEAD[0], HEAD[1], (b":path", b"p"), HEAD[3]), 3, PROTOCOL),
    ":protocol without CONNECT": (headers(3, *HEAD, (b":protocol", b"websocket")), 3, PROTOCOL),
    "CONNECT without a port": (headers(3, (b":method", b"CONNECT"), (b":authority", b"a")), 3, PROTOCOL),
    "CONNECT with a path": (headers(3, (b":method", b"CONNECT"), (b":authority", b"a:1"), (b":path", b"/")), 3, PROTOCOL),
    "an authority that names a user": (headers(3, *HEAD[:3], (b":authority", b"u@a")), 3, PROTOCOL),
    "two hosts": (headers(3, *HEAD, (b"host", b"a"), (b"host", b"b")), 3, PROTOCOL),
    "an extended CONNECT that was not announced": (
        headers(3, (b":method", b"CONNECT"), (b":protocol", b"websocket"), *HEAD[1:]),
        3,
        PROTOCOL,
    ),
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_what_ends_a_stream_alone(name: str) -> None:
    data, stream, code = STREAM_FAULTS[name]
    front = open_front(window=20000)
    front.conn.received(data)
    assert resets(front.wire) == [(stream, code)]
    assert not front.wire.closed
    assert set(front.conn.streams) == ({1} if stream == 3 else set())
    front.conn.received(headers(5, *HEAD, end=True))
    assert front.exchanges[-1].request.path == b"/p"
    assert 5 in front.conn.streams
    front.conn.lost("over")
    assert front.conn.uncredited() == 0


def test_a_body_shorter_than_its_length_that_ends_with_trailers() -> None:
    front = Front()
    front.greet()
    front.conn.received(headers(1, *HEAD, (b"content-length", b"5")) + raw(frames.DATA, 0, 1, b"four"))
    front.wire.take()
    front.conn.received(headers(1, (b"x", b"y"), end=True))
    assert resets(front.wire) == [(1, PROTOCOL)]


def test_frames_behind_the_end_of_a_stream() -> None:
    """While we still answer, and when all is over (§5.1)."""
    front = open_front()
    front.conn.received(raw(frames.DATA, frames.END_STREAM, 1, b"end"))
    front.conn.received(raw(frames.DATA, 0, 1, b"more"))
    assert resets(front.wire) == [(1, CLOSED)]
    front = open_front()
    front.conn.received(raw(frames.DATA, frames.END_STREAM, 1, b"end"))
    front.conn.received(headers(1, (b"x", b"y"), end=True))
    assert resets(front.wire) == [(1, CLOSED)]
    front.conn.received(headers(1, *HEAD))  # it was reset: frames of it may have been under way
    front.conn.received(raw(frames.DATA, 0, 1, b"late"))
    front.conn.received(raw(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"))
    front.conn.received(raw(frames.RST_STREAM, 0, 1, bytes(4)))
    assert front.wire.take() == b""
    assert front.conn.uncredited() == 0
    done = Front()
    done.greet()
    done.conn.received(headers(1, *HEAD, end=True))
    done.wire.take()
    done.conn.received(headers(1, *HEAD, end=True))  # it went as it should: this is the client's fault
    assert done.wire.frames()[-1].error_code == CLOSED


def test_resets_are_remembered_within_bounds() -> None:
    front = Front(config=Settings(streams=1, limits=Http2Limits(max_stream_faults=100_000)))
    front.greet()
    for stream in range(1, 2 * (RESETS_KEPT + 50), 2):
        front.conn.received(headers(stream, *HEAD[1:], end=True))
    assert len(front.conn._resets) == RESETS_KEPT


def test_priority_and_padding_in_a_header_block_are_stripped() -> None:
    front = Front()
    front.greet()
    payload = b"\x03" + b"\0\0\0\0\xff" + block(*HEAD) + bytes(3)
    front.conn.received(raw(frames.HEADERS, 5 | frames.PADDED | frames.WITH_PRIORITY, 1, payload))
    front.conn.received(raw(frames.HEADERS, 5 | frames.PADDED, 3, b"\x03" + block(*HEAD) + bytes(3)))
    assert [exchange.request.path for exchange in front.exchanges] == [b"/p", b"/p"]


def test_the_host_stands_in_for_an_authority() -> None:
    front = Front()
    front.greet()
    front.conn.received(headers(1, *HEAD[:3], (b"host", b"web"), (b"x", b"y"), end=True))
    (exchange,) = front.exchanges
    assert (exchange.request.authority, exchange.request.fields) == (b"web", ((b"x", b"y"),))


def test_unknown_settings_and_frames_are_ignored() -> None:
    front = Front()
    front.greet()
    front.conn.received(raw(0xB, 0xFF, 77, b"grease") + raw(frames.SETTINGS, 0, 0, b"\x0a\x0a\0\0\0\7"))
    assert not front.wire.closed


# -- tunnels -------------------------------------------------------------------------------------------------


def tunnel_front() -> Front:
    """A server that allows CONNECT, with a tunnel open on stream 1."""

    async def service(exchange: Exchange) -> None:
        front.exchanges.append(exchange)
        assert exchange.body is not None
        exchange.body.join(exchange.open(ResponseHead(200)))
        await Waiter[None]()

    front = Front(service)
    front.conn.context = front.conn.server.context = attrs.evolve(front.conn.context, tunnels=frozenset((CONNECT,)))
    front.greet()
    return front


def test_headers_in_a_tunnel() -> None:
    front = tunnel_front()
    front.conn.received(headers(1, (b":method", b"CONNECT"), (b":authority", b"a:1")))
    front.conn.received(raw(frames.DATA, 0, 1, b"hello"))
    assert [type(frame) for frame in front.wire.frames()] == [HeadersFrame, DataFrame]
    front.conn.received(headers(1, (b"x", b"y"), end=True))
    assert resets(front.wire) == [(1, PROTOCOL)]


def test_a_tunnel_whose_client_says_nothing_at_all() -> None:
    front = tunnel_front()
    front.conn.received(headers(1, (b":method", b"CONNECT"), (b":authority", b"a:1"), end=True))
    head, end = front.wire.frames()
    assert ("END_STREAM" in head.flags, "END_STREAM" in end.flags) == (False, True)


# -- windows -------------------------------------------------------------------------------------------------


def big_answer(front: Front, size: int, trailers: Any = ()) -> FixedSource:
    source = FixedSource(bytes(size), trailers)

    async def service(exchange: Exchange) -> None:
        sink = exchange.respond(ResponseHead(200), False)
        exchange.conclude(trailers)
        source.join(sink)

    front.conn.context = attrs.evolve(front.conn.context, service=service)
    return source


def test_data_and_trailers_wait_for_the_windows() -> None:
    front = Front()
    front.greet({4: 10})
    source = big_answer(front, 25, ((b"t", b"1"),))
    front.headers(1)
    assert [len(frame.data) for frame in front.wire.frames() if isinstance(frame, DataFrame)] == [10]
    front.conn.received(WindowUpdateFrame(1, window_increment=10).serialize())
    assert [len(frame.data) for frame in front.wire.frames() if isinstance(frame, DataFrame)] == [10]
    assert source.credited == 0
    front.conn.received(WindowUpdateFrame(1, window_increment=10).serialize())
    data, trailers = front.wire.frames()
    assert (len(data.data), "END_STREAM" in data.flags, "END_STREAM" in trailers.flags) == (5, False, True)
    assert source.credited == 25
    assert front.conn.streams == {}


def test_a_window_that_becomes_negative_takes_as_much_to_open() -> None:
    front = Front()
    front.greet({4: 100})
    big_answer(front, 300)
    front.headers(1)
    front.wire.take()
    front.conn.received(SettingsFrame(0, settings={4: 0}).serialize())
    front.conn.received(WindowUpdateFrame(1, window_increment=100).serialize())
    assert not [frame for frame in front.wire.frames() if isinstance(frame, DataFrame)]
    front.conn.received(WindowUpdateFrame(1, window_increment=200).serialize())
    assert [len(frame.data) for frame in front.wire.frames() if isinstance(frame, DataFrame)] == [200]


def test_streams_wait_for_the_connection_in_their_order_and_for_the_wire() -> None:
    front = Front()
    front.greet({4: 1 << 20})
    big_answer(front, 65535)
    front.headers(1)  # takes all of the connection's window
    front.wire.take()
    big_answer(front, 1000)
    front.headers(3)
    big_answer(front, 1000)
    front.headers(5)
    front.wire.take()
    front.wire.congested = True
    front.conn.received(WindowUpdateFrame(0, window_increment=1500).serialize())
    assert front.wire.take() == b""
    front.wire.congested = False
    front.conn.writable()
    assert [(frame.stream_id, len(frame.data)) for frame in front.wire.frames()] == [(3, 1000), (5, 500)]
    front.conn.received(RstStreamFrame(5, 8).serialize())  # what waits is dropped
    front.conn.received(WindowUpdateFrame(0, window_increment=1500).serialize())
    assert front.wire.take() == b""
    assert (front.conn.streams, front.conn.blocked) == ({}, {})


def test_an_empty_chunk_waits_behind_what_is_queued() -> None:
    front = Front()
    front.greet({4: 0})
    exchanges: list[Any] = []

    async def service(exchange: Exchange) -> None:
        exchanges.append(exchange.respond(ResponseHead(200), False))
        await Waiter[None]()

    front.conn.context = attrs.evolve(front.conn.context, service=service)
    front.headers(1)
    (sink,) = exchanges
    sink.data(b"one", 0, False)
    sink.data(b"", 0, False)
    sink.end(())
    sink.end(())  # once
    front.wire.take()
    front.conn.received(WindowUpdateFrame(1, window_increment=3).serialize())
    sizes = [(len(frame.data), "END_STREAM" in frame.flags) for frame in front.wire.frames()]
    assert sizes == [(3, False), (0, True)]
    source = FixedSource()
    sink.source = source
    sink.data(b"behind the end", 14, False)
    assert (front.wire.take(), source.credited) == (b"", 14)


def test_a_client_that_lets_only_a_byte_pass_at_a_time_is_stopped() -> None:
    front = Front(config=Settings(limits=Http2Limits(max_idle_work=1000)))
    front.greet({4: 1})
    big_answer(front, 10_000)
    front.headers(1)
    for _ in range(5000):
        if front.conn.closed:
            break
        front.conn.received(WindowUpdateFrame(1, window_increment=1).serialize())
    assert front.wire.frames()[-1].error_code == CALM
    assert set(counted(front)) <= {"tiny_window", "window_update"}
    assert counted(front)


# -- the server's shell --------------------------------------------------------------------------------------


def test_a_bug_is_a_500_on_its_stream() -> None:
    crashes: list[Exception] = []

    async def service(exchange: Exchange) -> None:
        if exchange.request.authority == b"a":
            raise ZeroDivisionError("a secret")
        await front.echo(exchange)

    front = Front(service)
    front.host.crashed = crashes.append
    front.greet()
    front.headers(1)
    head, body = front.wire.frames()
    assert dict(hpack.Decoder().decode(head.data, raw=True))[b":status"] == b"500"
    assert body.data == b"internal error: ZeroDivisionError"
    assert [type(crash) for crash in crashes] == [ZeroDivisionError]
    front.conn.received(headers(3, *HEAD[:3], (b":authority", b"b"), end=True))
    assert len(front.exchanges) == 1


def test_a_service_that_returns_without_an_answer_is_a_bug() -> None:
    crashes: list[Exception] = []

    async def service(exchange: Exchange) -> None:
        pass

    front = Front(service)
    front.host.crashed = crashes.append
    front.greet()
    front.headers(1)
    assert b"internal error: RuntimeError" in front.wire.take()
    assert len(crashes) == 1


def test_hints_go_on_except_to_grpc_and_behind_the_head() -> None:
    hint = ResponseHead(103, ((b"link", b"x"),))

    async def service(exchange: Exchange) -> None:
        exchange.reply.inform(hint)
        exchange.conclude(())
        exchange.respond(ResponseHead(200), True)
        exchange.reply.inform(hint)

    front = Front(service)
    front.greet()
    front.headers(1)
    decoder = hpack.Decoder()
    assert [decoder.decode(frame.data)[0][1] for frame in front.wire.frames()] == ["103", "200"]
    front.headers(3, [*HEAD, (b"content-type", b"application/grpc")])
    assert len(front.wire.frames()) == 1


def test_time_runs_out_while_an_answer_waits_for_window() -> None:
    exchanges: list[Any] = []
    front = Front()
    front.greet({4: 10})
    big_answer(front, 100)
    inner = front.conn.context.service

    async def service(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await inner(exchange)

    front.conn.context = attrs.evolve(front.conn.context, service=service)
    front.headers(1)
    front.wire.take()
    (exchange,) = exchanges
    late = Failure(Kind.DEADLINE, "late")
    exchange.strand.cancel(late)
    assert exchange.failure is late
    assert resets(front.wire) == [(1, INTERNAL)]
    assert front.conn.streams == {}


def test_what_a_reply_knows_of_its_client() -> None:
    front = open_front()
    front.wire.client_certificate, front.wire.ends = b"Subject=x", "ends"  # type: ignore[attr-defined]
    reply: Any = front.exchanges[0].reply
    assert (reply.peer, reply.ends, reply.client_certificate) == (front.wire.peer, "ends", b"Subject=x")
    assert (reply.carries_grpc, reply.discreet, reply.started) == (True, False, False)


def test_a_client_that_says_goaway_is_served_to_its_last_stream() -> None:
    front, waiters = waiting_front()
    front.headers(1)
    front.conn.received(GoAwayFrame(0, 0, 0).serialize())
    assert not front.wire.closed
    waiters[0].wake(None)
    assert front.wire.closed
    idle = Front()
    idle.greet()
    idle.conn.received(GoAwayFrame(0, 0, 0).serialize())
    assert idle.wire.closed


def test_a_client_that_does_not_answer_the_ping_of_a_drain_is_drained_anyway() -> None:
    front, waiters = waiting_front()
    front.headers(1)
    front.conn.drain()
    front.conn.drain()  # once
    assert [type(frame).__name__ for frame in front.wire.frames()].count("GoAwayFrame") == 1
    front.host.time += DRAIN_ROUND_TRIP + 0.1
    front.host.timers.expire()
    (goaway,) = front.wire.frames()
    assert (goaway.last_stream_id, goaway.error_code) == (1, NO)
    waiters[0].wake(None)
    assert front.wire.closed


def test_a_client_that_ends_its_half_is_gone() -> None:
    front = open_front()
    front.conn.eof()
    (exchange,) = front.exchanges
    assert exchange.failure is not None
    assert exchange.failure.blame is Blame.CLIENT
    assert front.wire.closed


def test_slow_bodies_end_their_streams_until_it_is_the_connections_fault() -> None:
    """One stream behaves, so that the others are ended one by one; when that was too often, the connection is."""
    limits = Http2Limits(body_timeout_ms=1000, max_stream_faults=1, first_request_timeout_ms=0, head_timeout_ms=0)
    front, _ = waiting_front(limits=limits)
    for stream in (1, 3, 5):
        front.conn.received(headers(stream, *HEAD))
    front.conn.received(headers(7, *HEAD, end=True))
    for stream in (1, 3, 5):
        exchange: Any = front.conn.streams[stream]
        exchange.started = False
    front.wire.take()
    for _ in range(12):
        front.host.time += 0.25
        front.host.timers.expire()
        if front.conn.closed:
            break
    codes = [getattr(frame, "error_code", None) for frame in front.wire.frames()]
    assert codes[0] == CALM
    assert counted(front)["body"] >= 2


def test_a_client_that_reads_nothing_of_what_waits_in_the_socket_is_ended() -> None:
    limits = Http2Limits(stall_timeout_ms=1000, first_request_timeout_ms=0, head_timeout_ms=0)
    front, _ = waiting_front(limits=limits)
    front.conn.received(headers(1, *HEAD, end=True))
    front.wire.unsent = 1000
    for _ in range(8):
        front.host.time += 0.25
        front.host.timers.expire()
    assert front.conn.closed
    assert counted(front) == {"stalled": 1}


# -- the client's role ---------------------------------------------------------------------------------------


def ready() -> Back:
    back = Back()
    back.session.received(SettingsFrame(0).serialize())
    back.start()
    back.wire.take()
    return back


ANSWERS: dict[str, tuple[bytes, Kind]] = {
    "DATA before a head": (raw(frames.DATA, 0, 1, b"x"), Kind.PROTOCOL),
    "an informational head that ends the stream": (headers(1, (b":status", b"103"), end=True), Kind.PROTOCOL),
    "a switch of protocols": (headers(1, (b":status", b"101")), Kind.PROTOCOL),
    "no :status": (headers(1, (b"x", b"y")), Kind.PROTOCOL),
    "a :status of two digits": (headers(1, (b":status", b"20")), Kind.PROTOCOL),
    "a :status that begins with 0": (headers(1, (b":status", b"099")), Kind.PROTOCOL),
    "two :status": (headers(1, (b":status", b"200"), (b":status", b"200")), Kind.PROTOCOL),
    "a second head": (headers(1, (b":status", b"200")) * 2, Kind.PROTOCOL),
    "trailers that do not end": (headers(1, (b":status", b"200")) + headers(1, (b"x", b"y")), Kind.PROTOCOL),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_malformed(name: str) -> None:
    data, kind = ANSWERS[name]
    back = ready()
    back.session.received(data)
    assert resets(back.wire) == [(1, PROTOCOL)]
    (failure,) = back.failures
    assert (failure.kind, failure.blame) == (kind, Blame.UPSTREAM)
    assert not back.session.closed
    assert back.session.uncredited() == 0


def test_an_answer_with_too_large_a_head() -> None:
    back = Back()
    back.session = Http2Session(back.wire, Settings(list_size=1000))  # type: ignore[arg-type]
    back.session.received(SettingsFrame(0).serialize())
    back.start()
    back.wire.take()
    back.session.received(headers(1, (b":status", b"200"), (b"x", b"y" * 1500)))
    assert resets(back.wire) == [(1, PROTOCOL)]
    (failure,) = back.failures
    assert "too large" in failure.why


@pytest.mark.parametrize(
    ("data", "code"), [(headers(2, (b":status", b"200")), PROTOCOL), (headers(3, (b":status", b"200")), PROTOCOL)]
)
def test_streams_that_we_did_not_open(data: bytes, code: int) -> None:
    back = ready()
    back.session.received(data)
    assert back.wire.frames()[-1].error_code == code
    assert back.session.closed


def test_headers_on_a_stream_that_is_over() -> None:
    back = ready()
    back.session.received(headers(1, (b":status", b"200"), end=True))
    assert back.session.streams == {}
    back.session.received(headers(1, (b":status", b"200")))
    assert back.wire.frames()[-1].error_code == CLOSED


def test_a_request_without_an_authority_has_none() -> None:
    back = Back()
    back.wire.take()
    back.start(head=RequestHead(b"GET", b"http", b"", b"/p"))
    (head,) = back.wire.frames()
    assert [name for name, _ in hpack.Decoder().decode(head.data)] == [":method", ":scheme", ":path"]


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_a_length_without_a_body_is_no_lie_where_there_is_none(method: bytes, status: int) -> None:
    back = Back()
    _, reply = back.start(head=RequestHead(method, b"http", b"a", b"/p"))
    back.talk()
    back.session.received(headers(1, (b":status", b"%d" % status), (b"content-length", b"9")))
    back.session.received(raw(frames.DATA, frames.END_STREAM, 1))
    assert back.failures == []
    assert reply.trailers == ()


def test_a_long_head_is_sent_in_pieces() -> None:
    back = Back()
    fields = tuple([(b"x-%d" % at, b"y" * 5000) for at in range(10)])
    back.start(head=RequestHead(b"GET", b"http", b"a", b"/p", fields))
    (request,) = [event for event in back.talk() if type(event).__name__ == "RequestReceived"]
    assert list(request.headers)[-10:] == list(fields)


def test_a_reader_that_does_not_want_the_rest() -> None:
    back = ready()
    exchange, reply = back.start()
    back.wire.take()
    back.session.received(headers(3, (b":status", b"200")))
    reply.source.stop(None)
    assert (3, NO) in resets(back.wire)
    assert not exchange.complete


def test_bytes_credited_behind_the_end_open_the_connections_window_only() -> None:
    back = Back()
    back.session = Http2Session(back.wire, Settings(streams=1))  # type: ignore[arg-type]
    back.session.received(SettingsFrame(0).serialize())
    _, reply = back.start()
    reply.accept = False
    back.wire.take()
    back.session.received(headers(1, (b":status", b"200")) + raw(frames.DATA, 0, 1, bytes(16384)) * 3)
    back.session.received(raw(frames.DATA, frames.END_STREAM, 1, bytes(10000)))
    source = reply.source
    size, reply.waiting = reply.waiting, 0
    back.session.credit(size)
    updates = [(frame.stream_id, frame.window_increment) for frame in back.wire.frames()]
    assert updates == [(0, size)]
    assert source is None or source.recv_closed


def test_trailers_of_a_shared_block_are_read_once() -> None:
    """And a block that was read as something else is not taken for that."""
    from protocols.http2.codec import Decoder

    decoder = Decoder(4096, 65536, 100)
    made = decoder.decode(block((b"x", b"y"), (b"content-length", b"1")))
    assert trailer_fields(made) == ((b"x", b"y"),)
    assert trailer_fields(made) is trailer_fields(made)
    made.derived = ResponseHead(200)
    assert trailer_fields(made) == ((b"x", b"y"),)
    bad = decoder.decode(block((b"X", b"y")))
    with pytest.raises(Malformed):
        trailer_fields(bad)
