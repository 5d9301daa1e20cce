"""The server role: requests come in, each becomes an exchange on a strand of its own.

Limits: :mod:`protocols.http2.limits` says what a client may cost, :mod:`protocols.wire.guard` how long it may take. While more
than ``MAX_UNSENT`` bytes wait for a client that does not read them, nothing more is read from it: answers without a body are
bounded by no window.
"""

from __future__ import annotations

from math import inf
from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from protocols.http2 import frames, limits
from protocols.http2.codec import Block
from protocols.http2.connection import Http2Connection, Settings, measure
from protocols.http2.frames import ConnectionFault, StreamFault
from protocols.http2.limits import KINDS, Allowance
from protocols.http2.stream import Stream
from protocols.http2.validation import Malformed, request_head, trailer_fields
from protocols.wire.connection import Connection as Wire
from protocols.wire.guard import Guard, Pace, Watch
from router.model.abuse import expired
from router.model.body import Sink
from router.model.ends import Ends
from router.model.exchange import Exchange
from router.model.expiry import Expiries, Expiry
from router.model.failure import Blame, Failure, Kind, client_gone
from router.model.headers import WEBSOCKET, Fields, RequestHead, ResponseHead
from router.model.strand import Strand, Waiter
from router.spi import ServerContext

# GOAWAY's second step comes after this many seconds even if the peer does not acknowledge our PING.
DRAIN_ROUND_TRIP = 5.0
MAX_UNSENT = 1 << 20
_SLOW_BODY = "a request body that hardly comes"
_SLOW_READER = "answers that are hardly taken"
# What GOAWAY says of why, in the words of gRPC's servers.
_EXPIRED = {"idle": "max_idle", "lifetime": "max_age"}


class ServerStream(Stream):
    """A stream that a client opened; the exchange's reply."""

    __slots__ = ("exchange", "expiry", "gone", "started", "strand")

    carries_grpc = True
    discreet = False

    def __init__(self, conn: Http2Connection, stream_id: int) -> None:
        super().__init__(conn, stream_id)
        self.started = False
        self.exchange: Exchange | None = None
        self.strand: Strand | None = None
        self.gone: Waiter[None] | None = None  # where the shell waits until the answer has left
        self.expiry: Expiry | None = None  # of a tunnel

    @property
    def peer(self) -> str:
        """See :class:`router.model.exchange.Reply`."""
        return self.conn.wire.peer

    @property
    def ends(self) -> Ends:
        """See :class:`router.model.exchange.Reply`."""
        return self.conn.wire.ends

    @property
    def client_certificate(self) -> bytes | None:
        """See :class:`router.model.exchange.Reply`."""
        return self.conn.wire.client_certificate

    def inform(self, head: ResponseHead) -> None:
        """Send an informational response, except to gRPC clients, some of which take it for the final one."""
        exchange = self.exchange
        if not self.started and not self.send_closed and exchange is not None and not exchange.request.grpc:
            self.conn.write_headers(self.id, response_fields(head), end=False)

    def start(self, head: ResponseHead, end: bool) -> Sink:
        """Send the response's head."""
        if head.status == 101:
            head = _opened(head)
        if not self.send_closed:
            self.started = True
            self.conn.write_headers(self.id, response_fields(head), end=end, shared=head.shared)
            if end:
                self._sent_end()
        return self

    @property
    def awaits_body(self) -> bool:
        """Whether the request's body is due and has room. Bodies of gRPC and of answered requests may take their time."""
        exchange = self.exchange
        if self.recv_closed or self.started or exchange is None or exchange.request.grpc or exchange.request.tunnel:
            return False
        return self.recv_window > 0 and self.conn.recv_window > 0

    def left(self) -> None:
        if self.gone is not None:
            self.gone.wake(None)

    def broken(self, failure: Failure) -> None:
        if self.strand is not None:
            self.strand.cancel(failure)

    def release(self) -> None:
        """The exchange is over: what the client still sends is not wanted (§8.1), and cycles are broken."""
        if not self.send_closed:
            self.reset(ErrorCodes.INTERNAL_ERROR)
        elif not self.recv_closed:
            self.reset(ErrorCodes.NO_ERROR)
        self.unjoin()
        source, self.source = self.source, None
        if source is not None:
            source.sink = None
        if self.expiry is not None:
            self.expiry.close()
        self.exchange = None
        self.strand = None

    def end_tunnel(self, why: str) -> None:
        """Nothing in a tunnel says that it should end: end it, if this is an open one."""
        exchange, strand = self.exchange, self.strand
        if exchange is not None and exchange.request.tunnel and self.started and strand is not None:
            strand.cancel(client_gone(why, ErrorCodes.CANCEL))


class OpenTunnel:
    """A tunnel as something that ends when nothing moves in it (:class:`router.model.expiry.Mortal`)."""

    def __init__(self, stream: ServerStream) -> None:
        self._stream = stream
        self.draining = self.closed = False

    @property
    def active(self) -> int:
        """1 until it is open: whether it opens is a matter of deadlines."""
        return int(not self._stream.started)

    @property
    def begun(self) -> int:
        """Rises with what moves."""
        return self._stream.pushed + self._stream.sent

    def expire(self, why: str) -> None:
        """It has been idle for too long."""
        self.closed = True
        self._stream.end_tunnel(f"the tunnel's {why} limit")


def response_fields(head: ResponseHead) -> Fields:
    """The header list of a response; made once per distinct head."""
    rendered = head.rendered
    if rendered is not None and rendered[0] is response_fields:
        fields: Fields = rendered[1]
        return fields
    fields = ((b":status", b"%d" % head.status), *head.fields)
    if head.shared:
        head.rendered = (response_fields, fields)
    return fields


def _opened(head: ResponseHead) -> ResponseHead:
    """How HTTP/2 says that a WebSocket is open (RFC 8441 §5)."""
    return ResponseHead(200, tuple([field for field in head.fields if field[0] != b"sec-websocket-accept"]))


class Http2ServerConnection(Http2Connection):
    """A client's connection."""

    blame = Blame.CLIENT
    stray_cost = limits.FRAME_COST

    def __init__(self, wire: Wire, settings: Settings, server: Http2Server, since: float) -> None:
        self.server = server
        self.context = server.context
        super().__init__(wire, settings)
        ours, guard, now = settings.limits, server.guard, self.now()
        self._resets_left = Allowance(max(ours.max_premature_resets, settings.streams), limits.RESETS_PER_SECOND, now)
        self._faults_left = Allowance(ours.max_stream_faults, limits.FAULTS_PER_SECOND, now)
        self._cut = 0  # streams that did not go well
        self._born = since
        self._full = False  # the client reads too little: we read nothing
        self._bodies = Pace(ours.body_timeout_ms, ours.min_bytes_per_sec)
        self._answers = Pace(ours.stall_timeout_ms, ours.min_bytes_per_sec)
        self._watch = Watch(guard.timers, guard.period, self._look)
        self._watch.arm()
        self._preface = b""
        self._greeted = False
        self._since: float | None = None  # when the first bytes of a header block came that is not complete yet
        self._announced = False
        self.expiry: Expiry | None = None

    @property
    def active(self) -> int:
        """How many streams are open."""
        return len(self.streams)

    @property
    def begun(self) -> int:
        """Rises with each stream."""
        return self.last_peer_id

    def received(self, data: bytes) -> None:
        if not self._greeted:
            data = self._greet(data)
            if not self._greeted:
                return
        if self.wire.congested and self.wire.unsent > MAX_UNSENT and not self.closed:
            self._tail += data
            self._full = True
            self.wire.pause()
            return
        super().received(data)
        if self.within_headers:
            if self._since is None:
                self._since = self.now()
                if self._watch.timer is None and not self.closed:
                    self._watch.arm()
        else:
            self._since = None

    def writable(self) -> None:
        super().writable()
        if self._full and not self.closed:
            self._full = False
            self.wire.resume()
            self.received(b"")

    def _greet(self, data: bytes) -> bytes:
        """Check the connection preface (§3.4); returns what follows it."""
        data = self._preface + data
        wanted = len(frames.PREFACE)
        if not frames.PREFACE.startswith(data[:wanted]):
            self._wrong_protocol(data)
            return b""
        if len(data) >= wanted:  # not before: who speaks HTTP/1.1 shall be able to read our answer
            self._introduce()
        if len(data) < wanted + 9:
            self._preface = data
            return b""
        if data[wanted + 3] != frames.SETTINGS:
            self.fault(ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            return b""
        self._preface, self._greeted = b"", True
        return data[wanted:]

    def _introduce(self) -> None:
        """Send our SETTINGS, once."""
        if not self._announced:
            self._announced = True
            extra = {SettingCodes.MAX_CONCURRENT_STREAMS: self.settings.streams}
            if WEBSOCKET in self.context.tunnels:
                extra[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
            self.announce(extra=extra)

    def begin_upgraded(self, head: RequestHead, settings: bytes) -> None:
        """The request that asked for h2c is stream 1, half-closed; its SETTINGS are not acknowledged (RFC 7540 §3.2)."""
        self._introduce()
        try:
            self.apply_settings(settings)
        except ConnectionFault as fault:
            self.fault(fault.code, fault.why)
            return
        self.last_peer_id = 1
        stream = ServerStream(self, 1)
        stream.recv_closed = True
        self.streams[1] = stream
        self._begin(stream, head, True, None)

    def _wrong_protocol(self, data: bytes) -> None:
        """Somebody speaks another protocol: say what this port wants, in HTTP/1.1 if that is what it was."""
        if b" HTTP/1." in data[:4096]:
            text = b"this port speaks HTTP/2 with prior knowledge (h2c), not HTTP/1.1\n"
            fields = b"content-type: text/plain\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(text)
            self.closed = True
            self.wire.write(b"HTTP/1.1 400 Bad Request\r\n" + fields + text)
            self.wire.close()
        else:
            self.fault(ErrorCodes.PROTOCOL_ERROR, "no HTTP/2 connection preface")

    # -- requests -------------------------------------------------------------------------------------------

    def on_new_stream(self, stream_id: int, block: Block, end: bool) -> None:
        if not stream_id & 1:
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "a client opened a stream with an even number")
        if stream_id <= self.last_peer_id:
            raise ConnectionFault(ErrorCodes.STREAM_CLOSED, "HEADERS on a closed stream")
        self.last_peer_id = stream_id
        if self._watch.timer is None:
            self._watch.arm()
        if len(self.streams) >= self.settings.streams:
            self._cut += 1
            self.spend(limits.STRAY_BLOCK_COST + limits.PER_STREAM, "refused")  # these have earned nothing
            raise StreamFault(ErrorCodes.REFUSED_STREAM, "too many streams")
        stream = ServerStream(self, stream_id)
        stream.recv_closed = end
        self.streams[stream_id] = stream
        if block.too_large:
            self._faulty("header_list", "header lists that are too large")
            self._too_large(stream, block, end)
            return
        head = request_head(block)
        if head.tunnel:
            self._tunnel(stream, head, end)
            return
        if end and head.length:
            raise StreamFault(ErrorCodes.PROTOCOL_ERROR, "no body, but a content-length")
        if not end:
            stream.expected = head.length
        self._begin(stream, head, end, None)

    def _too_large(self, stream: ServerStream, block: Block, end: bool) -> None:
        """Answer 431 (RFC 6585 §5), or in gRPC's way if the part of the head that was kept says that it is gRPC."""
        failure = Failure(Kind.TOO_LARGE, f"header list larger than {self.settings.list_size} bytes", Blame.CLIENT)
        failure.status = 431
        try:
            head = request_head(block)
        except Malformed:  # because of what was cut off
            head = _UNREADABLE
        self._begin(stream, head, end, failure)

    def _tunnel(self, stream: ServerStream, head: RequestHead, end: bool) -> None:
        """A CONNECT, plain or extended; of the latter's protocols there is one."""
        offered, extended = self.context.tunnels, head.path != b""
        if extended and WEBSOCKET not in offered:
            raise StreamFault(ErrorCodes.PROTOCOL_ERROR, ":protocol, which we have not announced")
        failure = None
        if head.tunnel not in offered or (extended and head.tunnel != WEBSOCKET):
            what = f" for {head.tunnel.decode('ascii', 'replace')}" if extended else ""
            failure = Failure(Kind.UNSUPPORTED, f"CONNECT{what} is not enabled on this port", Blame.CLIENT)
            failure.status = 501
        if end:
            stream.finish(())
        self._begin(stream, head, end, failure)
        if stream.exchange is not None:
            tunnel = OpenTunnel(stream)
            stream.expiry = self.server.expiries.watch_idle(tunnel, tunnel.expire)

    def _begin(self, stream: ServerStream, head: RequestHead, end: bool, failure: Failure | None) -> None:
        context = self.context
        host = context.host
        exchange = Exchange(host, head, None if end and not head.tunnel else stream, stream)
        if self._since is not None:
            exchange.received_at, self._since = self._since, None
        stream.exchange = exchange
        strand = Strand(host, self._serve(exchange, stream, failure))
        exchange.strand = stream.strand = strand
        strand.start()

    async def _serve(self, exchange: Exchange, stream: ServerStream, failure: Failure | None) -> None:
        """The shell of one exchange: conduct it, answer its failure, wait until the answer has left."""
        context = self.context
        try:
            try:
                if failure is not None:
                    raise failure
                await context.service(exchange)
                if not stream.send_closed and not exchange.complete:
                    raise RuntimeError("the service returned without an answer")
            except Failure as error:
                exchange.failure = error
                context.render(exchange, error)
            except Exception as error:  # noqa: BLE001 - a bug ends this exchange only
                context.host.crashed(error)
                exchange.failure = Failure(Kind.BUG, f"internal error: {type(error).__name__}")
                context.render(exchange, exchange.failure)
            if not stream.send_closed:
                stream.gone = Waiter()
                await stream.gone
        except Failure as error:  # while the answer was leaving: the client went away, or no time is left
            exchange.failure = error
        finally:
            stream.release()
            exchange.close()

    def on_more_headers(self, stream: Stream, block: Block, end: bool) -> None:
        if not end:
            raise Malformed("a second header block that does not end the stream")
        trailers = trailer_fields(block)
        assert isinstance(stream, ServerStream)
        if stream.exchange is not None and stream.exchange.request.tunnel:
            raise Malformed("HEADERS in a tunnel")
        self.close_recv(stream)
        stream.finish(trailers)

    # -- abuse ----------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.server.guard.now()

    def on_peer_reset(self, stream: Stream) -> None:
        assert isinstance(stream, ServerStream)
        exchange = stream.exchange
        if stream.started or exchange is None or self.now() - exchange.received_at > limits.PREMATURE:
            return
        self._went_wrong()
        allowance = self._resets_left
        allowance.left -= 1
        if allowance.left < 0 and not allowance.settle(self.now(), self._went_well()):
            raise frames.abuse("rapid_reset", "too many streams reset before their answer")

    def stream_fault(self, stream_id: int, code: ErrorCodes, why: str) -> None:
        super().stream_fault(stream_id, code, why)
        if code != ErrorCodes.REFUSED_STREAM:
            self._faulty("made_reset", f"too many broken streams, the last one: {why}")

    def _faulty(self, kind: str, why: str) -> None:
        self._went_wrong()
        allowance = self._faults_left
        allowance.left -= 1
        if allowance.left < 0 and not allowance.settle(self.now(), self._went_well()):
            raise frames.abuse(kind, why)

    def restart(self, now: float) -> None:
        super().restart(now)
        self._resets_left.restart(now)
        self._faults_left.restart(now)

    def _went_wrong(self) -> None:
        self._cut += 1
        self._turn -= limits.CUT_COST
        suspect = self._cut > limits.SUSPECT_AFTER and self._cut * 4 > self.last_peer_id
        self._per_turn = limits.SUSPECT_TURN if suspect else limits.TURN

    def _went_well(self) -> int:
        """How many streams ended as they should, at least."""
        return max(0, (self.last_peer_id + 1 >> 1) - len(self.streams) - self._cut)

    def abused(self, kind: str, why: str) -> None:
        self.server.guard.abused(kind, self.wire.peer, why)

    def _end_abuse(self, kind: str, why: str) -> None:
        self.abused(kind, why)
        self.fault(ErrorCodes.ENHANCE_YOUR_CALM, why)

    def _look(self) -> bool:
        """What is late by now? Returns whether to look again."""
        ours, now = self.settings.limits, self.now()
        if not self._greeted:
            if expired(self._born, ours.head_timeout_ms, now):
                self._introduce()
                self._end_abuse("head", "no connection preface in time")
        elif self._since is not None and expired(self._since, ours.head_timeout_ms, now):
            self._end_abuse("head", "a header block that does not come to its end")
        elif not self.last_peer_id:
            if expired(self._born, ours.first_request_timeout_ms, now):
                self._nobody_came()
        else:
            self._look_at_streams(now)
        return not self.closed and bool(self.streams or self.wire.unsent or self._since is not None or not self.last_peer_id)

    def _nobody_came(self) -> None:
        """Close without reproach: a client that has a request after all knows that it was not processed."""
        self.server.guard.count("idle")
        self.wire.write(frames.goaway(0, ErrorCodes.NO_ERROR, "idle"))
        self.finishing = True
        self.close_if_done()

    def _look_at_streams(self, now: float) -> None:
        answers, bodies = self._answers, self._bodies
        answers.begin()
        bodies.begin()
        if self.wire.unsent and answers.slow(0, self.wire.sent, now):
            self._end_abuse("stalled", _SLOW_READER)
            return
        slow: list[tuple[int, str, str]] = []
        for stream in self.streams.values():
            assert isinstance(stream, ServerStream)
            if stream.queued() and answers.slow(stream.id, stream.pumped, now):
                slow.append((stream.id, "stalled", _SLOW_READER))
            elif stream.awaits_body and bodies.slow(stream.id, stream.received + len(self._tail), now):
                slow.append((stream.id, "body", _SLOW_BODY))
        if slow and len(slow) == len(self.streams):
            self._end_abuse(slow[0][1], slow[0][2])
        for stream_id, kind, why in slow:
            self._end_slow(stream_id, kind, why)

    def _end_slow(self, stream_id: int, kind: str, why: str) -> None:
        """End one stream; when that happens too often, the connection."""
        if self.closed:
            return
        self.abused(kind, why)
        try:
            self.stream_fault(stream_id, ErrorCodes.ENHANCE_YOUR_CALM, why)
        except ConnectionFault as fault:
            self._end_abuse(fault.abuse, fault.why)

    def reset_failure(self, code: int) -> Failure:
        return client_gone("stream reset by the client", code)

    def lost_failure(self, why: str) -> Failure:
        return client_gone(why)

    # -- the end --------------------------------------------------------------------------------------------

    def drain(self, why: str = "drain") -> None:
        self._introduce()
        super().drain(why)
        self.context.host.timers.after(DRAIN_ROUND_TRIP, self._drain_anyway)

    def end_tunnels(self, why: str) -> None:
        """End the tunnels that are open."""
        for stream in list(self.streams.values()):
            assert isinstance(stream, ServerStream)
            stream.end_tunnel(why)

    def expire(self, why: str) -> None:
        """The connection has been idle for too long, or is too old: then its tunnels end too."""
        self.end_tunnels(f"the connection's {why} limit")
        self.drain(_EXPIRED[why])

    def _drain_anyway(self, _: Any) -> None:
        if not self.closed and not self.finishing:
            self._drained_round_trip()

    def lost(self, why: str) -> None:
        self._watch.stop()
        super().lost(why)
        self.server.gone(self)


_UNREADABLE = RequestHead(b"", b"", b"", b"/")


class Http2Server:
    """The HTTP/2 connections of a listener."""

    alpn = "h2"

    def __init__(self, settings: Settings, context: ServerContext) -> None:
        self.settings = settings
        self.context = context
        where = context.metrics.path
        self.guard = Guard(settings.limits, context.host, context.metrics, KINDS, where)
        self.patience = settings.limits.head_timeout_ms / 1000 or inf
        self._connections: set[Http2ServerConnection] = set()
        self._draining = False
        measure(context.metrics.scope("stream"), self._connections)
        context.upgrades[b"h2c"] = self.upgrade
        self.expiries = Expiries(context.host.timers, context.session, context.metrics)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def admit(self, wire: Wire, connections: int, *, tell: bool) -> bool:
        """Whether there is room for a new connection; above the limit it is told that nothing of its was processed."""
        if connections < self.guard.max_connections:
            return True
        answer = frames.settings({}) + frames.goaway(0, ErrorCodes.NO_ERROR, "too many connections")
        self.guard.refuse(wire, answer if tell else b"")
        return False

    def recognises(self, data: bytes) -> bool | None:
        """Whether a connection that begins like this is ours; None while that cannot be told."""
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            return False
        return True if len(data) >= 16 else None  # "PRI * HTTP/2.0\r\n": no request line of HTTP/1

    def adopt(self, wire: Wire, data: bytes, since: float) -> None:
        """Serve a connection that came at ``since``, and of which ``data`` was read."""
        connection = self._adopt(wire, since)
        if data:
            connection.received(data)

    def upgrade(self, wire: Wire, head: RequestHead, settings: bytes, data: bytes) -> None:
        """Go on with a connection whose client asked for h2c with ``head``; ``data`` was read behind it."""
        connection = self._adopt(wire, self.guard.now())
        connection.begin_upgraded(head, settings)
        if data:
            connection.received(data)

    def _adopt(self, wire: Wire, since: float) -> Http2ServerConnection:
        connection = Http2ServerConnection(wire, self.settings, self, since)
        connection.expiry = self.expiries.watch(connection, connection.expire)
        self._connections.add(connection)
        wire.start(connection)
        if self._draining:
            connection.drain()
        return connection

    def refuse(self, wire: Wire, why: str) -> None:
        """Tell a connection that is not served why."""
        wire.write(frames.settings({}) + frames.goaway(0, ErrorCodes.PROTOCOL_ERROR, why))
        wire.close()

    def gone(self, connection: Http2ServerConnection) -> None:
        """Called by a connection that is over."""
        if connection.expiry is not None:
            connection.expiry.close()
        self._connections.discard(connection)

    def end_tunnels(self) -> None:
        """See :class:`router.spi.Server`."""
        for connection in list(self._connections):
            connection.end_tunnels("the router is stopping")

    def drain(self) -> None:
        """GOAWAY to every connection."""
        self._draining = True
        for connection in list(self._connections):
            connection.drain()
