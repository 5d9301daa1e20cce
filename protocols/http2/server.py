"""The server role: requests come in, each becomes an exchange on a strand of its own."""

from __future__ import annotations

import socket
from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from protocols.http2 import frames
from protocols.http2.codec import Block
from protocols.http2.connection import Http2Connection, Settings
from protocols.http2.frames import ConnectionFault, StreamFault
from protocols.http2.stream import Stream
from protocols.http2.validation import Malformed, request_head, trailer_fields
from protocols.wire.connection import Connection as Wire
from router.model.body import Sink
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind, client_gone
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.strand import Strand, Waiter
from router.spi import ServerContext

# GOAWAY's second step comes after this many seconds even if the peer does not acknowledge our PING.
DRAIN_ROUND_TRIP = 5.0


class ServerStream(Stream):
    """A stream that a client opened; the exchange's reply."""

    __slots__ = ("exchange", "gone", "started", "strand")

    def __init__(self, conn: Http2Connection, stream_id: int) -> None:
        super().__init__(conn, stream_id)
        self.started = False
        self.exchange: Exchange | None = None
        self.strand: Strand | None = None
        self.gone: Waiter[None] | None = None  # where the shell waits until the answer has left

    def inform(self, head: ResponseHead) -> None:
        """Send an informational response, except to gRPC clients, some of which take it for the final one."""
        exchange = self.exchange
        if not self.started and not self.send_closed and exchange is not None and not exchange.request.grpc:
            self.conn.write_headers(self.id, response_fields(head), end=False)

    def start(self, head: ResponseHead, end: bool) -> Sink:
        """Send the response's head."""
        if not self.send_closed:
            self.started = True
            self.conn.write_headers(self.id, response_fields(head), end=end, shared=head.shared)
            if end:
                self._sent_end()
        return self

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
        self.exchange = None
        self.strand = None


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


class Http2ServerConnection(Http2Connection):
    """A client's connection."""

    blame = Blame.CLIENT

    def __init__(self, wire: Wire, settings: Settings, server: Http2Server) -> None:
        super().__init__(wire, settings)
        self.server = server
        self.context = server.context
        self._preface = b""
        self._greeted = False
        self._since: float | None = None  # when the first bytes of a header block came that is not complete yet
        self._announced = False

    def received(self, data: bytes) -> None:
        if not self._greeted:
            data = self._greet(data)
        if data:
            super().received(data)
            if self.within_headers:
                if self._since is None:
                    self._since = self.context.host.timers.now()
            else:
                self._since = None

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
            self.announce(extra={SettingCodes.MAX_CONCURRENT_STREAMS: self.settings.streams})

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
        if len(self.streams) >= self.settings.streams:
            raise StreamFault(ErrorCodes.REFUSED_STREAM, "too many streams")
        stream = ServerStream(self, stream_id)
        stream.recv_closed = end
        self.streams[stream_id] = stream
        if block.too_large:
            self._begin(stream, _UNREADABLE, end, Failure(Kind.TOO_LARGE, "header list too large", Blame.CLIENT))
            return
        head = request_head(block)
        if end and head.length:
            raise StreamFault(ErrorCodes.PROTOCOL_ERROR, "no body, but a content-length")
        if not end:
            stream.expected = head.length
        self._begin(stream, head, end, None)

    def _begin(self, stream: ServerStream, head: RequestHead, end: bool, failure: Failure | None) -> None:
        context = self.context
        host = context.host
        exchange = Exchange(host, head, None if end else stream, stream)
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
        self.close_recv(stream)
        stream.finish(trailers)

    def reset_failure(self, code: int) -> Failure:
        return client_gone("stream reset by the client", code)

    def lost_failure(self, why: str) -> Failure:
        return client_gone(why)

    # -- the end --------------------------------------------------------------------------------------------

    def drain(self) -> None:
        self._introduce()
        super().drain()
        self.context.host.timers.after(DRAIN_ROUND_TRIP, self._drain_anyway)

    def _drain_anyway(self, _: Any) -> None:
        if not self.closed and not self.finishing:
            self._drained_round_trip()

    def lost(self, why: str) -> None:
        super().lost(why)
        self.server.gone(self)


_UNREADABLE = RequestHead(b"", b"", b"", b"/")


class Http2Server:
    """The accepting side of a listener."""

    def __init__(self, settings: Settings, context: ServerContext) -> None:
        self.settings = settings
        self.context = context
        self._connections: set[Http2ServerConnection] = set()
        self._gauge = context.metrics.gauge("connections", lambda: len(self._connections))
        self._connects = context.metrics.counter("connects")
        self._draining = False

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def accept(self, sock: socket.socket, peer: Any) -> None:
        """Serve a new connection."""
        wire = Wire(self.context.poller, self.context.host.timers, sock)
        connection = Http2ServerConnection(wire, self.settings, self)
        self._connections.add(connection)
        self._connects.value += 1
        wire.start(connection)

    def gone(self, connection: Http2ServerConnection) -> None:
        """Called by a connection that is over."""
        self._connections.discard(connection)

    def drain(self) -> None:
        """GOAWAY to every connection."""
        for connection in list(self._connections):
            connection.drain()
