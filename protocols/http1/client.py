"""The client role: a session to an endpoint, one exchange at a time."""

from __future__ import annotations

from collections.abc import Callable

from protocols.http1 import render, websocket
from protocols.http1.core import DONE, Limits, ResponseParser
from protocols.http1.halves import Http1Sink, Http1Source
from protocols.http1.rules import Framing, ProtocolFault
from protocols.wire.connection import Connection as Wire
from protocols.wire.dial import dial
from protocols.wire.tunnel import EndpointEnd
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.stale import StaleConnection, lost_connection
from router.model.strand import Waiter
from router.spi import ClientContext, Connect, Session

_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))


class Http1Session:
    """A connection to an endpoint: a :class:`router.spi.Session`."""

    def __init__(self, wire: Wire, limits: Limits) -> None:
        self.wire = wire
        self.closed = False
        self.draining = False
        self.begun = 0
        self.changed: Callable[[Session], None] = _ignore
        self.parser = ResponseParser(self, limits)
        self._sent_before = 0  # bytes that the wire had sent when the exchange began
        self._exchange: Exchange | None = None
        self._over: Waiter[None] | None = None
        self._source: Http1Source | None = None
        self._request: Http1Sink | None = None
        self._accept = b""  # what a 101 has to answer
        self._tunnel: EndpointEnd | None = None

    @property
    def free(self) -> int:
        """1 while idle."""
        return int(self._exchange is None and not self.closed and not self.draining)

    @property
    def active(self) -> int:
        """1 while an exchange is under way."""
        return int(self._exchange is not None)

    async def conduct(self, exchange: Exchange) -> None:
        """Send the request, relay the response."""
        head = exchange.request
        if head.grpc:
            raise Failure(
                Kind.UNSUPPORTED, "this endpoint is reached over HTTP/1.1, which cannot carry gRPC: set the client's "
                "protocol to h2", Blame.ROUTER,
            )  # fmt: skip
        self._exchange = exchange
        self._over = Waiter()
        self.begun += 1
        self._sent_before = self.wire.sent
        try:
            if head.tunnel:
                self._ask(head)
            else:
                self.parser.expect(head.method)
                self._send(head, exchange)
            await self._over
        finally:
            self._release()

    def _send(self, head: RequestHead, exchange: Exchange) -> None:
        body = exchange.body
        if body is None:
            extra = b"content-length: 0\r\n" if head.method in _WITH_BODY and head.length is None else b""
            self.wire.write(render.request_head(head, extra))
            return
        chunked = head.length is None
        self.wire.write(render.request_head(head, b"transfer-encoding: chunked\r\n" if chunked else b""))
        self._request = Http1Sink(self.wire, chunked=chunked)
        body.join(self._request)

    def _ask(self, head: RequestHead) -> None:
        """For a WebSocket. The request is complete: the body is the tunnel's."""
        self.parser.expect(head.method, switching=True)
        lines, self._accept = websocket.offer(head)
        self.wire.write(render.request_head(head, lines))

    def _release(self) -> None:
        """The exchange is over; the connection can be used again if both messages are complete."""
        request, self._request = self._request, None
        source, self._source = self._source, None
        tunnel, self._tunnel = self._tunnel, None
        self._exchange = self._over = None
        unfinished = self.parser.state != DONE or (request is not None and not request.ended)
        if request is not None and request.source is not None:
            request.release_credit()
            request.source.sink = None
            request.source = None
        if source is not None:
            source.unjoin()
        if tunnel is not None:
            tunnel.release()
            self.close()
        if self.closed:
            return
        if unfinished:
            self._abandon()
        elif not self.parser.keep_alive or self.draining or self.parser.buffered:
            self.close()
        else:
            self.wire.resume()
            self.changed(self)

    # -- from the wire --------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Parse."""
        if self._exchange is None or self._sent_before == self.wire.sent:
            self._end("bytes that nobody asked for")  # a 408 before it closes, for instance
            return
        try:
            self.parser.feed(data)
        except ProtocolFault as fault:
            self._fail(Failure(Kind.PROTOCOL, f"malformed response: {fault.why}", Blame.UPSTREAM))

    def eof(self) -> None:
        """The endpoint closed."""
        if self._exchange is not None and not isinstance(self._lost("closed"), StaleConnection):
            try:
                self.parser.eof()
            except ProtocolFault as fault:
                self._fail(Failure(Kind.RESET, fault.why, Blame.UPSTREAM))
                return
        self._end("connection closed by the endpoint")

    def writable(self) -> None:
        """The socket drained."""
        if self._request is not None:
            self._request.release_credit()

    def lost(self, why: str) -> None:
        """The connection is gone."""
        self._end(why)

    def _fail(self, failure: Failure) -> None:
        over, self._over = self._over, None  # the wire's end, which comes at once, is not what is told
        self._abandon()
        if over is not None:
            over.throw(failure)

    def _end(self, why: str) -> None:
        over, self._over = self._over, None
        failure = self._lost(why)
        first = not self.closed
        self.closed = True
        if self._exchange is not None and self._sent_before == self.wire.sent:
            self.wire.abort()  # or the request would leave after all
        else:
            self.wire.close()
        if first:
            self.changed(self)
        if over is not None:
            over.throw(failure)

    def _lost(self, why: str) -> Failure:
        """What the loss of the connection means to the exchange under way."""
        exchange = self._exchange
        if exchange is None or exchange.response is not None:
            return Failure(Kind.RESET, f"connection to the endpoint lost: {why}", Blame.UPSTREAM)
        sent, quiet = self._sent_before != self.wire.sent, self.parser.silent
        return lost_connection(why, exchange.request.method, sent=sent, used=self.begun > 1, quiet=quiet)

    # -- from the parser ------------------------------------------------------------------------------------

    def on_informational(self, head: ResponseHead) -> None:
        """A 1xx response; 100 was for us."""
        if self._exchange is not None and head.status != 100:
            self._exchange.reply.inform(head)

    def on_switch(self, head: ResponseHead) -> None:
        """The endpoint speaks WebSocket from here on."""
        fault = websocket.fault(head, self._accept)
        if fault is not None:
            raise ProtocolFault(502, fault)
        exchange, over = self._exchange, self._over
        assert exchange is not None
        assert over is not None
        self._tunnel = EndpointEnd(self.wire, exchange, over)
        self._tunnel.open(head, self.parser.take())

    def on_response(self, head: ResponseHead, framing: Framing) -> None:
        """The final response begins."""
        exchange = self._exchange
        assert exchange is not None
        if not framing.chunked and not framing.length and not framing.until_eof:
            exchange.conclude(())
            exchange.respond(head, True)
            self._wake()
            return
        self._source = Http1Source(self.wire, _nothing, self._stop)
        self._source.join(exchange.respond(head, False))

    def on_body(self, data: bytes) -> None:
        """Bytes of the response's body."""
        if self._source is not None:
            self._source.push(data, len(data), False)

    def on_end(self, trailers: Fields) -> None:
        """The response is complete."""
        exchange, source = self._exchange, self._source
        if exchange is not None and source is not None:
            exchange.conclude(trailers)
            source.finish(trailers)
            self._wake()

    def _wake(self) -> None:
        if self._over is not None:
            self._over.wake(None)

    def _stop(self, failure: Failure | None) -> None:
        self._abandon()

    # -- the end --------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take nothing new; close when the exchange under way is over."""
        self.draining = True
        if self._exchange is None:
            self.close()

    def _abandon(self) -> None:
        """Close without reading the rest of a response, which may have no end."""
        if not self.closed:
            self.closed = True
            self.wire.abort()
            self.changed(self)

    def close(self) -> None:
        """Close now."""
        if not self.closed:
            self.closed = True
            self.wire.close()
            self.changed(self)


def _ignore(_: Session) -> None:
    pass


def _nothing() -> None:
    pass


def connector(limits: Limits, context: ClientContext) -> Connect:
    """How the pool opens sessions."""

    async def open_session(host: str, port: int) -> Session:
        wire = await dial(context.poller, context.host.timers, host, port, context.tls)
        session = Http1Session(wire, limits)
        wire.start(session)
        return session

    return open_session
