"""The client role: a session to an endpoint, which conducts exchanges as streams."""

from __future__ import annotations

from collections.abc import Callable

import trio
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from protocols.http2 import frames
from protocols.http2.codec import Block
from protocols.http2.connection import Http2Connection, measure
from protocols.http2.frames import ConnectionFault
from protocols.http2.state import Settings
from protocols.http2.stream import Stream
from protocols.http2.tables import Grafted
from protocols.http2.validation import Malformed, response_head, trailer_fields
from protocols.wire.connection import Connection as Wire
from protocols.wire.connection import WireProtocol
from protocols.wire.dial import dial
from router.model.exchange import Exchange, deadline_failure
from router.model.failure import Blame, Failure, Kind
from router.model.headers import WEBSOCKET, Fields, RequestHead, ResponseHead
from router.model.stale import lost_connection
from router.model.strand import Waiter
from router.spi import ClientContext, Connect, Session

# A client connection takes no new streams after this many ids; the pool opens another one in time.
SLACK = 0.002  # seconds that an endpoint's clock may be ahead of ours
LAST_ID = frames.MAX_STREAM_ID // 4 * 3


class ClientStream(Stream):
    """A stream that we opened: sink of the request, source of the response."""

    __slots__ = ("exchange", "over", "sent_before", "tunnel", "woke")

    def __init__(self, conn: Http2Connection, stream_id: int, exchange: Exchange) -> None:
        super().__init__(conn, stream_id)
        self.exchange = exchange
        self.over: Waiter[None] = Waiter()
        self.sent_before = conn.wire.sent  # what was written since has not left
        self.woke = not conn.streams  # the connection was idle
        self.tunnel = False  # an open one

    def push(self, chunk: bytes | memoryview, size: int, end: bool) -> None:
        sink = self.sink
        if sink is None:
            self.conn.credit(size)
            self.reset(ErrorCodes.PROTOCOL_ERROR)
            self.broken(Failure(Kind.PROTOCOL, "DATA before a response head", Blame.UPSTREAM))
            return
        if end:
            self.ended = True
            self.exchange.conclude(())
        sink.data(chunk, size, end)
        if end:
            self._responded()

    def finish(self, trailers: Fields) -> None:
        super().finish(self.exchange.conclude(trailers))
        self._responded()

    def _responded(self) -> None:
        """With the response the exchange is over; a tunnel has another direction."""
        if not self.tunnel or self.send_closed:
            self.over.wake(None)

    def left(self) -> None:
        if self.tunnel and self.ended:
            self.over.wake(None)

    def broken(self, failure: Failure) -> None:
        if failure.code == ErrorCodes.CONNECT_ERROR and not self.exchange.request.tunnel:
            failure.code = ErrorCodes.INTERNAL_ERROR  # nobody but us knows of a connection
        if self.sink is not None:
            failure.retryable = False  # whoever has sent a head has processed the request, whatever it says now
        self.over.throw(self._rang() or failure if failure.code == ErrorCodes.CANCEL else failure)

    def _rang(self) -> Failure | None:
        """An expiry, if the endpoint's clock rang before ours: it was given less than there is, and our timers are no finer
        than a tick. Cancelling is how gRPC servers say so, and the client must not take it for its own doing."""
        exchange = self.exchange
        if not exchange.request.grpc or exchange.now() < exchange.deadline - SLACK:
            return None
        return deadline_failure(exchange.deadline_cause, exchange.deadline - exchange.received_at)

    def release(self) -> None:
        """The exchange is over: reset what is unfinished, break cycles."""
        if not self.recv_closed:
            self.reset(ErrorCodes.CANCEL)
        elif not self.send_closed:
            self.reset(ErrorCodes.NO_ERROR)
        self.unjoin()
        source, self.source = self.source, None
        if source is not None:
            source.sink = None


def request_fields(head: RequestHead) -> Fields:
    """The header list of a request; made once per distinct head."""
    rendered = head.rendered
    if rendered is not None and rendered[0] is request_fields:
        fields: Fields = rendered[1]
        return fields
    stem = head.stem
    if stem is not None and stem.shared:
        return _grafted(head, request_fields(stem))
    fields = (
        (b":method", head.method),
        (b":scheme", head.scheme),
        (b":path", head.path),
        (b":authority", head.authority),
        *head.fields,
    )
    if head.tunnel:
        fields = _for_tunnel(fields)
    if not head.authority:
        fields = tuple(field for field in fields if field[0] != b":authority")
    if head.shared:
        head.rendered = (request_fields, fields)
    return fields


def _grafted(head: RequestHead, stem: Fields) -> Fields:
    fields = Grafted((*stem, head.fields[-1]))
    fields.stem = stem
    if head.shared:
        head.rendered = (request_fields, fields)
    return fields


def _for_tunnel(fields: Fields) -> Fields:
    """A request for a WebSocket is an extended CONNECT here (RFC 8441 §5)."""
    kept = [field for field in fields[1:] if field[0] not in (b"sec-websocket-key", b"content-length")]
    return ((b":method", b"CONNECT"), (b":protocol", WEBSOCKET), *kept)


class Http2Session(Http2Connection):
    """A connection to an endpoint: a :class:`router.spi.Session`."""

    peer_initiates = 0
    next_id = 1

    def __init__(self, wire: Wire, settings: Settings) -> None:
        super().__init__(wire, settings)
        self.changed: Callable[[Session], None] = _ignore
        self.gone: Callable[[Session], None] = _ignore
        self.greeted: Callable[[], None] = _nothing
        self.why = ""
        self.calmed: Callable[[], None] = _nothing  # the peer complained about PINGs
        wire.write(frames.PREFACE)
        self._capacity = min(self.peer_streams, settings.streams)
        self.announce(extra={SettingCodes.ENABLE_PUSH: 0})

    @property
    def free(self) -> int:
        """How many more streams can be opened now."""
        if self.draining or self.closed or self.next_id > LAST_ID:
            return 0
        return max(0, self._capacity - len(self.streams))

    @property
    def active(self) -> int:
        """How many streams are open."""
        return len(self.streams)

    @property
    def begun(self) -> int:
        """Rises with each stream."""
        return self.next_id

    async def conduct(self, exchange: Exchange) -> None:
        """Open a stream, join the bodies, and wait for the end of the response."""
        head, body = exchange.request, exchange.body
        if head.tunnel and not self.peer_connects:
            raise _no_tunnels()
        stream = ClientStream(self, self.next_id, exchange)
        self.next_id += 2
        self.streams[stream.id] = stream
        self.write_headers(stream.id, request_fields(head), end=body is None, shared=head.shared)
        if body is None:
            stream.send_closed = True
        elif not head.tunnel:
            body.join(stream)
        try:
            await stream.over
        finally:
            stream.release()

    # -- responses ------------------------------------------------------------------------------------------

    def on_new_stream(self, stream_id: int, block: Block, end: bool) -> None:
        if stream_id & 1 and stream_id < self.next_id:
            raise ConnectionFault(ErrorCodes.STREAM_CLOSED, "HEADERS on a closed stream")
        raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "HEADERS on a stream that we did not open")

    def on_more_headers(self, stream: Stream, block: Block, end: bool) -> None:
        assert isinstance(stream, ClientStream)
        if block.too_large:
            raise Malformed("response header list too large")
        if stream.sink is not None:
            self._trailers(stream, block, end)
            return
        head = response_head(block)
        exchange = stream.exchange
        if head.status < 200:
            if end or head.status == 101:
                raise Malformed("an informational response that ends the stream or switches protocols")
            exchange.reply.inform(head)
            return
        if exchange.request.tunnel:
            if head.status < 300:
                self._open(stream, head, end)
                return
            stream.end(())  # there will be no tunnel: the request is complete
        if end:
            stream.recv_closed = True
            if stream.send_closed:
                self.forget(stream)
            exchange.conclude(())
            exchange.respond(head, True)
            stream.over.wake(None)
            return
        if exchange.request.method != b"HEAD" and head.status not in (204, 304):
            stream.expected = head.length
        stream.join(exchange.respond(head, False))

    def _open(self, stream: ClientStream, head: ResponseHead, end: bool) -> None:
        stream.tunnel = True
        exchange = stream.exchange
        fields = tuple([field for field in head.fields if field[0] != b"content-length"])
        stream.join(exchange.open(ResponseHead(101, fields)))
        assert exchange.body is not None
        exchange.body.join(stream)
        if end:
            self.close_recv(stream)
            stream.finish(())

    def _trailers(self, stream: ClientStream, block: Block, end: bool) -> None:
        if stream.tunnel:
            raise Malformed("HEADERS in a tunnel")
        if not end:
            raise Malformed("a second header block that does not end the stream")
        trailers = trailer_fields(block)
        self.close_recv(stream)
        stream.finish(trailers)

    def on_settings(self) -> None:
        self._capacity = min(self.peer_streams, self.settings.streams)
        self.greeted()
        self._freed()

    def on_stream_gone(self) -> None:
        super().on_stream_gone()
        self._freed()

    def _freed(self) -> None:
        if self.free:
            self.changed(self)
        elif self.next_id > LAST_ID and not self.draining and not self.closed:
            self.drain()

    # -- the end --------------------------------------------------------------------------------------------

    def on_goaway(self, last: int, code: int, why: bytes) -> None:
        """Streams above ``last`` were not processed, whatever the code: they can be sent again elsewhere (§6.8)."""
        self.draining = self.finishing = True
        if code == ErrorCodes.ENHANCE_YOUR_CALM and why == b"too_many_pings":
            self.calmed()
        text = f"refused by GOAWAY {code:#x} {why.decode('ascii', 'replace')}".rstrip()
        for stream in [stream for stream in self.streams.values() if stream.id > last]:
            stream.was_reset(Failure(Kind.RESET, text, Blame.UPSTREAM, code=ErrorCodes.REFUSED_STREAM, retryable=True))
        self.changed(self)
        self.close_if_done()

    def drain(self, why: str = "drain") -> None:
        """Take no new exchanges; close with the last one."""
        self.draining = self.finishing = True
        self.changed(self)
        self.close_if_done()

    def close(self) -> None:
        """Close now. What was written still leaves, so none of it is known not to have arrived."""
        if not self.closed:
            self.closed = True
            self.wire.write(frames.goaway(0, ErrorCodes.NO_ERROR, "close"))
            self.wire.close()
            self._fail_streams(Failure(Kind.RESET, "connection to the endpoint closed", Blame.UPSTREAM))
            self._tell()

    def close_if_done(self) -> None:
        if self.finishing and not self.streams and not self.closed:
            self.closed = True
            self.wire.write(frames.goaway(0, ErrorCodes.NO_ERROR, "drain"))
            self.wire.close()
            self.changed(self)

    def eof(self) -> None:
        """The endpoint closed: what has not left yet must not leave any more, since it is sent again elsewhere."""
        self.wire.abort("closed by the endpoint")

    def lost(self, why: str) -> None:
        self.why = self.why or why
        self.closed = True
        for stream in list(self.streams.values()):
            stream.was_reset(self._lost(stream, why))
        self._tell()

    def vanished(self, why: str) -> None:
        """The endpoint does not answer: its exchanges fail as resets."""
        self.closed = True
        self._fail_streams(Failure(Kind.RESET, f"connection to the endpoint lost: {why}", Blame.UPSTREAM))
        self.wire.abort(why)

    def _tell(self) -> None:
        self.greeted()
        self.gone(self)
        self.changed(self)

    def _lost(self, stream: Stream, why: str) -> Failure:
        """What the loss of the connection means to a stream."""
        assert isinstance(stream, ClientStream)
        sent, begun = stream.sent_before != self.wire.sent, stream.exchange.response is not None
        method = stream.exchange.request.method
        return lost_connection(why, method, sent=sent, used=stream.id > 1, quiet=stream.woke and not begun)


def _no_tunnels() -> Failure:
    why = ("the endpoint takes no WebSockets over HTTP/2 (RFC 8441: SETTINGS_ENABLE_CONNECT_PROTOCOL); where it takes them "
           "over HTTP/1.1, set the client's protocol to http")  # fmt: skip
    failure = Failure(Kind.UNSUPPORTED, why, Blame.ROUTER)
    failure.status = 501
    return failure


def _ignore(_: Session) -> None:
    pass


def _nothing() -> None:
    pass


Watch = Callable[[Http2Session, "tuple[str, int]"], WireProtocol]


def connector(settings: Settings, context: ClientContext, watch: Watch | None = None) -> Connect:
    """How the pool opens sessions. A session is ready with the peer's first SETTINGS, so that its limit is known.

    ``watch`` puts something between a session and its wire.
    """
    sessions = context.sessions
    measure(context.metrics.scope("stream"), sessions)

    async def open_session(host: str, port: int) -> Session:
        wire = await dial(context.poller, context.host.timers, host, port, context.tls, insist=True)
        session = Http2Session(wire, settings)
        greeted = trio.Event()
        session.greeted = greeted.set
        session.gone = sessions.discard
        sessions.add(session)
        wire.start(session if watch is None else watch(session, (host, port)))
        try:
            await greeted.wait()
        except trio.Cancelled:
            session.close()
            raise
        if session.closed:
            raise OSError(f"{host}:{port} does not speak HTTP/2 (no SETTINGS before the end: {session.why or 'closed'})")
        session.greeted = _nothing
        return session

    return open_session
