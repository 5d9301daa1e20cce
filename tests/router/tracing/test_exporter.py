"""The queue before a collector: batches, bounds, drops, and collectors that hang, refuse or talk nonsense."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from router.model.host import Host
from router.model.metrics import Metrics
from router.model.trace import CLIENT, Span, TraceContext
from router.tracing.exporter import BATCH, EVERY, MAX_WAITING, PIECE, TIMEOUT, Exporter
from router.tracing.post import Collector, read_url
from router.tracing.tracelog import Config as LogConfig
from router.tracing.tracelog import LogTracer


def span(number: int = 1) -> Span:
    return Span(TraceContext(1, number), CLIENT, "web", "GET", 1000, 2000, 0, None, "", {})


class Tracer:
    """Keeps what is delivered; ``delay`` and ``error`` make it a bad one."""

    name = "test"
    rate = 1.0

    def __init__(self) -> None:
        self.pieces: list[list[int]] = []
        self.delivered: list[int] = []
        self.delay = 0.0
        self.error: Exception | None = None

    def encode(self, spans: Sequence[Span]) -> bytes:
        self.pieces.append([one.context.span for one in spans])
        return b",".join([b"%d" % one.context.span for one in spans])

    async def deliver(self, pieces: Sequence[bytes]) -> None:
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        self.delivered += [int(number) for piece in pieces for number in piece.split(b",")]


class Rig:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.host = Host(nursery)
        self.tracer = Tracer()
        self.metrics = Metrics()
        self.exporter = Exporter(self.tracer, self.host, self.metrics)
        nursery.start_soon(self.exporter.run)

    def counts(self) -> tuple[float, float]:
        flat = self.metrics.flat()
        return flat["exported"], flat["dropped"]

    def add(self, count: int) -> None:
        for number in range(count):
            self.exporter.add(span(number))


@pytest.fixture
async def rig(nursery: trio.Nursery) -> Rig:
    return Rig(nursery)


async def test_spans_wait_a_while_for_company(autojump_clock: Any, rig: Rig) -> None:
    rig.add(3)
    await trio.sleep(EVERY / 2)
    assert rig.tracer.delivered == []
    rig.exporter.add(span(3))
    await trio.sleep(EVERY)
    assert rig.tracer.delivered == [0, 1, 2, 3]
    assert rig.counts() == (4, 0)
    rig.add(1)
    await trio.sleep(EVERY * 1.5)
    assert rig.counts() == (5, 0)


async def test_a_full_batch_goes_at_once_and_is_encoded_in_pieces(autojump_clock: Any, rig: Rig) -> None:
    rig.add(BATCH + 1)
    await trio.sleep(0.01)
    assert rig.tracer.delivered == list(range(BATCH))
    assert {len(piece) for piece in rig.tracer.pieces} == {PIECE}
    await trio.sleep(EVERY)
    assert rig.tracer.delivered[-1] == BATCH


async def test_a_collector_that_hangs_costs_counted_spans(autojump_clock: Any, rig: Rig) -> None:
    rig.tracer.delay = 1e9
    rig.add(BATCH)
    await trio.sleep(0.01)  # these are on their way
    rig.add(MAX_WAITING + 100)
    assert rig.counts() == (0, 100)
    await trio.sleep(TIMEOUT)
    assert rig.counts() == (0, 100 + BATCH)
    rig.tracer.delay = 0.0
    await trio.sleep(TIMEOUT)
    assert rig.counts() == (MAX_WAITING - BATCH, 100 + 2 * BATCH)
    assert rig.host.events.counts["trace_dropped"] == 1
    assert rig.host.events.recent[0].fields["cause"] == "the collector is too slow"


async def test_a_collector_that_refuses_costs_its_batch_and_is_told_of_once_a_minute(autojump_clock: Any, rig: Rig) -> None:
    rig.tracer.error = OSError("connection refused")
    for _ in range(3):
        rig.add(1)
        await trio.sleep(2 * EVERY)
    assert rig.counts() == (0, 3)
    assert [dict(event.fields) for event in rig.host.events.recent] == [
        {"telemeter": "test", "cause": "connection refused", "spans": 1}
    ]
    await trio.sleep(60)
    rig.add(1)
    await trio.sleep(2 * EVERY)
    assert rig.host.events.counts["trace_dropped"] == 2
    rig.tracer.error = None
    rig.add(2)
    await trio.sleep(2 * EVERY)
    assert rig.counts() == (2, 4)


async def test_what_is_left_is_flushed(autojump_clock: Any, rig: Rig) -> None:
    rig.add(BATCH + 5)
    began = trio.current_time()
    await rig.exporter.flush(2.0)
    assert rig.counts() == (BATCH + 5, 0)
    assert trio.current_time() - began < 0.1
    rig.tracer.delay = 1e9
    rig.add(1)
    await rig.exporter.flush(2.0)
    assert trio.current_time() - began < 2.2


# -- the collector's side -------------------------------------------------------------------------------------


async def _posted(nursery: trio.Nursery, answer: bytes, body: bytes = b"spans") -> bytes:
    """What a collector that gives ``answer`` got."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    got = b""

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal got
        async with stream:
            while body not in got:
                got += await stream.receive_some()
            await stream.send_all(answer)

    async with listener:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        await Collector("127.0.0.1", listener.socket.getsockname()[1], "/v1?x=1").post(body, "text/plain")
    return got


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 202 Accepted\r\n\r\n",
        b"HTTP/1.0 200\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 x\r\na: b\r\n\r\n",
    ],
)
async def test_a_post(nursery: trio.Nursery, answer: bytes) -> None:
    got = await _posted(nursery, answer)
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1?x=1 HTTP/1.1"
    assert {b"content-type: text/plain", b"content-length: 5", b"connection: close"} <= set(lines)
    assert lines[1].startswith(b"host: 127.0.0.1:")
    assert body == b"spans"
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "did not answer"),
        (b"SSH-2.0-x\r\n", "did not answer"),
        (b"HTTP/1.1 abc\r\n\r\n", "did not answer"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "answered with 503"),
        (b"HTTP/1.1 307 x\r\nlocation: /y\r\n\r\n", "answered with 307"),
    ],
)
async def test_what_is_no_success(nursery: trio.Nursery, answer: bytes, why: str) -> None:
    with pytest.raises(OSError, match=why):
        await _posted(nursery, answer)
    nursery.cancel_scope.cancel()


def test_urls() -> None:
    assert read_url("http://localhost:4318/v1/traces") == Collector("localhost", 4318, "/v1/traces")
    assert read_url("https://[::1]?a=b") == Collector("::1", 443, "/?a=b", True)
    for wrong in (
        "localhost:4318",
        "ftp://x/",
        "http:///v1",
        "http://u:p@x/",
        "http://x/#y",
        "http://x/ y",
        "http://x/\n",
        "http://x:99999/",
    ):
        with pytest.raises(ValueError):
            read_url(wrong)


async def test_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    tracer: Any = LogTracer(LogConfig(level="WARNING"))
    with caplog.at_level(logging.INFO, "waypost.trace"):
        await tracer.deliver([tracer.encode([span(1), span(2)]), tracer.encode([span(3)])])
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    line = "span trace=0000000000000001 id=0000000000000003 kind=client name=GET took_ms=0.001"
    assert caplog.records[2].getMessage() == line
