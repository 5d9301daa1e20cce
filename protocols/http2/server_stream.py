"""A stream that a client opened: the sending half is the reply of its exchange, or the client's end of a tunnel."""

from __future__ import annotations

from h2.errors import ErrorCodes

from protocols.http2.state import ConnectionState
from protocols.http2.stream import Stream
from router.model.body import Sink
from router.model.ends import Ends
from router.model.exchange import Exchange
from router.model.expiry import Expiry
from router.model.failure import Failure, client_gone
from router.model.headers import Fields, ResponseHead
from router.model.strand import Strand, Waiter


class ServerStream(Stream):
    """A stream that a client opened; the exchange's reply."""

    __slots__ = ("exchange", "expiry", "gone", "started", "strand")

    carries_grpc = True
    discreet = False

    def __init__(self, conn: ConnectionState, stream_id: int) -> None:
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
