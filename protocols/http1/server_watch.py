"""A client's connection under watch: what is under way on it, and what ends it before its client does.

Theory of operation

1. A connection has one exchange at most. What belongs to it (strand, source, reply, tunnel) is None in between.
2. ``_look`` is called by a coarse timer (:mod:`protocols.wire.guard`) while there is something to watch: an answer that is not
   taken, a request body that is waited for, a head that began (``_since``), the first request.
3. A message that is none, and one that is late, are answered (unless an answer has begun), and the connection is closed.
4. Draining: the next answer says ``Connection: close``. An idle connection takes requests for ``LAST_CALL`` seconds more, since
   one may be under way that its client could not safely send again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocols.http1.core import RequestParser
from protocols.http1.halves import Http1Source
from protocols.http1.reply import Http1Reply, refusal
from protocols.http1.rules import ProtocolFault
from protocols.wire.connection import Connection as Wire
from protocols.wire.guard import Pace, Watch
from protocols.wire.tunnel import ClientEnd
from router.model.abuse import expired
from router.model.exchange import Exchange
from router.model.expiry import Expiry
from router.model.failure import CANCEL, Failure, Kind, client_gone
from router.model.strand import Strand

if TYPE_CHECKING:
    from protocols.http1.server import Http1Server

LAST_CALL = 1.0  # seconds for which an idle connection that is to be closed still takes a request


class WatchedConnection:
    """What is known of a connection, and its end. ``since``: when it came."""

    parser: RequestParser

    def __init__(self, wire: Wire, server: Http1Server, since: float) -> None:
        self.wire = wire
        self.server = server
        self.context = server.context
        self.keep_alive = True
        self.closed = False
        self.draining = False
        self._exchange: Exchange | None = None
        self._strand: Strand | None = None
        self._source: Http1Source | None = None
        self._reply: Http1Reply | None = None
        self._tunnel: ClientEnd | None = None
        self._since: float | None = None  # when the first bytes of a head came that is not complete yet
        self._requests = 0
        self.expiry: Expiry | None = None
        ours, guard = server.guard.limits, server.guard
        self._free_since = since  # when such a head could have been read on, if not from its beginning
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

    # -- what is late ---------------------------------------------------------------------------------------

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

    # -- the end --------------------------------------------------------------------------------------------

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
            self.wire.write(refusal(fault.status, text))
        if self._strand is not None:
            self._strand.cancel(Failure(Kind.MALFORMED, fault.why, client_gone("").blame))
        self._close()

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self.server.gone(self)
        self.wire.close()

    def lost(self, why: str) -> None:
        """The connection is gone."""
        self._watch.stop()
        if not self.closed:
            self.closed = True
            self.server.gone(self)
        if self._strand is not None:
            self._strand.cancel(client_gone(why))

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
