"""Bodies of HTTP/2 backends that are not what they say, and connections that break the protocol."""

from __future__ import annotations

import trio
from hyperframe.frame import DataFrame, Frame, PingFrame, PushPromiseFrame, SettingsFrame, WindowUpdateFrame

from interop.negative.backend2 import PLAIN_HEAD, Record, Script, Stream
from interop.negative.probing import (
    GRPC_CLIENTS,
    H1_CLIENTS,
    H2_CLIENTS,
    Call,
    Probe,
    answers_are,
    attempts,
    broken,
    connections,
    grpc,
    http,
    record_has,
)

BODY = b"\0\0\0\0\x64" + bytes(100)
OK = grpc(0, size=100)


def sized(length: int) -> list[tuple[str, str]]:
    return [*PLAIN_HEAD, ("content-length", str(length))]


async def too_short(stream: Stream) -> None:
    await stream.request()
    await stream.head(sized(100))
    await trio.sleep(0.02)
    await stream.data(bytes(50), end=True)


async def too_long(stream: Stream) -> None:
    await stream.request()
    await stream.head(sized(100))
    await trio.sleep(0.02)
    await stream.data(bytes(150), end=True)


async def two_lengths(stream: Stream) -> None:
    await stream.request()
    await stream.head([*sized(5), ("content-length", "6")])
    await stream.data(b"hello", end=True)


async def no_status(stream: Stream) -> None:
    await stream.request()
    await stream.head([("content-type", "text/plain")], end=True)


async def head_with_body(stream: Stream) -> None:
    await stream.request()
    await stream.head(sized(100), end=True)


async def unknown_frames(stream: Stream) -> None:
    await stream.request()
    await stream.conn.raw(b"\0\0\x04\xee\x0f" + stream.id.to_bytes(4, "big") + b"\xff\xff\xff\xff")
    await stream.head()
    await stream.conn.raw(b"\0\0\x00\xfe\x00" + bytes(4))
    await stream.data(BODY)
    await stream.data(b"")
    await stream.finish()


def offence(frame: Frame | bytes) -> Script:
    """A connection error while a call is under way: first a good call, then the offence in the place of an answer."""

    async def run(stream: Stream) -> None:
        await stream.request()
        if stream.attempt != 1:
            await stream.answer(BODY)
            return
        await stream.conn.raw(frame if isinstance(frame, bytes) else frame.serialize())
        await stream.until(lambda: False)

    return Script(run)


def _goaways(record: Record) -> list[int | None]:
    return [conn.goaway for conn in record.connections if conn.requests][:1]


def said_goaway(code: int) -> object:
    return record_has(f"GOAWAY {code}", _goaways, lambda got: got == [code])


PUSH = PushPromiseFrame(1, promised_stream_id=2, data=b"\x82", flags=["END_HEADERS"])
PING = PingFrame(0, opaque_data=bytes(8)).serialize()
OFFENCES = [
    ("PUSH_PROMISE", PUSH, 1),
    ("WINDOW_UPDATE beyond 2^31", WindowUpdateFrame(0, window_increment=2**31 - 1), 3),
    ("SETTINGS on a stream", b"\0\0\0\x04\0\0\0\0\x01", 1),
    ("SETTINGS with a bad frame size", SettingsFrame(0, settings={5: 100}), 1),
    ("PING of 7 bytes", b"\0\0\x07" + PING[3:16], 6),
    ("frame above the maximum", b"\x01\0\0\0\0\0\0\0\x01" + bytes(65_536), 6),
    ("DATA on an idle stream", DataFrame(99, data=b"x"), 1),
    ("a header block that cannot be decoded", b"\0\0\x05\x01\x04\0\0\0\x03\xff\xff\xff\xff\xff", 9),
    ("DATA inside a header block", b"\0\0\0\x01\0\0\0\0\x03" + b"\0\0\0\0\0\0\0\0\x03", 1),
    ("HTTP/1.1 in the middle", b"HTTP/1.1 400 Bad Request\r\n\r\n", 6),
]

SHUT = [broken("RST 1", "RST 2"), answers_are("no clean end", lambda a: bool(a.broken))]

PROBES = [
    Probe("HTTP/2: body below its length", "7.4", "h2", H2_CLIENTS, Script(too_short), SHUT[:1], [attempts(1)]),
    Probe("HTTP/2: body above its length", "7.4", "h2", H2_CLIENTS, Script(too_long), SHUT[:1], [attempts(1)]),
    Probe("HTTP/1.1: body below its length", "7.4", "h1-h2", H1_CLIENTS, Script(too_short), [broken("closed")], [attempts(1)]),
    Probe("HTTP/1.1: body above its length", "7.4", "h1-h2", H1_CLIENTS, Script(too_long), [broken("closed")], [attempts(1)]),
    Probe("HTTP/2: two lengths", "0.2", "h2", H2_CLIENTS, Script(two_lengths), [http(502)], [attempts(1)]),
    Probe("HTTP/2: no :status", "0.2", "h2", H2_CLIENTS, Script(no_status), [http(502)], [attempts(1)]),
    Probe(
        "HTTP/2: HEAD with a length and no body", "1.1", "h2", ("curl-h2",), Script(head_with_body), [http(200)],
        [attempts(1)], (Call(options=("-I",)),),
    ),
    Probe("unknown frames, empty DATA", "RFC 9113 4.1", "grpc", GRPC_CLIENTS, Script(unknown_frames), [OK], [attempts(1)]),
    *(
        Probe(
            f"connection error: {name}", "RFC 9113 5.4.1", "grpc", GRPC_CLIENTS, offence(frame),
            [answers_are("gRPC 13 or 14 for the call in the middle alone", lambda a: a.grpc in (0, 13, 14)), grpc(0, 13, 0)],
            [attempts(3), connections(2), said_goaway(code)], (Call(), Call(), Call()),
        )
        for name, frame, code in OFFENCES
    ),
]  # fmt: skip
