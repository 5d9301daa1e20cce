"""The server role: requests come in, each becomes an exchange on a strand of its own.

While more than ``MAX_UNSENT`` bytes wait for a client that does not read them, nothing more is read from it: answers without
a body are bounded by no window. What else a client may not do: :mod:`protocols.http2.server_watch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from protocols.http2 import frames, limits
from protocols.http2.codec import Block
from protocols.http2.frames import ConnectionFault, StreamFault
from protocols.http2.server_stream import OpenTunnel, ServerStream
from protocols.http2.server_watch import WatchedConnection
from protocols.http2.state import Settings
from protocols.http2.stream import Stream
from protocols.http2.validation import Malformed, request_head, trailer_fields
from protocols.wire.connection import Connection as Wire
from router.model.exchange import Exchange
from router.model.expiry import Expiry
from router.model.failure import Blame, Failure, Kind
from router.model.headers import WEBSOCKET, RequestHead
from router.model.strand import Strand, Waiter

if TYPE_CHECKING:
    from protocols.http2.server import Http2Server

# GOAWAY's second step comes after this many seconds even if the peer does not acknowledge our PING.
DRAIN_ROUND_TRIP = 5.0
MAX_UNSENT = 1 << 20
# What GOAWAY says of why, in the words of gRPC's servers.
_EXPIRED = {"idle": "max_idle", "lifetime": "max_age"}
_UNREADABLE = RequestHead(b"", b"", b"", b"/")


class Http2ServerConnection(WatchedConnection):
    """A client's connection."""

    def __init__(self, wire: Wire, settings: Settings, server: Http2Server, since: float) -> None:
        self.server = server
        self.context = server.context
        super().__init__(wire, settings, server.guard, since)
        self._full = False  # the client reads too little: we read nothing
        self._preface = b""
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
            self.introduce()
        if len(data) < wanted + 9:
            self._preface = data
            return b""
        if data[wanted + 3] != frames.SETTINGS:
            self.fault(ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            return b""
        self._preface, self._greeted = b"", True
        return data[wanted:]

    def introduce(self) -> None:
        """Send our SETTINGS, once."""
        if not self._announced:
            self._announced = True
            extra = {SettingCodes.MAX_CONCURRENT_STREAMS: self.settings.streams}
            if WEBSOCKET in self.context.tunnels:
                extra[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
            self.announce(extra=extra)

    def begin_upgraded(self, head: RequestHead, settings: bytes) -> None:
        """The request that asked for h2c is stream 1, half-closed; its SETTINGS are not acknowledged (RFC 7540 §3.2)."""
        self.introduce()
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

    # -- the end --------------------------------------------------------------------------------------------

    def drain(self, why: str = "drain") -> None:
        self.introduce()
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
