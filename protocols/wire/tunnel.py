"""The ends of a tunnel: connections whose bytes are no protocol of ours any more.

Theory of operation

1. An exchange whose request asks for a tunnel (``RequestHead.tunnel``) has the client's end as its body from the beginning.
   Nothing is read for it before the tunnel is open: until then the bytes behind the request wait where they are, unparsed.
2. The endpoint's protocol opens the tunnel with :meth:`Exchange.open <router.model.exchange.Exchange.open>` and joins both
   directions. A connection that leaves its protocol for that gets a :class:`TunnelEnd` in its place; a stream of HTTP/2
   is an end as it is.
3. Directions end one by one: the end of what one peer sends is the end of what the other one gets, and the connection
   is read on. A tunnel is over when both have ended, or one of the connections is lost.
4. Credit works as in bodies: an end reads nothing more while more than ``HIGH`` bytes were not accepted on the other side, and
   holds the other side's credit while its own socket is congested.
"""

from __future__ import annotations

from collections.abc import Callable

from protocols.wire.connection import Connection
from router.model.body import Chunk, Source
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, ResponseHead
from router.model.strand import Waiter

HIGH = 65536


class TunnelEnd(Source):
    """Source of what the peer sends and sink of what it gets; a :class:`protocols.wire.connection.WireProtocol`."""

    __slots__ = ("_credit", "_outstanding", "_paused", "finished", "source", "wire")

    def __init__(self, wire: Connection) -> None:
        super().__init__()
        self.wire = wire
        self.source: Source | None = None
        self.finished = False  # the peer gets nothing more
        self._credit = 0
        self._outstanding = 0
        self._paused = False

    def begin(self, data: bytes) -> None:
        """Have the connection from now on; ``data`` was read before."""
        self.wire.start(self)
        self.wire.resume()
        if data:
            self.received(data)

    # -- from the wire, and to the other end ----------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes came."""
        self._outstanding += len(data)
        self.push(data, len(data), False)
        if self._outstanding > HIGH and not self._paused:
            self._paused = True
            self.wire.pause()

    def credit(self, size: int) -> None:
        """See :class:`Source`."""
        self._outstanding -= size
        if self._paused and self._outstanding <= HIGH // 2:
            self._paused = False
            if not self.ended:
                self.wire.resume()

    def eof(self) -> None:
        """The peer sends nothing more."""
        if not self.ended:
            self.finish(())
            self.half_over()

    def stop(self, failure: Failure | None) -> None:
        """See :class:`Source`: half of a tunnel is none."""
        self.wire.close()

    def lost(self, why: str) -> None:
        """The connection is gone."""
        raise NotImplementedError

    # -- from the other end ---------------------------------------------------------------------------------

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Send bytes; hold their credit while the socket is congested."""
        if not self.finished:
            self.wire.write(chunk)
        self._credit += size
        if not self.wire.congested:
            self.writable()
        if end:
            self.end(())

    def writable(self) -> None:
        """The socket takes data: give back what was held."""
        size, self._credit = self._credit, 0
        if size and self.source is not None:
            self.source.credit(size)

    def end(self, trailers: Fields) -> None:
        """The other peer sends nothing more. There are no trailers in a tunnel."""
        if not self.finished:
            self.finished = True
            self.wire.finish()
            self.half_over()

    def abort(self, failure: Failure) -> None:
        """The other peer broke off."""
        if not self.finished:
            self.finished = True
            self.wire.close()
            self.half_over()

    def half_over(self) -> None:
        """One direction has ended."""

    def release(self) -> None:
        """Break the cycles between the halves."""
        self.unjoin()
        source, self.source = self.source, None
        if source is not None:
            source.sink = None


class ClientEnd(TunnelEnd):
    """The end of a client's connection. ``on_lost``: the connection is gone; ``on_finished``: the client gets nothing more."""

    __slots__ = ("_on_finished", "_on_lost", "begun", "moved")

    def __init__(self, wire: Connection, on_lost: Callable[[str], None], on_finished: Callable[[], None]) -> None:
        super().__init__(wire)
        self.begun = False
        self.moved = 0  # how often bytes came or went
        self._on_lost = on_lost
        self._on_finished = on_finished

    def begin(self, data: bytes) -> None:
        """See :class:`TunnelEnd`."""
        self.begun = True
        super().begin(data)

    def received(self, data: bytes) -> None:
        """See :class:`TunnelEnd`."""
        self.moved += 1
        super().received(data)

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """See :class:`TunnelEnd`."""
        self.moved += 1
        super().data(chunk, size, end)

    def lost(self, why: str) -> None:
        """See :class:`TunnelEnd`."""
        self._on_lost(why)

    def half_over(self) -> None:
        """See :class:`TunnelEnd`."""
        if self.finished:
            self._on_finished()


class EndpointEnd(TunnelEnd):
    """The end of an endpoint's connection; wakes ``over`` when the tunnel is over. ``code``: what HTTP/2 calls its loss."""

    __slots__ = ("code", "exchange", "over")

    def __init__(self, wire: Connection, exchange: Exchange, over: Waiter[None], code: int | None = None) -> None:
        super().__init__(wire)
        self.code = code
        self.exchange = exchange
        self.over = over

    def open(self, head: ResponseHead, rest: bytes) -> None:
        """Tell the client with ``head`` that the tunnel is open, and join its directions; ``rest`` came behind that."""
        exchange = self.exchange
        self.join(exchange.open(head))
        self.begin(rest)
        assert exchange.body is not None
        exchange.body.join(self)

    def eof(self) -> None:
        """The endpoint has said everything: that is what makes the exchange complete."""
        if not self.ended:
            self.exchange.conclude(())
        super().eof()

    def half_over(self) -> None:
        """See :class:`TunnelEnd`."""
        if self.finished and self.ended:
            self.over.wake(None)

    def lost(self, why: str) -> None:
        """See :class:`TunnelEnd`. Behind its last byte an endpoint may close whatever the client still sends."""
        if self.ended:
            self.finished = True
            self.over.wake(None)
        else:
            self.over.throw(Failure(Kind.RESET, f"connection to the endpoint lost: {why}", Blame.UPSTREAM, code=self.code))
