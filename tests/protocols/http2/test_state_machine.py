"""Any conversation with the h2 library, in both roles, cut anywhere: both sides agree on every stream, and nothing is left."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest
from hyperframe.frame import GoAwayFrame
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocols.http2.client import Http2Session
from protocols.http2.limits import Http2Limits
from protocols.http2.server import Http2Server
from protocols.http2.server_connection import Http2ServerConnection
from protocols.http2.state import Settings
from router.model.answers import render_h2
from router.model.body import FixedSource, Source
from router.model.events import Events
from router.model.exchange import Exchange
from router.model.failure import Failure
from router.model.headers import RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Strand
from router.model.timers import Timers
from router.spi import ServerContext

pytestmark = pytest.mark.slow  # a second or two each

HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/p"), (":authority", "a")]
LIMITS = Http2Limits(max_idle_work=1_000_000)


class Wire:
    peer = "test"
    secure = congested = False
    client_certificate = None
    unsent = sent = 0

    def __init__(self) -> None:
        self.out = bytearray()
        self.closed = False
        self.agains = 0

    def write(self, data: Any) -> None:
        assert not self.closed
        self.out += data

    def write_pair(self, head: bytes, body: Any) -> None:
        self.write(head)
        self.write(body)

    def close(self) -> None:
        self.closed = True

    def pause(self) -> None:
        pass

    resume = pause

    def again(self) -> None:
        self.agains += 1


class Host:
    def __init__(self) -> None:
        self.timers = Timers(lambda: 0.0, self.crashed)
        self.events = Events()
        self.wall_ns = lambda: 0

    def crashed(self, error: Exception) -> None:
        raise AssertionError("a bug in an exchange") from error


class Talk(RuleBasedStateMachine):
    """What both roles share: ``ours`` and ``peer`` exchange bytes in pieces of any size."""

    ours: Any
    wire: Any
    peer: h2.connection.H2Connection

    def __init__(self) -> None:
        super().__init__()
        self.host: Any = Host()
        self.wire = Wire()
        self.bodies: dict[int, bytes] = {}
        self.sent: dict[int, bytes] = {}
        self.ended: set[int] = set()  # by the peer's half
        self.over: dict[int, str] = {}
        self.unpaid: list[tuple[int, int]] = []
        self.piece = 0

    def pass_on(self) -> None:
        """Let both sides speak until they have nothing more to say."""
        while True:
            data, back = self.peer.data_to_send(), bytes(self.wire.out)
            self.wire.out.clear()
            if not data and not back and not self.wire.agains:
                return
            size = self.piece or len(data) or 1
            for at in range(0, len(data), size):
                self.ours.received(data[at : at + size])
            while self.wire.agains:
                self.wire.agains -= 1
                self.ours.received(b"")
            size = self.piece or len(back) or 1
            for at in range(0, len(back), size):
                for event in self.peer.receive_data(back[at : at + size]):
                    self.on_event(event)

    def on_event(self, event: Any) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            self.unpaid.append((event.flow_controlled_length, event.stream_id))
        elif isinstance(event, h2.events.StreamEnded):
            self.over[event.stream_id] = "ended"
        elif isinstance(event, h2.events.StreamReset):
            self.over[event.stream_id] = "reset"
        assert not isinstance(event, h2.events.ConnectionTerminated) or event.error_code == 0, event

    def live(self) -> list[int]:
        """Streams whose peer's half is open."""
        if self.wire.closed:
            return []
        return [stream for stream in self.sent if stream not in self.ended and self.over.get(stream) != "reset"]

    @rule(size=st.sampled_from([0, 0, 1, 7, 100]))
    def cut(self, size: int) -> None:
        self.piece = size

    @precondition(lambda self: not self.wire.closed)
    @rule()
    def pay(self) -> None:
        for size, stream in self.unpaid:
            self.peer.acknowledge_received_data(size, stream)
        self.unpaid.clear()
        self.pass_on()

    @precondition(lambda self: self.live())
    @rule(data=st.data(), size=st.sampled_from([0, 1, 100, 5000, 16384]), end=st.booleans(), pad=st.sampled_from([None, 0, 9]))
    def send(self, data: st.DataObject, size: int, end: bool, pad: int | None) -> None:
        stream = data.draw(st.sampled_from(self.live()))
        room = self.peer.local_flow_control_window(stream) - (0 if pad is None else pad + 1)
        if room < 0:
            return
        body = bytes([len(self.sent[stream]) % 251]) * min(size, room, 16384 - 10)
        self.peer.send_data(stream, body, end_stream=end, pad_length=pad)
        self.sent[stream] += body
        if end:
            self.ended.add(stream)
        self.pass_on()

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def trailers(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(self.live()))
        self.peer.send_headers(stream, [("x-end", "yes")], end_stream=True)
        self.ended.add(stream)
        self.pass_on()

    @precondition(lambda self: not self.wire.closed and [s for s in self.sent if s not in self.over])
    @rule(data=st.data(), code=st.sampled_from([0, 2, 7, 8]))
    def reset(self, data: st.DataObject, code: int) -> None:
        stream = data.draw(st.sampled_from([s for s in self.sent if s not in self.over]))
        self.peer.reset_stream(stream, code)
        self.over[stream] = "reset"
        self.pass_on()

    @precondition(lambda self: not self.wire.closed)
    @rule(window=st.sampled_from([0, 1, 500, 65535, 200_000]), table=st.sampled_from([0, 100, 4096]))
    def settings(self, window: int, table: int) -> None:
        """Windows shrink as far as h2 allows, and while nothing is unpaid: below 0, where RFC 9113 lets them go, h2 refuses the
        setting, and even DATA without data, which needs no window (§6.9)."""
        for _ in range(50):
            if self.unpaid and not self.wire.closed:
                self.pay()
        if self.unpaid or self.wire.closed:
            return
        less = self.peer.local_settings.initial_window_size - window
        if any(stream._inbound_window_manager.current_window_size < less for stream in self.peer.streams.values()):
            return
        values = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window, h2.settings.SettingCodes.HEADER_TABLE_SIZE: table}
        self.peer.update_settings(values)
        self.pass_on()

    @precondition(lambda self: not self.wire.closed)
    @rule(size=st.integers(1, 100_000))
    def window(self, size: int) -> None:
        self.peer.increment_flow_control_window(size)
        self.pass_on()

    @precondition(lambda self: not self.wire.closed)
    @rule()
    def ping(self) -> None:
        self.peer.ping(b"12345678")
        self.pass_on()

    @invariant()
    def no_more_streams_than_the_peer_knows(self) -> None:
        if hasattr(self, "ours") and not self.wire.closed:
            assert len(self.ours.streams) <= len([s for s in self.sent if s not in self.ended or s not in self.over])

    def teardown(self) -> None:
        if not hasattr(self, "ours"):
            return
        self.piece = 0
        if not self.wire.closed:
            self.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
        self.pay_all()
        for stream in self.live():
            self.peer.end_stream(stream)
            self.ended.add(stream)
        self.pay_all()
        self.check()
        assert self.ours.streams == {}
        assert self.ours.blocked == {}
        assert self.ours.uncredited() == 0
        self.ours.lost("the end")
        assert self.host.timers.pending() == 0

    def pay_all(self) -> None:
        for _ in range(20):
            if not self.wire.closed:
                self.pay()

    def check(self) -> None:
        raise NotImplementedError


class ServerTalk(Talk):
    """We serve, and echo."""

    @initialize(window=st.sampled_from([500, 65535]))
    def begin(self, window: int) -> None:
        context = ServerContext(self.host, None, self.echo, render_h2, Metrics())
        server = Http2Server(Settings(window=window, limits=LIMITS), context)
        self.ours = Http2ServerConnection(self.wire, server.settings, server, 0.0)
        self.peer = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.peer.initiate_connection()
        self.pass_on()

    async def echo(self, exchange: Exchange) -> None:
        sink = exchange.respond(ResponseHead(200, ((b"x", b"y"),)), exchange.body is None)
        exchange.conclude(())
        if exchange.body is not None:
            exchange.body.join(sink)

    @precondition(lambda self: len(self.sent) < 12)
    @rule(end=st.booleans(), much=st.sampled_from([0, 0, 20000]), priority=st.booleans())
    def open(self, end: bool, much: int, priority: bool) -> None:
        """With priority fields h2 makes frames of a long block five bytes too large."""
        stream = self.peer.get_next_available_stream_id()
        extra = {"priority_weight": 3, "priority_depends_on": 0} if priority and not much else {}
        self.peer.send_headers(stream, [*HEAD, ("x", "y" * much)], end_stream=end, **extra)
        self.sent[stream] = b""
        if end:
            self.ended.add(stream)
        self.pass_on()

    def check(self) -> None:
        for stream, sent in self.sent.items():
            assert stream in self.over
            if self.over[stream] == "ended":
                assert self.bodies.get(stream, b"") == sent


class Answer:
    """The reply of an exchange of ours: collects, credits at once."""

    client_certificate = None

    def __init__(self) -> None:
        self.body = b""
        self.end_: Any = None
        self.source: Any = None

    def inform(self, head: ResponseHead) -> None:
        pass

    def start(self, head: ResponseHead, end: bool) -> Any:
        if end:
            self.end_ = ()
        return self

    def data(self, chunk: Any, size: int, end: bool) -> None:
        self.body += bytes(chunk)
        if self.source is not None:
            self.source.credit(size)
        if end:
            self.end_ = ()

    def end(self, trailers: Any) -> None:
        self.end_ = trailers

    def abort(self, failure: Failure) -> None:
        self.end_ = failure


class ClientTalk(Talk):
    """We ask; the peer answers as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[int, Answer] = {}
        self.outcomes: dict[int, Any] = {}
        self.asked: dict[int, bytes] = {}
        self.headed: set[int] = set()
        self.refused: dict[int, bool] = {}  # by GOAWAY or RST_STREAM, and whether that proves that nothing was processed
        self.last = (1 << 31) - 1

    @initialize(window=st.sampled_from([500, 65535]))
    def begin(self, window: int) -> None:
        self.ours = Http2Session(self.wire, Settings(window=window, limits=LIMITS))
        self.peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.peer.initiate_connection()
        self.pass_on()

    @precondition(lambda self: len(self.asked) < 12 and self.ours.free)
    @rule(size=st.sampled_from([None, 0, 10, 70_000]))
    def ask(self, size: int | None) -> None:
        stream, answer = self.ours.next_id, Answer()
        body: Source | None = None if size is None else FixedSource(bytes(size))
        exchange = Exchange(self.host, RequestHead(b"POST", b"http", b"a", b"/p"), body, answer)  # type: ignore[arg-type]
        self.answers[stream], self.asked[stream] = answer, bytes(size or 0)

        async def conduct() -> None:
            try:
                await self.ours.conduct(exchange)
            except Failure as failure:
                self.outcomes[stream] = failure
            else:
                self.outcomes[stream] = None
            finally:
                exchange.close()

        Strand(self.host, conduct()).start()
        self.pass_on()

    @precondition(lambda self: self.unanswered())
    @rule(data=st.data(), end=st.booleans(), hint=st.booleans())
    def answer(self, data: st.DataObject, end: bool, hint: bool) -> None:
        stream = data.draw(st.sampled_from(self.unanswered()))
        if hint:
            self.peer.send_headers(stream, [(":status", "103")])
        self.peer.send_headers(stream, [(":status", "200")], end_stream=end)
        self.headed.add(stream)
        self.sent[stream] = b""
        if end:
            self.ended.add(stream)
        self.pass_on()

    @precondition(lambda self: self.unanswered())
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(self.unanswered()))
        self.peer.reset_stream(stream, 7)
        self.over[stream] = "reset"
        self.refused[stream] = True
        self.pass_on()

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def goaway(self, data: st.DataObject) -> None:
        """Written by hand: h2 says nothing more behind its own. What is above the last stream is over for both."""
        self.last = data.draw(st.sampled_from([stream for stream in (0, *self.asked, self.last) if stream <= self.last]))
        self.ours.received(GoAwayFrame(0, last_stream_id=self.last).serialize())
        for stream in self.asked:
            if stream > self.last and self.over.get(stream) != "reset" and self.outcomes.get(stream) is not None:
                self.over[stream] = "reset"
                self.refused.setdefault(stream, stream not in self.headed)
        assert self.ours.free == 0
        self.pass_on()

    def unanswered(self) -> list[int]:
        if self.wire.closed:
            return []
        return [stream for stream in self.asked if stream not in self.headed and self.over.get(stream) != "reset"]

    def check(self) -> None:
        for stream in self.unanswered():
            self.peer.reset_stream(stream, 8)
        self.pass_on()
        for stream, answer in self.answers.items():
            assert stream in self.outcomes
            if self.outcomes[stream] is None:
                assert answer.body == self.sent[stream]
                assert not isinstance(answer.end_, Failure)
            else:
                assert self.over.get(stream) == "reset" or stream not in self.headed
            if self.refused.get(stream):
                assert self.outcomes[stream].retryable
            elif stream in self.headed and self.outcomes[stream] is not None:
                assert not self.outcomes[stream].retryable

    @invariant()
    def no_more_streams_than_the_peer_knows(self) -> None:
        assert len(getattr(self, "asked", ())) <= 12


TestServer = ServerTalk.TestCase
TestServer.settings = settings(deadline=None, max_examples=15, stateful_step_count=25)
TestClient = ClientTalk.TestCase
TestClient.settings = settings(deadline=None, max_examples=15, stateful_step_count=25)
