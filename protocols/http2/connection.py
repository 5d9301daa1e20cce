"""The HTTP/2 connection, for both roles, without I/O (RFC 9113).

Theory of operation

1. ``received`` decodes every frame of a read and acts on each synchronously; what it writes is in the wire's output
   when it returns. The loop handles DATA itself, since messages of a stream are its bulk; the rest is dispatched by
   a table. A frame that is not complete waits in ``_tail``, bounded by the frame size that we announced.
2. Faults: :class:`StreamFault` and ``Malformed`` end a stream with RST_STREAM; :class:`ConnectionFault` ends the
   connection with GOAWAY. No other exception belongs here.
3. Streams that we reset are remembered (the last ``RESETS_KEPT``, or as many as may be open at once), since frames of theirs
   may be under way; frames for any other stream that has ended are the peer's fault (§5.1).
4. Windows: the connection's receive window is ``streams * stream window``, so that no set of slow streams can starve
   the others; memory per connection is bounded by it. Credit returns by the rule of :mod:`protocols.http2.stream`.
   Bytes that reach no stream are credited at once.
5. Header blocks are collected up to twice the size of a header list. What the peer has us do for nothing is counted
   (:mod:`protocols.http2.limits`); a read that holds more work than a turn's is worked off in several, with the rest in
   ``_tail`` and the socket unread meanwhile.
6. Draining: GOAWAY with the highest stream id and a PING; when that is acknowledged (a round trip later nothing that
   was under way can still arrive), GOAWAY with the real last id; then close with the last stream.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TypeVar

import attrs
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from protocols.http2 import frames, limits
from protocols.http2.codec import Block, Decoder, Encoder, HeaderCodecError
from protocols.http2.frames import ConnectionFault, StreamFault
from protocols.http2.limits import STREAM_COST, Allowance, Http2Limits
from protocols.http2.stream import Stream
from protocols.http2.validation import Malformed
from protocols.wire.connection import Connection as Wire
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields
from router.model.metrics import Metrics

log = logging.getLogger("waypost.http2")

RESETS_KEPT = 256
MAX_RESETS_KEPT = 4096
_DRAIN_PING = b"waypost!"
_SHARED_SMALL = 1024
_HEADERS_KIND = bytes([frames.HEADERS])

S = TypeVar("S", bound=Stream)


@attrs.frozen
class Settings:
    """What we announce. ``windows``: bytes per stream; ``streams``: how many the peer may open (or we will)."""

    window: int = frames.DEFAULT_WINDOW
    streams: int = 1000
    frame: int = frames.DEFAULT_FRAME
    table: int = 4096
    list_size: int = 65536
    limits: Http2Limits = attrs.field(factory=Http2Limits)

    @property
    def connection_window(self) -> int:
        """The connection's receive window (rule 4)."""
        return max(frames.DEFAULT_WINDOW, min(self.streams * self.window, frames.MAX_WINDOW))


class Http2Connection:
    """State of one connection. Subclasses give streams a role."""

    peer_initiates = 1  # parity of the stream ids that the peer opens

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
        self._unacked = 0
        self._tail = b""
        self._resets: OrderedDict[int, None] = OrderedDict()
        self._block: list[bytes] | None = None
        self._block_size = 0
        self._block_stream = 0
        self._block_end = False
        self._max_block = 2 * settings.list_size
        self._resets_kept = max(RESETS_KEPT, min(settings.streams, MAX_RESETS_KEPT))
        self._per_turn = limits.TURN
        self._pause = 0.0  # seconds before the next turn
        self._paused = False
        self._turn = 0  # units of work that are left of this turn
        self._reads = 0
        self._condemned = False  # by what cannot raise: a tiny window
        self.sent_frames = 0  # DATA frames
        self._idle_work = Allowance(settings.limits.max_idle_work, limits.WORK_PER_SECOND, self.now())
        self.decoder = Decoder(settings.table, settings.list_size, settings.limits.max_header_fields)
        self.encoder = Encoder()
        self._handlers: tuple[Callable[[int, int, bytes], None], ...] = (
            self._on_data_frame, self._on_headers, self._on_priority, self._on_rst, self._on_settings,
            self._on_push, self._on_ping, self._on_goaway, self._on_window, self._on_continuation,
        )  # fmt: skip

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
        unacked = self._unacked + size
        if unacked >= self.recv_window:
            self.wire.write(frames.window_update(0, unacked))
            self.recv_window += unacked
            unacked = 0
        self._unacked = unacked

    def uncredited(self) -> int:
        """Bytes received whose credit has not come back yet: with no streams, none."""
        return self.settings.connection_window - self.recv_window - self._unacked

    @property
    def within_headers(self) -> bool:
        """Whether part of a header block has come."""
        return self._block is not None or self._tail[3:4] == _HEADERS_KIND

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

    # -- the frame loop -------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Act on every complete frame of ``data``."""
        if self.closed:
            return
        if self._tail:
            data = self._tail + data
        if self._paused:
            self._paused = False
            self.restart(self.now())
        self._turn = self._per_turn
        self._pause = 0.0
        self._reads += 1
        try:
            self._tail = self._frames(data, 0)
        except ConnectionFault as fault:
            if fault.abuse:
                self.abused(fault.abuse, fault.why)
            self.fault(fault.code, fault.why)
        except HeaderCodecError as error:
            self.fault(ErrorCodes.COMPRESSION_ERROR, str(error))
        if self._turn <= 0 and self._tail and not self.closed:
            pause = self._pause if self._per_turn == limits.TURN else limits.SUSPECT_PAUSE
            self._paused = pause > 0
            self.wire.again(pause)

    def _frames(self, data: bytes, at: int) -> bytes:
        """The loop; returns what is left of ``data``: an incomplete frame, or all that is too much for this turn."""
        total = len(data)
        unpack = frames.unpack_head
        view: memoryview | None = None
        while total - at >= frames.HEAD_SIZE and not self.closed:
            high, low, kind, flags, stream_id = unpack(data, at)
            length = high << 8 | low
            start = at + frames.HEAD_SIZE
            at = start + length
            if length > self.settings.frame:
                raise ConnectionFault(ErrorCodes.FRAME_SIZE_ERROR, f"frame of {length} bytes")
            if at > total:
                at = start - frames.HEAD_SIZE
                break
            if kind == frames.DATA and length and not flags & frames.PADDED and self._block is None:
                if length <= _SHARED_SMALL:
                    self._on_data(flags, stream_id & frames.STREAM_MASK, data[start:at], length)
                else:
                    if view is None:
                        view = memoryview(data)
                    self._on_data(flags, stream_id & frames.STREAM_MASK, view[start:at], length)
            elif self._block is not None and kind != frames.CONTINUATION:
                raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "a frame inside a header block")
            else:
                if kind <= frames.CONTINUATION:
                    self._one(kind, flags, stream_id & frames.STREAM_MASK, data[start:at])
                else:
                    self.spend(limits.FRAME_COST, "unknown")
                if self._turn <= 0:
                    break
        return data[at:] if at < total else b""

    def _one(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        try:
            self._handlers[kind](flags, stream_id, payload)
        except StreamFault as fault:
            self.stream_fault(stream_id, fault.code, fault.why)
        except Malformed as error:
            self.stream_fault(stream_id, ErrorCodes.PROTOCOL_ERROR, str(error))

    def stream_fault(self, stream_id: int, code: ErrorCodes, why: str) -> None:
        """End one stream for a fault of the peer."""
        stream = self.streams.get(stream_id)
        if stream is None:
            self.wire.write(frames.rst_stream(stream_id, code))
            self.remember_reset(stream_id)
            return
        stream.reset(code)
        stream.broken(Failure(Kind.PROTOCOL, why, self.blame))

    blame = Blame.UPSTREAM
    stray_cost = 0  # units, of DATA for a stream that we reset

    # -- DATA -----------------------------------------------------------------------------------------------

    def _on_data_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        """DATA with padding (§6.1), or with nothing."""
        data = payload
        if flags & frames.PADDED:
            pad = payload[0] + 1 if payload else 0
            if pad > len(payload) or not payload:
                raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "padding longer than the frame")
            data = payload[1 : len(payload) - pad + 1]
        if not data and not flags & frames.END_STREAM:
            self.spend(limits.EMPTY_COST, "empty")
        self._on_data(flags, stream_id, data, len(payload))

    def _on_data(self, flags: int, stream_id: int, payload: bytes | memoryview, length: int) -> None:
        if length > self.recv_window:
            raise ConnectionFault(ErrorCodes.FLOW_CONTROL_ERROR, "more data than the connection's window")
        self.recv_window -= length
        stream = self.streams.get(stream_id)
        if stream is None or stream.recv_closed:
            self._stray_data(stream_id, length)
            return
        if length > stream.recv_window:
            self.credit(length)
            self.stream_fault(stream_id, ErrorCodes.FLOW_CONTROL_ERROR, "more data than the stream's window")
            return
        stream.recv_window -= length
        end = flags & frames.END_STREAM == frames.END_STREAM
        if stream.expected is not None and not self._expected(stream, len(payload), end):
            self.credit(length)
            return
        if end:
            stream.recv_closed = True
            if stream.send_closed:
                self.forget(stream)
        stream.push(payload, length, end)

    def _expected(self, stream: Stream, length: int, end: bool) -> bool:
        """Compare with Content-Length; a mismatch is malformed (§8.1.1)."""
        assert stream.expected is not None
        stream.expected -= length
        if stream.expected < 0 or (end and stream.expected):
            self.stream_fault(stream.id, ErrorCodes.PROTOCOL_ERROR, "body differs from content-length")
            return False
        return True

    def _stray_data(self, stream_id: int, length: int) -> None:
        self.credit(length)
        if stream_id in self._resets:
            self.spend(self.stray_cost, "stray")
            return
        if stream_id == 0 or self._is_idle(stream_id):
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "DATA on an idle stream")
        self.stream_fault(stream_id, ErrorCodes.STREAM_CLOSED, "DATA after the end of the stream")

    def _is_idle(self, stream_id: int) -> bool:
        if stream_id & 1 == self.peer_initiates:
            return stream_id > self.last_peer_id
        return stream_id >= self.next_id

    next_id = 2

    # -- HEADERS --------------------------------------------------------------------------------------------

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & (frames.PADDED | frames.WITH_PRIORITY):
            payload = self._strip(flags, stream_id, payload)
        end = flags & frames.END_STREAM == frames.END_STREAM
        if flags & frames.END_HEADERS:
            self._headers(stream_id, payload, end)
            return
        self._block, self._block_size = [payload], len(payload)
        self._block_stream, self._block_end = stream_id, end

    def _strip(self, flags: int, stream_id: int, payload: bytes) -> bytes:
        """Remove padding and the deprecated priority fields (§6.2)."""
        at, pad = 0, 0
        if flags & frames.PADDED:
            pad = payload[0] if payload else 0
            at = 1
        if flags & frames.WITH_PRIORITY:
            if len(payload) >= at + 5 and frames.unpack_long(payload, at)[0] & frames.STREAM_MASK == stream_id:
                raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "a stream that depends on itself")
            at += 5
        if at + pad > len(payload):
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "padding longer than the frame")
        return payload[at : len(payload) - pad]

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or stream_id != self._block_stream:
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self.spend(limits.FRAME_COST, "continuation")
        block.append(payload)
        self._block_size += len(payload)
        if self._block_size > self._max_block or len(block) > self._max_block // 256:
            raise frames.abuse("continuation", "header block too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._headers(stream_id, b"".join(block), self._block_end)

    def _headers(self, stream_id: int, payload: bytes, end: bool) -> None:
        self._turn -= STREAM_COST + (len(payload) >> 4)
        block = self.decoder.decode(payload)
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.recv_closed:
            self.on_more_headers(stream, block, end)
        elif stream is not None:
            raise StreamFault(ErrorCodes.STREAM_CLOSED, "HEADERS after the end of the stream")
        elif stream_id in self._resets:
            self.spend(limits.STRAY_BLOCK_COST + (len(payload) >> 4), "stray")
        else:
            self.on_new_stream(stream_id, block, end)

    def on_new_stream(self, stream_id: int, block: Block, end: bool) -> None:
        """A header block on a stream that is not open."""
        raise NotImplementedError

    def on_more_headers(self, stream: Stream, block: Block, end: bool) -> None:
        """A header block on an open stream: a response, or trailers."""
        raise NotImplementedError

    def close_recv(self, stream: Stream) -> None:
        """The peer's half has ended with a header block."""
        if stream.expected:
            raise StreamFault(ErrorCodes.PROTOCOL_ERROR, "body shorter than content-length")
        stream.recv_closed = True
        if stream.send_closed:
            self.forget(stream)

    # -- the rare frames ------------------------------------------------------------------------------------

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """PRIORITY is checked and ignored (§5.3.2)."""
        self.spend(limits.FRAME_COST, "priority")
        if stream_id == 0:
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFault(ErrorCodes.FRAME_SIZE_ERROR, "PRIORITY that is not 5 bytes")
        if frames.unpack_long(payload, 0)[0] & frames.STREAM_MASK == stream_id:
            raise StreamFault(ErrorCodes.PROTOCOL_ERROR, "a stream that depends on itself")

    def _on_push(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "PUSH_PROMISE, which we never allow")

    def _on_rst(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCodes.FRAME_SIZE_ERROR, "RST_STREAM that is not 4 bytes")
        if stream_id == 0 or self._is_idle(stream_id):
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        self.spend(limits.FRAME_COST, "stray")
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.on_peer_reset(stream)
            code = int(frames.unpack_long(payload, 0)[0])
            stream.was_reset(self.reset_failure(code))

    def on_peer_reset(self, stream: Stream) -> None:
        """The peer is about to reset ``stream``."""

    def reset_failure(self, code: int) -> Failure:
        """What an RST_STREAM of the peer means."""
        name = ErrorCodes(code).name if code in ErrorCodes._value2member_map_ else hex(code)
        retryable = code == ErrorCodes.REFUSED_STREAM
        return Failure(Kind.RESET, f"stream reset by the peer: {name}", self.blame, code=code, retryable=retryable)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCodes.FRAME_SIZE_ERROR, "SETTINGS ack with a payload")
            self.spend(limits.FRAME_COST, "settings")
            return
        self.spend(limits.SETTINGS_COST, "settings")
        if not self.got_settings:
            self.peer_streams = frames.MAX_STREAM_ID  # no limit, unless this frame sets one
        self.apply_settings(payload)
        self.wire.write(frames.SETTINGS_ACK)
        self.got_settings = True
        self.on_settings()
        self.pump_all()

    def apply_settings(self, payload: bytes) -> None:
        """Apply what the peer announces."""
        if len(payload) % 6:
            raise ConnectionFault(ErrorCodes.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
        for at in range(0, len(payload), 6):
            self._setting(*frames.unpack_setting(payload, at))

    def _setting(self, code: int, value: int) -> None:
        """Apply one of the peer's settings; unknown ones are ignored (§6.5.2)."""
        self.spend(limits.SETTING_COST, "settings")
        if code == SettingCodes.INITIAL_WINDOW_SIZE:
            self._initial_window(value)
        elif code == SettingCodes.MAX_FRAME_SIZE:
            if not frames.DEFAULT_FRAME <= value < 1 << 24:
                raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
            self.peer_frame = value
        elif code == SettingCodes.MAX_CONCURRENT_STREAMS:
            self.peer_streams = value
        elif code == SettingCodes.HEADER_TABLE_SIZE:
            self.encoder.resize(min(value, 4096))
        elif code == SettingCodes.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        elif code == SettingCodes.ENABLE_CONNECT_PROTOCOL:
            if not self.peer_connects <= value <= 1:  # it cannot be taken back (RFC 8441 §3)
                raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "ENABLE_CONNECT_PROTOCOL is neither 0 nor 1, or was 1")
            self.peer_connects = value

    def _initial_window(self, value: int) -> None:
        if value > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCodes.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE out of range")
        change = value - self.peer_window
        if not change:
            return
        self.spend(len(self.streams) >> 3, "settings")
        self.peer_window = value
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCodes.FLOW_CONTROL_ERROR, "a window above 2^31-1")
            if stream.queued():
                self.blocked[stream.id] = stream

    def on_settings(self) -> None:
        """The peer's SETTINGS were applied."""

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCodes.FRAME_SIZE_ERROR, "PING that is not 8 bytes")
        self.spend(limits.PING_COST, "ping")
        if not flags & frames.ACK:
            self.wire.write(frames.ping(payload, ack=True))
        elif payload == _DRAIN_PING and self.draining and not self.closed:
            self._drained_round_trip()

    def _on_window(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCodes.FRAME_SIZE_ERROR, "WINDOW_UPDATE that is not 4 bytes")
        self.spend(limits.FRAME_COST, "window_update")
        increment = frames.unpack_long(payload, 0)[0] & frames.MAX_WINDOW
        if stream_id == 0:
            if increment == 0:
                raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            self.send_window += increment
            if self.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCodes.FLOW_CONTROL_ERROR, "a window above 2^31-1")
            if self.blocked:
                self.pump_all()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            return
        if increment == 0:
            raise StreamFault(ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        stream.send_window += increment
        if stream.send_window > frames.MAX_WINDOW:
            raise StreamFault(ErrorCodes.FLOW_CONTROL_ERROR, "a window above 2^31-1")
        if stream.queued():
            stream.pump()

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

    # -- the end --------------------------------------------------------------------------------------------

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCodes.FRAME_SIZE_ERROR, "GOAWAY below 8 bytes")
        self.spend(limits.GOAWAY_COST, "stray")
        last = frames.unpack_long(payload, 0)[0] & frames.STREAM_MASK
        self.on_goaway(last, int(frames.unpack_long(payload, 4)[0]), payload[8:264])

    def on_goaway(self, last: int, code: int, why: bytes) -> None:
        """The peer opens (server role) or accepts (client role) no further streams."""
        self.draining = self.finishing = True
        self.close_if_done()

    def drain(self, why: str = "drain") -> None:
        """Finish in two steps (rule 6)."""
        if not self.draining and not self.closed:
            self.draining = True
            self.wire.write(frames.goaway(frames.MAX_STREAM_ID, ErrorCodes.NO_ERROR, why))
            self.wire.write(frames.ping(_DRAIN_PING, ack=False))

    def _drained_round_trip(self) -> None:
        self.finishing = True
        self.wire.write(frames.goaway(self.last_peer_id, ErrorCodes.NO_ERROR, "drain"))
        self.close_if_done()

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


def measure(metrics: Metrics, connections: Collection[Http2Connection]) -> None:
    """Gauges of what ``connections``, which change, have under way: ``open_streams``, and ``uncredited_bytes`` that came and
    were not passed on. Computed when somebody looks."""
    metrics.gauge("open_streams", lambda: sum([len(connection.streams) for connection in connections]))
    metrics.gauge("uncredited_bytes", lambda: sum([connection.uncredited() for connection in connections]))
