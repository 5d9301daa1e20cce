"""The server role: one exchange at a time per connection, pipelined requests answered in order.

A client that does not read its answers gets no further ones. What else ends a connection: :mod:`protocols.http1.server_watch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.http1 import render, websocket
from protocols.http1.core import Limits, RequestParser
from protocols.http1.halves import Http1Source
from protocols.http1.reply import Http1Reply
from protocols.http1.rules import Framing, ProtocolFault
from protocols.http1.server_watch import WatchedConnection
from protocols.http1.upgrade import SWITCHING, h2c_settings
from protocols.wire.connection import Connection as Wire
from protocols.wire.tunnel import ClientEnd
from router.model.body import Source
from router.model.exchange import Exchange
from router.model.failure import Failure, Kind
from router.model.headers import CONNECT, WEBSOCKET, Fields, RequestHead
from router.model.strand import Strand, Waiter

if TYPE_CHECKING:
    from protocols.http1.server import Http1Server

MAX_PIPELINED = 65536
REQUESTS_PER_TURN = 64  # pipelined ones that are answered at once; the others wait while everybody else has a turn


class Http1ServerConnection(WatchedConnection):
    """A client's connection: parser, the exchange under way, and what follows it."""

    def __init__(self, wire: Wire, limits: Limits, server: Http1Server, since: float) -> None:
        super().__init__(wire, server, since)
        self.parser = RequestParser(self, limits, b"https" if wire.secure else b"http")
        self._done: Waiter[None] | None = None
        self._held = False  # the next request must wait
        self._turn = 0

    # -- from the wire --------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Parse; refuse what cannot be parsed and close."""
        if self.closed:
            return
        self._turn = REQUESTS_PER_TURN
        if self._held:
            self._next()
        try:
            self.parser.feed(data)
        except ProtocolFault as fault:
            self._malformed(fault)
            return
        if self.parser.buffered:
            if self._since is None and self.parser.between:
                self._since = self.context.host.timers.now()
                if self._watch.timer is None:
                    self._watch.arm()
            if self._exchange is not None and self.parser.buffered > MAX_PIPELINED:
                self.wire.pause()

    def eof(self) -> None:
        """A client that closes its half is gone, as for Linkerd 1.x: it looks the same as one that closes both."""
        self.keep_alive = False
        if self._exchange is None:
            self._close()
            return
        self.lost("connection closed by the client")
        self.wire.close()

    def writable(self) -> None:
        """The socket drained."""
        if self._reply is not None:
            self._reply.release_credit()
        elif self._held:
            self.wire.resume()
            self._next()

    # -- from the parser ------------------------------------------------------------------------------------

    def on_request(self, head: RequestHead, framing: Framing) -> None:
        """A request begins: start its exchange."""
        if head.tunnel and CONNECT not in self.context.tunnels:
            raise ProtocolFault(501, "CONNECT is not enabled on this port")
        if framing.upgrades and not framing.length and not head.tunnel:
            if self._upgraded(head):
                return
            if WEBSOCKET in self.context.tunnels and websocket.asked(head):
                head = head.replace(tunnel=WEBSOCKET)
        self._requests += 1
        if self._watch.timer is None:
            self._watch.arm()
        # What follows a CONNECT that is refused was meant for another: it must not be read as a request.
        self.keep_alive = framing.keep_alive and not self.draining and head.tunnel != CONNECT
        self._source = None
        if framing.chunked or framing.length:
            self._source = Http1Source(self.wire, self._continue if framing.expects else _nothing, self._stop_reading)
        reply = self._reply = Http1Reply(self, head)
        body: Source | None = self._source
        if head.tunnel:
            body = self._tunnel = ClientEnd(self.wire, self.lost, self._tunnelled)
        exchange = Exchange(self.context.host, head, body, reply)
        if self._since is not None:
            exchange.received_at, self._since = self._since, None
        self._exchange = exchange
        strand = Strand(self.context.host, self._serve(exchange, reply))
        exchange.strand = self._strand = strand
        strand.start()

    def _upgraded(self, head: RequestHead) -> bool:
        """Give the connection to HTTP/2, where the client asks for that and there is one."""
        upgrade = self.context.upgrades.get(b"h2c")
        settings = None if upgrade is None or self.wire.secure or self.draining else h2c_settings(head)
        if upgrade is None or settings is None:
            return False
        self.closed = True
        self._watch.stop()
        self.server.gone(self)
        self.wire.write(SWITCHING)
        upgrade(self.wire, head, settings, self.parser.take())
        return True

    def open_tunnel(self) -> ClientEnd:
        """What the client has sent behind its request, and will send, is the tunnel's."""
        tunnel = self._tunnel
        assert tunnel is not None
        self.keep_alive = False
        tunnel.begin(self.parser.take())
        return tunnel

    def _tunnelled(self) -> None:
        """The client gets nothing more."""
        if self._reply is not None and not self._reply.ended:
            self._reply.ended = True
            self.answered()

    def on_body(self, data: bytes) -> None:
        """Bytes of the request's body."""
        if self._source is not None:
            self._source.push(data, len(data), False)

    def on_end(self, trailers: Fields) -> None:
        """The request is complete."""
        if self._source is not None:
            self._source.finish(trailers)

    def _continue(self) -> None:
        if self._reply is not None and not self._reply.started:
            self.wire.write(render.CONTINUE)

    def _stop_reading(self, failure: Failure | None) -> None:
        self.keep_alive = False

    # -- the exchange ---------------------------------------------------------------------------------------

    async def _serve(self, exchange: Exchange, reply: Http1Reply) -> None:
        """The shell of one exchange."""
        context = self.context
        try:
            try:
                await context.service(exchange)
                if not reply.ended and not exchange.complete:
                    raise RuntimeError("the service returned without an answer")
            except Failure as error:
                exchange.failure = error
                self._render(exchange, reply, error)
            except Exception as error:  # noqa: BLE001 - a bug ends this exchange only
                context.host.crashed(error)
                exchange.failure = Failure(Kind.BUG, f"internal error: {type(error).__name__}")
                self._render(exchange, reply, exchange.failure)
            if not reply.ended:
                self._done = Waiter()
                await self._done
        except Failure as error:
            exchange.failure = error
        finally:
            exchange.close()
            self._finished(reply)

    def _render(self, exchange: Exchange, reply: Http1Reply, failure: Failure) -> None:
        if not reply.ended and not self.closed:
            self.context.render(exchange, failure)

    def answered(self) -> None:
        """The answer's last byte was written."""
        if self._done is not None:
            self._done.wake(None)

    def _finished(self, reply: Http1Reply) -> None:
        """The exchange is over: go on with the next request, or close."""
        source, self._source = self._source, None
        self._exchange = self._strand = self._reply = self._tunnel = self._done = None
        if reply.source is not None:
            reply.release_credit()
            reply.source.sink = None
            reply.source = None
        unread = source is not None and not source.ended
        if self.closed:
            return
        if not reply.ended or not self.keep_alive or unread:
            self._close()
            return
        if self._since is not None:
            self._free_since = self.context.host.timers.now()
        self._turn -= 1
        if self.wire.congested:
            self._held = True
            self.wire.pause()
        elif self._turn <= 0 and self.parser.buffered:
            self._held = True
            self.wire.again()
        else:
            self.wire.resume()
            self._next()

    def _next(self) -> None:
        """Read the next request."""
        self._held = False
        try:
            self.parser.resume()
        except ProtocolFault as fault:
            self._malformed(fault)


def _nothing() -> None:
    pass
