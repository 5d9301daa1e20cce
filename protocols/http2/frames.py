"""Frames as bytes: the few that are written often by hand, the rare ones by hyperframe (RFC 9113 §4, §6)."""

from __future__ import annotations

import struct

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame, SettingsFrame

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE = 9
STREAM_MASK = MAX_WINDOW = MAX_STREAM_ID = 2**31 - 1
DEFAULT_WINDOW = 65535
DEFAULT_FRAME = 16384

# Length in two parts, type, flags, stream.
unpack_head = struct.Struct(">HBBBL").unpack_from
pack_head = struct.Struct(">HBBBL").pack
_pack_head_long = struct.Struct(">HBBBLL").pack
unpack_long = struct.Struct(">L").unpack_from
unpack_setting = struct.Struct(">HL").unpack_from

SETTINGS_ACK = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes in front of a payload."""
    return pack_head(length >> 8, length & 0xFF, kind, flags, stream)


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE (§6.9)."""
    return _pack_head_long(0, 4, WINDOW_UPDATE, 0, stream, increment)


def rst_stream(stream: int, code: int) -> bytes:
    """RST_STREAM (§6.4)."""
    return _pack_head_long(0, 4, RST_STREAM, 0, stream, code)


def ping(payload: bytes, *, ack: bool) -> bytes:
    """PING (§6.7)."""
    return head(8, PING, ACK if ack else 0, 0) + payload


def settings(values: dict[SettingCodes, int]) -> bytes:
    """SETTINGS (§6.5)."""
    return SettingsFrame(0, settings={int(code): value for code, value in values.items()}).serialize()


def goaway(last: int, code: int, why: str) -> bytes:
    """GOAWAY (§6.8) with ``why`` as debug data, cut to 256 bytes."""
    return GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=why.encode()[:256]).serialize()


def header_frames(stream: int, block: bytes, flags: int, max_frame: int) -> bytes:
    """HEADERS, and CONTINUATION as needed (§6.2, §6.10)."""
    size = len(block)
    if size <= max_frame:
        return pack_head(size >> 8, size & 0xFF, HEADERS, flags | END_HEADERS, stream) + block
    parts = [head(max_frame, HEADERS, flags, stream), block[:max_frame]]
    for at in range(max_frame, size, max_frame):
        part = block[at : at + max_frame]
        last = END_HEADERS if at + max_frame >= size else 0
        parts += (head(len(part), CONTINUATION, last, stream), part)
    return b"".join(parts)


class ConnectionFault(Exception):  # noqa: N818 - the field speaks of connection errors; this is what causes one
    """The peer broke the connection's state: GOAWAY with ``code``, then close (§5.4.1). ``abuse``: the kind, if it was that."""

    def __init__(self, code: ErrorCodes, why: str, abuse: str = "") -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.abuse = abuse


def abuse(kind: str, why: str) -> ConnectionFault:
    """What ends a connection for too much of what is legal in small numbers."""
    return ConnectionFault(ErrorCodes.ENHANCE_YOUR_CALM, why, kind)


class StreamFault(Exception):  # noqa: N818
    """The peer broke one stream: RST_STREAM with ``code`` (§5.4.2)."""

    def __init__(self, code: ErrorCodes, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
