"""Where bytes are cut makes no difference: to the frame loop, whatever comes, and to header blocks in CONTINUATIONs."""

from __future__ import annotations

import itertools
from typing import Any

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.http2 import frames
from protocols.http2.limits import Http2Limits
from protocols.http2.state import Settings
from router.model.exchange import Exchange
from router.model.headers import ResponseHead
from tests.protocols.http2.test_connection import HEAD, PREFACE, Front
from tests.protocols.http2.test_faults import CONNECTION_FAULTS, STREAM_FAULTS, block, headers, raw

pytestmark = pytest.mark.slow  # a second each

GOOD = [
    headers(1, *HEAD),
    headers(3, *HEAD, end=True),
    headers(5, *HEAD, (b"content-length", b"3")),
    raw(frames.DATA, 0, 1, b"hello"),
    raw(frames.DATA, frames.PADDED, 1, b"\x03hello" + bytes(3)),
    raw(frames.DATA, frames.END_STREAM, 1, b"bye"),
    raw(frames.DATA, frames.END_STREAM, 5, b"abc"),
    raw(frames.DATA, 0, 1, bytes(2000)),
    headers(1, (b"x", b"y"), end=True),
    raw(frames.HEADERS, 0, 7, block(*HEAD)) + raw(frames.CONTINUATION, frames.END_HEADERS, 7),
    raw(frames.RST_STREAM, 0, 1, bytes(4)),
    raw(frames.PING, 0, 0, b"12345678"),
    raw(frames.SETTINGS, 0, 0, b"\0\4\0\0\0\x0a"),
    raw(frames.WINDOW_UPDATE, 0, 0, b"\0\0\1\0"),
    raw(frames.WINDOW_UPDATE, 0, 1, b"\0\0\1\0"),
    raw(frames.PRIORITY, 0, 9, bytes(5)),
    raw(0x77, 0xFF, 1, b"grease"),
    raw(frames.GOAWAY, 0, 0, bytes(8)),
]
FRAMES = GOOD + [data for data, _ in CONNECTION_FAULTS.values()] + [data for data, *_ in STREAM_FAULTS.values()]
cuts = st.lists(st.integers(0, 100_000), max_size=8)
SETTINGS = Settings(window=20_000, limits=Http2Limits(max_idle_work=1_000_000))


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(one % (len(data) + 1) for one in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def converse(pieces: list[bytes]) -> tuple[bytes, list[Any], list[int], bool]:
    """What we said, the requests that came of it, the streams that are left, and whether the connection is over."""

    async def echo(exchange: Exchange) -> None:
        asked.append((exchange.request.path, exchange.request.fields))
        sink = exchange.respond(ResponseHead(200), exchange.body is None)
        exchange.conclude(())
        if exchange.body is not None:
            exchange.body.join(sink)

    asked: list[Any] = []
    front = Front(echo, SETTINGS)
    for piece in pieces:
        front.conn.received(piece)
        while front.wire.agains:
            front.wire.agains -= 1
            front.conn.received(b"")
    said, left = front.wire.take(), sorted(front.conn.streams)
    closed = front.conn.closed
    front.conn.lost("over")
    assert front.conn.streams == {}
    return said, asked, left, closed


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(GOOD) | st.sampled_from(FRAMES), max_size=12), cuts)
def test_where_frames_are_cut_makes_no_difference(conversation: list[bytes], at: list[int]) -> None:
    data = PREFACE + raw(frames.SETTINGS, 0, 0) + b"".join(conversation)
    whole = converse([data])
    assert converse(cut(data, at)) == whole
    if len(data) < 2000:
        assert converse([data[one : one + 1] for one in range(len(data))]) == whole


names = st.text("abcx-", min_size=1, max_size=10).map(str.encode)
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map(str.encode)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.tuples(names, values), max_size=8), min_size=1, max_size=3), cuts, st.booleans())
def test_where_header_blocks_are_continued_makes_no_difference(lists: Any, at: list[int], small: bool) -> None:
    front, encoder = Front(), hpack.Encoder()
    front.greet()
    for stream, fields in zip(itertools.count(1, 2), lists, strict=False):
        whole = bytes(encoder.encode([*HEAD, *fields]))
        first, *others = [whole] if not small and not at else cut(whole, at)
        sent = raw(frames.HEADERS, frames.END_STREAM | (0 if others else frames.END_HEADERS), stream, first)
        for left, piece in zip(range(len(others) - 1, -1, -1), others, strict=True):
            sent += raw(frames.CONTINUATION, 0 if left else frames.END_HEADERS, stream, piece)
        front.conn.received(sent)
        assert front.exchanges[-1].request.fields == tuple(fields)
    assert len(front.exchanges) == len(lists)
