"""Windows, padding, stream limits, PINGs, slow readers and slow writers."""

from __future__ import annotations

import zlib

import trio
from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from interop.negative.backend2 import INITIAL_WINDOW, MAX_STREAMS, PLAIN_HEAD, Record, Script, Stream
from interop.negative.probing import (
    GRPC_CLIENTS,
    H1_CLIENTS,
    H2_CLIENTS,
    Call,
    Expect,
    Probe,
    answers_are,
    attempts,
    concurrent,
    connections,
    grpc,
    http,
    record_has,
    reset,
    whole,
)

MIB = 1 << 20
LARGE = 314_159
# What a proxy may take of a response that its client does not read: windows and buffers, of which the kernel's are the most.
BUFFERS = 16 * MIB
TEXT = bytes(range(256)) * 128


def message(payload: bytes) -> bytes:
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def pattern(size: int) -> bytes:
    return (TEXT * (size // len(TEXT) + 1))[:size]


PADDED = pattern(31_415)
BODY = message(bytes(100))
OK = grpc(0, size=100)


def intact(size: int) -> Expect:
    wanted = zlib.crc32(pattern(size))
    return answers_are(
        f"{size} bytes as they were sent", lambda a: (a.size, a.crc) == (size, wanted), lambda a: f"{a.size} bytes"
    )


async def padded(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(message(PADDED), pad=255, most=5)
    await stream.finish()


async def padded_large(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(message(pattern(LARGE)), pad=255, most=5)
    await stream.finish()


async def unpadded(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(message(pattern(LARGE)), most=5000)
    await stream.finish()


async def one_at_a_time(stream: Stream) -> None:
    await stream.request()
    await trio.sleep(0.01)
    await stream.answer(BODY)


async def closed_then_open(stream: Stream) -> None:
    """No stream is allowed from the first answer on, for 0.2 s."""
    await stream.request()
    if stream.attempt == 0:
        await stream.conn.send(SettingsFrame(0, settings={MAX_STREAMS: 0}))
        await stream.answer(BODY)
        await trio.sleep(0.2)
        await stream.conn.send(SettingsFrame(0, settings={MAX_STREAMS: 10}))
    else:
        await stream.answer(BODY)


async def pinging(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    payload = message(pattern(LARGE))
    for at in range(0, len(payload), 10_000):
        await stream.conn.ping()
        await stream.data(payload[at : at + 10_000])
    await stream.conn.ping()
    await stream.until(lambda: stream.conn.acked == stream.conn.pings)
    await stream.finish()


async def pinging_under_pressure(stream: Stream) -> None:
    """Fill what the client does not read; then each PING must be answered within half a second."""
    await stream.request()
    await stream.head(PLAIN_HEAD)
    left = 64 * MIB
    with trio.move_on_after(1.0):
        while left:
            await stream.data(bytes(65_536))
            left -= 65_536
    if not left:
        raise AssertionError("64 MiB went into a client that does not read")
    for _ in range(10):
        await stream.conn.ping()
        with trio.fail_after(0.5):
            await stream.until(lambda: stream.conn.acked == stream.conn.pings)
    await stream.was_reset()


async def flood(stream: Stream) -> None:
    await stream.request()
    await stream.head(PLAIN_HEAD)
    while True:
        await stream.data(bytes(65_536))


async def large(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(message(pattern(4 * MIB)))
    await stream.finish()


async def plain_large(stream: Stream) -> None:
    await stream.request()
    await stream.head(PLAIN_HEAD)
    await stream.data(pattern(4 * MIB), end=True)


async def mirror(stream: Stream) -> None:
    """1 MiB each way at once, on a window of 1,000 bytes that is refilled as it is used."""
    await stream.head()
    given = 1000

    async def refill() -> None:
        nonlocal given
        while True:
            await stream.until(lambda: stream.received >= given - 500 or stream.ended)
            if stream.ended:
                return
            more = stream.received + 1000 - given
            given += more
            await stream.credit(more)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refill)
        await stream.data(message(pattern(MIB)))
        await stream.request()
    await stream.finish()


async def slow_reader(stream: Stream) -> None:
    """No credit for 0.3 s: no more than a window may come. Then all of it, 20,000 bytes at a time."""
    await stream.first(65_535)
    await trio.sleep(0.3)
    if stream.received > 65_535:
        raise AssertionError("more than the window")
    while not stream.ended:
        had = stream.received
        await stream.credit(20_000)
        await stream.until(lambda had=had: stream.received > had or stream.ended)  # type: ignore[misc]
    await stream.answer(BODY)


async def plain_slow_reader(stream: Stream) -> None:
    await stream.first(65_535)
    await trio.sleep(0.3)
    while not stream.ended:
        had = stream.received
        await stream.credit(20_000)
        await stream.until(lambda had=had: stream.received > had or stream.ended)  # type: ignore[misc]
    await stream.head(PLAIN_HEAD)
    await stream.data(b"hello", end=True)


async def dribble(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(BODY, most=1)
    await stream.finish()


async def plain_dribble(stream: Stream) -> None:
    await stream.request()
    await stream.head(PLAIN_HEAD)
    for _ in range(100):
        await stream.data(b"x")
        await trio.sleep(0.002)
    await stream.data(b"", end=True)


async def shrinking(stream: Stream) -> None:
    """The window shrinks below zero while the client sends, and grows again."""
    await stream.first(1000)
    await stream.conn.send(SettingsFrame(0, settings={INITIAL_WINDOW: 0}))
    await trio.sleep(0.2)
    await stream.conn.send(SettingsFrame(0, settings={INITIAL_WINDOW: 65_535}))
    given = 0
    while not stream.ended:
        await stream.until(lambda: stream.received > given or stream.ended)
        more, given = stream.received - given, stream.received
        if more and not stream.ended:
            await stream.credit(more)
    await stream.answer(BODY)


async def upload(stream: Stream) -> None:
    await stream.request()
    await stream.answer(BODY)


async def plain_upload(stream: Stream) -> None:
    await stream.request()
    await stream.head(PLAIN_HEAD)
    await stream.data(b"hello", end=True)


async def stuck_beside(stream: Stream) -> None:
    """Some streams are never read by the backend; the others must pass them by."""
    if (stream.get(":path") or "").endswith("stuck"):
        await stream.was_reset()
        return
    while not stream.ended:
        had = stream.received
        await stream.until(lambda: stream.received > had or stream.ended)
        more = stream.received - had
        if more:
            await stream.conn.send(WindowUpdateFrame(0, window_increment=more))
        if more and not stream.ended:
            await stream.conn.send(WindowUpdateFrame(stream.id, window_increment=more))
    await stream.answer(BODY)


PINGED: Expect = record_has(
    "every PING acknowledged",
    lambda record: [len(each.pings) - len(each.acked) for each in record.connections if each.pings],
    lambda got: got == [0],
)


def _sent(record: Record) -> int:
    return max((stream.sent for stream in record.streams), default=0)


HELD_BACK = record_has(f"no more than {BUFFERS >> 20} MiB taken", _sent, lambda got: 0 < got <= BUFFERS)  # type: ignore[operator]

PROBES = [
    Probe("PINGs throughout", "5.2 ping", "grpc", GRPC_CLIENTS, Script(pinging), [grpc(0), intact(LARGE)], [PINGED]),
    Probe(
        "PINGs while the client reads nothing", "1.10", "h2", ("curl-h2",), Script(pinging_under_pressure),
        [answers_are("gave up", lambda a: a.broken == "timeout")], [PINGED, attempts(1)],
        (Call(deadline=3.0, slow=1000),),
    ),
    Probe(
        "stream limit 1 with 15 calls", "5.2 max_streams", "grpc", GRPC_CLIENTS, Script(one_at_a_time, {MAX_STREAMS: 1}), [OK],
        [attempts(15), concurrent(1)], (Call(),) * 15, parallel=True,
    ),
    Probe(
        "stream limit 100 with 300 calls", "5.3", "grpc", GRPC_CLIENTS, Script(one_at_a_time, {MAX_STREAMS: 100}), [OK],
        [attempts(300), concurrent(100)], (Call(),) * 300, parallel=True,
    ),
    Probe(
        "stream limit that falls to 0 and rises", "1.11", "grpc", GRPC_CLIENTS, Script(closed_then_open), [OK], [attempts(3)],
        (Call(), Call(), Call()),
    ),
    Probe("padded DATA", "5.2 data_frame_padding", "grpc", GRPC_CLIENTS, Script(padded), [grpc(0), intact(31_415)], [attempts(1)]),
    Probe(
        "padded DATA, 16 MB of padding", "5.2 data_frame_padding", "grpc", GRPC_CLIENTS, Script(padded_large),
        [grpc(0), intact(LARGE)], [attempts(1)], (Call(deadline=60.0),), slow=True,
    ),
    Probe(
        "the same without padding", "5.2 no_df_padding_sanity_test", "grpc", GRPC_CLIENTS, Script(unpadded),
        [grpc(0), intact(LARGE)], [attempts(1)],
    ),
    Probe(
        "1 MiB each way, window 1,000, all retried", "7.4: stall by a retry buffer", "retry", GRPC_CLIENTS,
        Script(mirror, {INITIAL_WINDOW: 1000}, credit=False), [grpc(0), intact(MIB)], [whole(16 * 65_541)],
        (Call(send=16, size=65_536, deadline=20.0),),
    ),
    Probe(
        "HTTP/2: client window of 1,023 bytes", "7.4", "h2", ("nghttp",), Script(plain_large), [http(200, size=4 * MIB)], [],
        (Call(deadline=60.0, options=("-w", "10", "-W", "16")),), slow=True,
    ),
    Probe(
        "slow gRPC reader", "1.12", "grpc", GRPC_CLIENTS, Script(large), [grpc(0), intact(4 * MIB)], [],
        (Call(slow=300),),
    ),
    Probe(
        "HTTP/2: slow reader", "1.12", "h2", ("curl-h2",), Script(plain_large), [http(200), intact(4 * MIB)], [],
        (Call(slow=4 * MIB),),
    ),
    Probe(
        "HTTP/2: a reader that stops", "1.12", "h2", ("curl-h2",), Script(flood),
        [answers_are("gave up", lambda a: a.broken == "timeout")], [HELD_BACK, reset(8)], (Call(deadline=1.5, slow=1000),),
    ),
    Probe(
        "HTTP/1.1: a reader that stops", "1.12", "h1-h2", H1_CLIENTS, Script(flood),
        [answers_are("gave up", lambda a: a.broken == "timeout")], [HELD_BACK, reset(8)], (Call(deadline=1.5, slow=1000),),
    ),
    Probe(
        "slow reader in the backend", "1.12", "grpc", GRPC_CLIENTS, Script(slow_reader, credit=False), [OK], [whole(10 * 100_005)],
        (Call(send=10, size=100_000),),
    ),
    Probe(
        "HTTP/2: slow reader in the backend", "1.12", "h2", H2_CLIENTS, Script(plain_slow_reader, credit=False), [http(200)],
        [whole(1_000_000)], (Call(send=2, size=1_000_000),),
    ),
    Probe(
        "HTTP/1.1: slow reader in the backend", "1.12", "h1-h2", H1_CLIENTS, Script(plain_slow_reader, credit=False), [http(200)],
        [whole(1_000_000)], (Call(send=2, size=1_000_000, headers=(("Expect", ""),)),),
    ),
    Probe(
        "a stuck stream beside others", "1.12", "grpc", GRPC_CLIENTS, Script(stuck_beside, credit=False),
        [answers_are("gRPC 4 for the stuck, 0 for the others", lambda a: a.grpc == (4 if a.messages == 0 else 0))], [attempts(5)],
        (Call("/neg.Probe/stuck", send=3, size=10_000, deadline=1.5),
         *(Call(send=5, size=10_000, gap=20, deadline=5.0),) * 4), parallel=True,
    ),
    Probe("slow writer: DATA of one byte", "1.12", "grpc", GRPC_CLIENTS, Script(dribble), [OK], [attempts(1)]),
    Probe(
        "HTTP/2: slow writer", "1.12", "h2", H2_CLIENTS, Script(plain_dribble), [http(200, size=100)], [attempts(1)],
    ),
    Probe("HTTP/1.1: slow writer", "1.12", "h1-h2", H1_CLIENTS, Script(plain_dribble), [http(200, size=100)], [attempts(1)]),
    Probe(
        "slow writer in the client", "1.12", "grpc", GRPC_CLIENTS, Script(upload), [OK], [whole(20 * 105)],
        (Call(send=20, size=100, gap=20),),
    ),
    Probe(
        "HTTP/2: slow writer in the client", "1.12", "h2", ("curl-h2",), Script(plain_upload), [http(200)], [whole(500_000)],
        (Call(send=2, size=500_000, up=1_000_000),),
    ),
    Probe(
        "HTTP/2: padded uploads", "1.12", "h2", ("nghttp",), Script(plain_upload), [http(200)], [whole(500_000)],
        (Call(send=2, size=500_000, options=("-b", "255")),),
    ),
    Probe(
        "window that shrinks below zero", "1.12", "grpc", GRPC_CLIENTS, Script(shrinking, credit=False), [OK], [whole(10 * 50_005)],
        (Call(send=10, size=50_000, gap=10),),
    ),
    Probe("one connection for calls in turn", "1.11", "grpc", GRPC_CLIENTS, Script(upload), [OK], [connections(1)], (Call(),) * 10),
]  # fmt: skip
