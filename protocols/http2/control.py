"""The frames that control a connection, each of them rare: PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY and
WINDOW_UPDATE (RFC 9113 §6), and draining, which is made of two of them.

Theory of operation

1. A handler checks its frame, spends what the frame costs us, and acts at once; what it writes is in the wire's output when it
   returns. It raises :class:`StreamFault` or :class:`ConnectionFault` for what the frame breaks (see
   :mod:`protocols.http2.connection`).
2. Draining: GOAWAY with the highest stream id and a PING; when that is acknowledged (a round trip later nothing that
   was under way can still arrive), GOAWAY with the real last id; then close with the last stream.
"""

from __future__ import annotations

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from protocols.http2 import frames, limits
from protocols.http2.frames import ConnectionFault, StreamFault
from protocols.http2.state import ConnectionState
from protocols.http2.stream import Stream
from router.model.failure import Failure, Kind

_DRAIN_PING = b"waypost!"


class ControlFrames(ConnectionState):
    """What the peer says about the connection and about streams as a whole."""

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

    # -- settings -------------------------------------------------------------------------------------------

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

    # -- windows, liveness ----------------------------------------------------------------------------------

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

    # -- going away -----------------------------------------------------------------------------------------

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
        """Finish in two steps (rule 2)."""
        if not self.draining and not self.closed:
            self.draining = True
            self.wire.write(frames.goaway(frames.MAX_STREAM_ID, ErrorCodes.NO_ERROR, why))
            self.wire.write(frames.ping(_DRAIN_PING, ack=False))

    def _drained_round_trip(self) -> None:
        self.finishing = True
        self.wire.write(frames.goaway(self.last_peer_id, ErrorCodes.NO_ERROR, "drain"))
        self.close_if_done()
