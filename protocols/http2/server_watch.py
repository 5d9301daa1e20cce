"""A client's connection under watch: what ends it, or streams of it, because of how its client behaves.

:mod:`protocols.http2.limits` says what a client may have us do, :mod:`protocols.wire.guard` how long it may take.

Theory of operation

1. Streams that did not go well are counted (``_cut``) and taken from two allowances, for premature resets and for faults
   (rules 3 and 4 of ``limits``). An allowance is compared with what went well only when it is used up.
2. ``_look`` is called by a coarse timer while there is something to watch. It asks in this order for a preface, for the
   end of a header block, for the first request; then for answers that are not taken and bodies that do not come.
3. A slow stream ends alone and counts as a broken one. If all of them are slow, the connection ends.
"""

from __future__ import annotations

from h2.errors import ErrorCodes

from protocols.http2 import frames, limits
from protocols.http2.connection import Http2Connection
from protocols.http2.frames import ConnectionFault
from protocols.http2.limits import Allowance
from protocols.http2.server_stream import ServerStream
from protocols.http2.state import Settings
from protocols.http2.stream import Stream
from protocols.wire.connection import Connection as Wire
from protocols.wire.guard import Guard, Pace, Watch
from router.model.abuse import expired
from router.model.failure import Blame, Failure, client_gone

_SLOW_BODY = "a request body that hardly comes"
_SLOW_READER = "answers that are hardly taken"


class WatchedConnection(Http2Connection):
    """A connection whose peer is not trusted. ``since``: when it came."""

    blame = Blame.CLIENT
    stray_cost = limits.FRAME_COST

    def __init__(self, wire: Wire, settings: Settings, guard: Guard, since: float) -> None:
        self.guard = guard
        super().__init__(wire, settings)
        ours, now = settings.limits, self.now()
        self._resets_left = Allowance(max(ours.max_premature_resets, settings.streams), limits.RESETS_PER_SECOND, now)
        self._faults_left = Allowance(ours.max_stream_faults, limits.FAULTS_PER_SECOND, now)
        self._cut = 0  # streams that did not go well
        self._born = since
        self._greeted = False
        self._since: float | None = None  # when the first bytes of a header block came that is not complete yet
        self._bodies = Pace(ours.body_timeout_ms, ours.min_bytes_per_sec)
        self._answers = Pace(ours.stall_timeout_ms, ours.min_bytes_per_sec)
        self._watch = Watch(guard.timers, guard.period, self._look)
        self._watch.arm()

    def introduce(self) -> None:
        """Send our SETTINGS, unless that was done."""
        raise NotImplementedError

    def now(self) -> float:
        return self.guard.now()

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
        self.guard.abused(kind, self.wire.peer, why)

    def _end_abuse(self, kind: str, why: str) -> None:
        self.abused(kind, why)
        self.fault(ErrorCodes.ENHANCE_YOUR_CALM, why)

    def _look(self) -> bool:
        """What is late by now? Returns whether to look again."""
        ours, now = self.settings.limits, self.now()
        if not self._greeted:
            if expired(self._born, ours.head_timeout_ms, now):
                self.introduce()
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
        self.guard.count("idle")
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
