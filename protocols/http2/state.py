"""What an HTTP/2 connection is between two frames, for both roles, without I/O (RFC 9113): its windows, its streams, what the
peer has spent of our time, and its end.

Theory of operation

1. One object is read in layers: this state, the frames that control it (:mod:`protocols.http2.control`), the loop with DATA and
   HEADERS (:mod:`protocols.http2.connection`), and a role, which gives streams their meaning. Each layer may use the one below.
2. Windows: the connection's receive window is ``streams * stream window``, so that no set of slow streams can starve
   the others; memory per connection is bounded by it. Credit returns by the rule of :mod:`protocols.http2.stream`.
   Bytes that reach no stream are credited at once.
3. Streams that we reset are remembered (the last ``RESETS_KEPT``, or as many as may be open at once), since frames of theirs
   may be under way; frames for any other stream that has ended are the peer's fault (§5.1).
4. What the peer has us do for nothing is counted (:mod:`protocols.http2.limits`): whoever acts on a frame spends what it costs.
5. ``finishing`` closes the connection with its last stream. ``closed`` is final: what still comes is not looked at.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

import attrs
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from protocols.http2 import frames, limits
from protocols.http2.codec import Encoder
from protocols.http2.limits import Allowance, Http2Limits
from protocols.http2.stream import Stream
from protocols.wire.connection import Connection as Wire
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields

log = logging.getLogger("waypost.http2")

RESETS_KEPT = 256
MAX_RESETS_KEPT = 4096


@attrs.frozen
class Settings:
    """What we announce. ``window``: bytes per stream; ``streams``: how many the peer may open (or we will)."""

    window: int = frames.DEFAULT_WINDOW
    streams: int = 1000
    frame: int = frames.DEFAULT_FRAME
    table: int = 4096
    list_size: int = 65536
    limits: Http2Limits = attrs.field(factory=Http2Limits)

    @property
    def connection_window(self) -> int:
        """The connection's receive window (rule 2)."""
        return max(frames.DEFAULT_WINDOW, min(self.streams * self.window, frames.MAX_WINDOW))


class ConnectionState:
    """State of one connection. :class:`protocols.http2.connection.Http2Connection` is what has all of it."""

    blame = Blame.UPSTREAM
    peer_initiates = 1  # parity of the stream ids that the peer opens
    next_id = 2  # the first id of ours that was not used yet
    stray_cost = 0  # units, of DATA for a stream that we reset

    def __init__(self, wire: Wire, settings: Settings) -> None:
        self.wire = wire
        self.settings = settings
        self.streams: dict[int, Stream] = {}
        self.blocked: dict[int, Stream] = {}
        self.local_window = settings.window
        self.peer_window = frames.DEFAULT_WINDOW
        self.peer_frame = frames.DEFAULT_FRAME
        self.peer_streams = 100  # until the peer's SETTINGS arrive
        self.peer_connects = 0  # SETTINGS_ENABLE_CONNECT_PROTOCOL
        self.send_window = frames.DEFAULT_WINDOW
        self.recv_window = settings.connection_window
        self.last_peer_id = 0
        self.draining = False
        self.finishing = False  # nothing new can come: close with the last stream
        self.closed = False
        self.got_settings = False
        self.unacked = 0  # bytes of credit that the peer did not get yet
        self._resets: OrderedDict[int, None] = OrderedDict()
        self._resets_kept = max(RESETS_KEPT, min(settings.streams, MAX_RESETS_KEPT))
        self._per_turn = limits.TURN
        self._pause = 0.0  # seconds before the next turn
        self._turn = 0  # units of work that are left of this turn
        self._reads = 0
        self._condemned = False  # by what cannot raise: a tiny window
        self.sent_frames = 0  # DATA frames
        self._idle_work = Allowance(settings.limits.max_idle_work, limits.WORK_PER_SECOND, self.now())
        self.encoder = Encoder()

    # -- output ---------------------------------------------------------------------------------------------

    def announce(self, *, extra: dict[SettingCodes, int]) -> None:
        """Send our SETTINGS and open the connection's window."""
        ours = self.settings
        values = {
            SettingCodes.HEADER_TABLE_SIZE: ours.table,
            SettingCodes.INITIAL_WINDOW_SIZE: ours.window,
            SettingCodes.MAX_FRAME_SIZE: ours.frame,
            SettingCodes.MAX_HEADER_LIST_SIZE: ours.list_size,
        }
        self.wire.write(frames.settings(values | extra))
        more = self.recv_window - frames.DEFAULT_WINDOW
        if more:
            self.wire.write(frames.window_update(0, more))

    def write_headers(self, stream: int, fields: Fields, *, end: bool, shared: bool = False) -> None:
        """Encode and send a header block. ``shared``: the same tuple is going to come again."""
        block = self.encoder.encode(fields, shared=shared)
        self.wire.write(frames.header_frames(stream, block, 1 if end else 0, self.peer_frame))

    def credit(self, size: int) -> None:
        """Let the peer send ``size`` more bytes on the connection, now or with the next credits."""
        unacked = self.unacked + size
        if unacked >= self.recv_window:
            self.wire.write(frames.window_update(0, unacked))
            self.recv_window += unacked
            unacked = 0
        self.unacked = unacked

    def uncredited(self) -> int:
        """Bytes received whose credit has not come back yet: with no streams, none."""
        return self.settings.connection_window - self.recv_window - self.unacked

    def pump_all(self) -> None:
        """Let every stream that waits for the connection send, the one that waits longest first."""
        blocked = self.blocked
        for _ in range(len(blocked)):
            if self.send_window <= 0 or self.wire.congested:
                break
            blocked.pop(next(iter(blocked))).pump()

    def writable(self) -> None:
        """The wire takes data again."""
        self.pump_all()

    # -- work for nothing (see limits.py) -------------------------------------------------------------------

    def now(self) -> float:
        """A clock for the limits, in seconds."""
        return time.monotonic()

    def spend(self, units: int, kind: str) -> None:
        """The peer has us do something for nothing. Raises :class:`ConnectionFault` when that is too much."""
        self._turn -= units
        allowance = self._idle_work
        allowance.left -= units
        if allowance.left < allowance.low:
            if not allowance.settle(self.now(), self._earned()):
                raise frames.abuse(kind, f"too many frames without use, {kind} last")
            if allowance.left < allowance.low:
                self._turn = min(self._turn, limits.SUSPECT_TURN)
                self._pause = limits.SUSPECT_PAUSE
        if self._condemned:
            raise frames.abuse("tiny_window", "windows that let only a few bytes pass")

    def restart(self, now: float) -> None:
        """A pause is over, in which no allowance grew."""
        self._idle_work.restart(now)

    def cut_short(self) -> None:
        """A tiny window made us send a tiny frame. Another connection may have brought the data: nothing is raised here."""
        allowance = self._idle_work
        allowance.left -= limits.TINY_COST
        if allowance.left < 0 and not allowance.settle(self.now(), self._earned()):
            self._condemned = True

    def _earned(self) -> int:
        opened = max(self.last_peer_id, self.next_id) >> 1
        return opened * limits.PER_STREAM + self.sent_frames * limits.PER_DATA + self._reads * limits.PER_READ

    def abused(self, kind: str, why: str) -> None:
        """The connection is about to end for abuse."""

    # -- streams --------------------------------------------------------------------------------------------

    def _is_idle(self, stream_id: int) -> bool:
        if stream_id & 1 == self.peer_initiates:
            return stream_id > self.last_peer_id
        return stream_id >= self.next_id

    def stream_fault(self, stream_id: int, code: ErrorCodes, why: str) -> None:
        """End one stream for a fault of the peer."""
        stream = self.streams.get(stream_id)
        if stream is None:
            self.wire.write(frames.rst_stream(stream_id, code))
            self.remember_reset(stream_id)
            return
        stream.reset(code)
        stream.broken(Failure(Kind.PROTOCOL, why, self.blame))

    def forget(self, stream: Stream) -> None:
        """Both halves are closed."""
        if self.streams.pop(stream.id, None) is not None:
            self.blocked.pop(stream.id, None)
            self.on_stream_gone()

    def on_stream_gone(self) -> None:
        """There is room for another stream."""
        if self.finishing:
            self.close_if_done()

    def remember_reset(self, stream_id: int) -> None:
        """Frames of this stream may still come: they will be ignored."""
        self._resets[stream_id] = None
        if len(self._resets) > self._resets_kept:
            self._resets.popitem(last=False)

    # -- the end --------------------------------------------------------------------------------------------

    def close_if_done(self) -> None:
        """Close a connection that is finishing and has no streams left."""
        if self.finishing and not self.streams and not self.closed:
            self.closed = True
            self.wire.close()

    def fault(self, code: ErrorCodes, why: str) -> None:
        """The peer broke the connection: say so and close."""
        if self.closed:
            return
        self.closed = True
        log.debug("%s: connection error %s: %s", self.wire.peer, code.name, why)
        self.wire.write(frames.goaway(self.last_peer_id, code, why))
        self.wire.close()
        self._fail_streams(Failure(Kind.PROTOCOL, f"connection error {code.name}: {why}", self.blame))

    def eof(self) -> None:
        """The peer closed its half: in HTTP/2 that ends the connection."""
        self.closed = True
        self._fail_streams(self.lost_failure("connection closed by the peer"))
        self.wire.close()

    def lost(self, why: str) -> None:
        """The wire is gone."""
        self.closed = True
        self._fail_streams(self.lost_failure(why))

    def lost_failure(self, why: str) -> Failure:
        """What the loss of the connection means to a stream."""
        return Failure(Kind.RESET, why, self.blame)

    def _fail_streams(self, failure: Failure) -> None:
        for stream in list(self.streams.values()):
            stream.was_reset(failure)
