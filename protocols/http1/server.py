"""The server role: one exchange at a time per connection, pipelined requests answered in order.

A client that does not read its answers gets no further ones; what it may take up otherwise: :mod:`protocols.wire.guard`.
"""

from __future__ import annotations

from math import inf
from typing import Any

from protocols.http1 import render, websocket
from protocols.http1.core import Limits, RequestParser
from protocols.http1.halves import Http1Sink, Http1Source
from protocols.http1.rules import Framing, ProtocolFault, is_request
from protocols.http1.upgrade import SWITCHING, h2c_settings
from protocols.wire.connection import Connection as Wire
from protocols.wire.guard import Guard, Pace, Watch
from protocols.wire.tunnel import ClientEnd
from router.model.abuse import AbuseLimits, expired
from router.model.answers import err_header
from router.model.body import Sink, Source
from router.model.ends import Ends
from router.model.exchange import Exchange
from router.model.expiry import Expiries, Expiry
from router.model.failure import CANCEL, Failure, Kind, client_gone
from router.model.headers import CONNECT, WEBSOCKET, Field, Fields, RequestHead, ResponseHead
from router.model.strand import Strand, Waiter
from router.spi import ServerContext

MAX_PIPELINED = 65536
REQUESTS_PER_TURN = 64  # pipelined ones that are answered at once; the others wait while everybody else has a turn
KINDS = ("connections", "idle", "head", "body", "stalled")
LAST_CALL = 1.0  # seconds for which an idle connection that is to be closed still takes a request


class Http1Reply(Http1Sink):
    """The answer to one request."""

    __slots__ = ("connection", "request", "started")

    carries_grpc = False
    discreet = False

    def __init__(self, connection: Http1ServerConnection, request: RequestHead) -> None:
        super().__init__(connection.wire, chunked=False)
        self.connection = connection
        self.request = request
        self.started = False

    @property
    def ends(self) -> Ends:
        """See :class:`router.model.exchange.Reply`."""
        return self.wire.ends

    @property
    def client_certificate(self) -> bytes | None:
        """See :class:`router.model.exchange.Reply`."""
        return self.wire.client_certificate

    @property
    def peer(self) -> str:
        """See :class:`router.model.exchange.Reply`."""
        return self.wire.peer

    def inform(self, head: ResponseHead) -> None:
        """Informational responses exist since HTTP/1.1."""
        if not self.started and self.request.version >= (1, 1):
            self.wire.write(render.response_head(head, b""))

    def start(self, head: ResponseHead, end: bool) -> Sink:
        """Send the head, framed as the request's version and method allow."""
        self.started = True
        connection = self.connection
        if head.status == 101:
            return self._switch(*websocket.answer(self.request, head))
        if self.request.tunnel == CONNECT and head.status < 300:
            return self._switch(head, b"")
        extra = b""
        bodiless = self.request.method == b"HEAD" or head.status in (204, 304)
        if head.length is None and not bodiless:
            if end:
                extra = b"content-length: 0\r\n"
            elif self.request.version >= (1, 1):
                extra, self.chunked = b"transfer-encoding: chunked\r\n", True
            else:
                connection.keep_alive = False
        if not connection.keep_alive:
            extra += b"connection: close\r\n"
        elif self.request.version == (1, 0):
            extra += b"connection: keep-alive\r\n"
        self.wire.write(render.response_head(head, extra))
        if end:
            self.ended = True
            self.on_ended()
        elif bodiless:
            self.chunked = False
        return self

    def _switch(self, head: ResponseHead, extra: bytes) -> Sink:
        """Leave HTTP/1.1 for the tunnel that was asked for."""
        self.wire.write(render.response_head(head, extra))
        return self.connection.open_tunnel()

    def abort(self, failure: Failure) -> None:
        self.connection.keep_alive = False
        super().abort(failure)

    def on_ended(self) -> None:
        self.connection.answered()


class Http1ServerConnection:
    """A client's connection: parser, the exchange under way, and what follows it."""

    def __init__(self, wire: Wire, limits: Limits, server: Http1Server, since: float) -> None:
        self.wire = wire
        self.server = server
        self.context = server.context
        self.parser = RequestParser(self, limits, b"https" if wire.secure else b"http")
        self.keep_alive = True
        self.closed = False
        self.draining = False
        self._exchange: Exchange | None = None
        self._strand: Strand | None = None
        self._source: Http1Source | None = None
        self._reply: Http1Reply | None = None
        self._tunnel: ClientEnd | None = None
        self._done: Waiter[None] | None = None
        self._since: float | None = None  # when the first bytes of a head came that is not complete yet
        self._requests = 0
        self.expiry: Expiry | None = None
        ours, guard = server.guard.limits, server.guard
        self._free_since = since  # when such a head could have been read on, if not from its beginning
        self._held = False  # the next request must wait
        self._turn = 0
        self._body_pace = Pace(ours.body_timeout_ms, ours.min_bytes_per_sec)
        self._answer_pace = Pace(ours.stall_timeout_ms, ours.min_bytes_per_sec)
        self._watch = Watch(guard.timers, guard.period, self._look)
        self._watch.arm()

    @property
    def active(self) -> int:
        """Whether an exchange is under way, or the head of one arrives. A tunnel in which nothing moves is as good as none."""
        if self._tunnel is not None and self._tunnel.begun:
            return 0
        return int(self._exchange is not None or self.parser.buffered > 0)

    @property
    def begun(self) -> int:
        """Rises with each exchange, and with what moves in a tunnel."""
        return self._requests + (self._tunnel.moved if self._tunnel is not None else 0)

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

    def lost(self, why: str) -> None:
        """The connection is gone."""
        self._watch.stop()
        if not self.closed:
            self.closed = True
            self.server.gone(self)
        if self._strand is not None:
            self._strand.cancel(client_gone(why))

    def _malformed(self, fault: ProtocolFault) -> None:
        self.server.refused.value += 1
        self._refuse(fault)

    def _refuse(self, fault: ProtocolFault) -> None:
        """Answer a message that is none; what was under way is cut off."""
        self.keep_alive = False
        reply = self._reply
        if reply is None or not reply.started:
            text = fault.why
            if self.parser.buffered == 0 and fault.status == 505:
                text += "; for HTTP/2 use a router with protocol h2"
            if reply is not None:
                reply.ended = True
            self.wire.write(_refusal(fault.status, text))
        if self._strand is not None:
            self._strand.cancel(Failure(Kind.MALFORMED, fault.why, client_gone("").blame))
        self._close()

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self.server.gone(self)
        self.wire.close()

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

    # -- abuse ----------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """What is late by now? Returns whether to look again."""
        now, guard = self.context.host.timers.now(), self.server.guard
        self._answer_pace.begin()
        self._body_pace.begin()
        if self.wire.unsent and self._answer_pace.slow(0, self.wire.sent, now):
            guard.abused("stalled", self.wire.peer, "an answer that is hardly taken")
            self.wire.abort()
        elif self.closed:
            return False
        elif self._exchange is not None:
            self._look_at_body(now)
        elif self._since is not None:
            if expired(max(self._since, self._free_since), guard.limits.head_timeout_ms, now):
                self._late("head", "a request head that does not come to its end")
        elif not self.begun and expired(self._free_since, guard.limits.first_request_timeout_ms, now):
            guard.count("idle")
            self._close()
        busy = self._exchange is not None or self._since is not None or self.wire.unsent > 0
        return not self.closed and (busy or not self.begun)

    def _look_at_body(self, now: float) -> None:
        """A body that is waited for must come; once the answer has begun, both may take their time."""
        source, reply = self._source, self._reply
        if source is None or reply is None or reply.started or not source.awaited:
            return
        if self._body_pace.slow(0, source.moved, now):
            self._late("body", "a request body that hardly comes")

    def _late(self, kind: str, why: str) -> None:
        self.server.guard.abused(kind, self.wire.peer, why)
        self._refuse(ProtocolFault(408, why))

    def drain(self) -> None:
        """Say ``Connection: close`` with the next answer whose head has not left yet; idle, wait for a last request first,
        since one may be under way that its client could not safely send again."""
        self.draining = True
        if self._reply is not None and not self._reply.started:
            self.keep_alive = False
        else:
            self._last_call(None)

    def expire(self, why: str) -> None:
        """The connection has been idle for too long, or is too old."""
        self.end_tunnel(f"the connection's {why} limit")
        self.drain()

    def end_tunnel(self, why: str) -> None:
        """Nothing in a tunnel says that it should end: end it, if there is one."""
        if self._tunnel is not None and self._tunnel.begun and self._strand is not None:
            self._strand.cancel(client_gone(why, CANCEL))

    def _last_call(self, waited: Any) -> None:
        if not self.closed and (self._exchange is None or self.keep_alive):
            if waited and self._exchange is None:
                self._close()
            else:
                self.context.host.timers.after(LAST_CALL, self._last_call, True)


def _nothing() -> None:
    pass


def _refusal(status: int, text: str, *more: Field) -> bytes:
    """A whole response that ends the connection."""
    body = text.encode()
    fields = (
        (b"content-type", b"text/plain"),
        (b"l5d-err", err_header(text)),
        (b"content-length", b"%d" % len(body)),
        *more,
        (b"connection", b"close"),
    )
    return render.response_head(ResponseHead(status, fields), b"") + body


_TOO_MANY = _refusal(503, "too many connections", (b"retry-after", b"1"), (b"l5d-retryable", b"true"))


class Http1Server:
    """The HTTP/1.1 connections of a listener."""

    alpn = "http/1.1"

    def __init__(self, limits: Limits, context: ServerContext, abuse: AbuseLimits) -> None:
        self.guard = Guard(abuse, context.host, context.metrics, KINDS, context.metrics.path)
        self.patience = min(abuse.head_timeout_ms or inf, abuse.first_request_timeout_ms or inf) / 1000
        self.limits = limits
        self.context = context
        self._connections: set[Http1ServerConnection] = set()
        self._draining = False
        self.refused = context.metrics.counter("malformed")
        self.expiries = Expiries(context.host.timers, context.session, context.metrics)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def recognises(self, data: bytes) -> bool | None:
        """Whether a connection that begins like this is ours; None while that cannot be told."""
        return is_request(data)

    def admit(self, wire: Wire, connections: int, *, tell: bool) -> bool:
        """Whether there is room for a new connection; above the limit it is answered with 503 before it asks."""
        if connections < self.guard.max_connections:
            return True
        self.guard.refuse(wire, _TOO_MANY if tell else b"")
        return False

    def adopt(self, wire: Wire, data: bytes, since: float) -> None:
        """Serve a connection that came at ``since``, and of which ``data`` was read."""
        connection = Http1ServerConnection(wire, self.limits, self, since)
        connection.expiry = self.expiries.watch(connection, connection.expire)
        self._connections.add(connection)
        wire.start(connection)
        if self._draining:
            connection.drain()
        if data:
            connection.received(data)

    def refuse(self, wire: Wire, why: str) -> None:
        """Answer a connection that is not served."""
        self.refused.value += 1
        wire.write(_refusal(400, why + "\n"))
        wire.close()

    def gone(self, connection: Http1ServerConnection) -> None:
        """Called by a connection that is over."""
        if connection.expiry is not None:
            connection.expiry.close()
        self._connections.discard(connection)

    def end_tunnels(self) -> None:
        """See :class:`router.spi.Server`."""
        for connection in list(self._connections):
            connection.end_tunnel("the router is stopping")

    def drain(self) -> None:
        """Let every connection finish."""
        self._draining = True
        for connection in list(self._connections):
            connection.drain()
