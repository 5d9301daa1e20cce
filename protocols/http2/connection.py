"""The HTTP/2 connection, for both roles, without I/O (RFC 9113): the frame loop, DATA and HEADERS.

Theory of operation

1. ``received`` decodes every frame of a read and acts on each synchronously; what it writes is in the wire's output
   when it returns. The loop handles DATA itself, since messages of a stream are its bulk; the rest is dispatched by
   a table. A frame that is not complete waits in ``_tail``, bounded by the frame size that we announced. What is neither
   DATA nor a header block: :mod:`protocols.http2.control`; what all of them work on: :mod:`protocols.http2.state`.
2. Faults: :class:`StreamFault` and ``Malformed`` end a stream with RST_STREAM; :class:`ConnectionFault` ends the
   connection with GOAWAY. No other exception belongs here.
3. Header blocks are collected up to twice the size of a header list, and decoded even for streams that are over, since
   the table of the codec is the connection's.
4. A read that holds more work than a turn's (:mod:`protocols.http2.limits`) is worked off in several, with the rest in
   ``_tail`` and the socket unread meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from h2.errors import ErrorCodes

from protocols.http2 import frames, limits
from protocols.http2.codec import Block, Decoder, HeaderCodecError
from protocols.http2.control import ControlFrames
from protocols.http2.frames import ConnectionFault, StreamFault
from protocols.http2.limits import STREAM_COST
from protocols.http2.state import Settings
from protocols.http2.stream import Stream
from protocols.http2.validation import Malformed
from protocols.wire.connection import Connection as Wire
from router.model.metrics import Metrics

_SHARED_SMALL = 1024
_HEADERS_KIND = bytes([frames.HEADERS])


class Http2Connection(ControlFrames):
    """One connection. Subclasses give streams a role."""

    def __init__(self, wire: Wire, settings: Settings) -> None:
        super().__init__(wire, settings)
        self.decoder = Decoder(settings.table, settings.list_size, settings.limits.max_header_fields)
        self._tail = b""
        self._paused = False
        self._block: list[bytes] | None = None
        self._block_size = 0
        self._block_stream = 0
        self._block_end = False
        self._max_block = 2 * settings.list_size
        self._handlers: tuple[Callable[[int, int, bytes], None], ...] = (
            self._on_data_frame, self._on_headers, self._on_priority, self._on_rst, self._on_settings,
            self._on_push, self._on_ping, self._on_goaway, self._on_window, self._on_continuation,
        )  # fmt: skip

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

    @property
    def within_headers(self) -> bool:
        """Whether part of a header block has come."""
        return self._block is not None or self._tail[3:4] == _HEADERS_KIND

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
        if stream.expected is not None:
            if stream.expected > length and not end:  # padding is none of the body: where it matters, look closely
                stream.expected -= len(payload)
            elif not self._expected(stream, len(payload), end):
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


def measure(metrics: Metrics, connections: Collection[Http2Connection]) -> None:
    """Gauges of what ``connections``, which change, have under way: ``open_streams``, and ``uncredited_bytes`` that came and
    were not passed on. Computed when somebody looks."""
    metrics.gauge("open_streams", lambda: sum([len(connection.streams) for connection in connections]))
    metrics.gauge("uncredited_bytes", lambda: sum([connection.uncredited() for connection in connections]))
