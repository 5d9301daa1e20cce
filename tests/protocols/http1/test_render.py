"""What is sent: h11 reads it back, our own rules accept it, and no value can become a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.http1 import render
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead, ResponseHead

Read = Callable[..., Any]
CHUNKED = b"transfer-encoding: chunked\r\n"
names = st.text("abcxyz019-_.", min_size=1, max_size=10).map(lambda text: b"x-" + text.encode())
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map(str.encode)
fields = st.lists(st.tuples(names, values), max_size=6).map(tuple)


def request(method: bytes = b"GET", path: bytes = b"/", authority: bytes = b"web", **rest: Any) -> RequestHead:
    return RequestHead(method, b"http", authority, path, **rest)


@pytest.mark.slow
@given(st.sampled_from([b"GET", b"POST", b"PURGE"]), fields, st.lists(st.binary(min_size=1, max_size=30)), fields)
def test_h11_and_we_read_requests_back(requests: Read, method: bytes, head: Any, pieces: list[bytes], trailers: Any) -> None:
    data = render.request_head(request(method, b"/a?b", fields=head), CHUNKED)
    data += b"".join(render.chunk_start(len(piece)) + piece + b"\r\n" for piece in pieces) + render.last_chunk(trailers)
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    framed = ((b"transfer-encoding", b"chunked"),)
    assert (event.method, event.target, tuple(event.headers)) == (method, b"/a?b", ((b"host", b"web"), *head, *framed))
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert (body, tuple(event.headers)) == (b"".join(pieces), trailers)
    ours = requests(data, eof=True).only
    assert ours.head == (method, b"web", b"/a?b", (*head, *framed), None, (1, 1))
    assert (ours.body, ours.trailers) == (body, trailers)


@pytest.mark.slow
@given(st.integers(200, 999), fields, st.binary(max_size=30))
def test_h11_and_we_read_responses_back(responses: Read, status: int, head: Any, body: bytes) -> None:
    extra = b"" if status in (204, 304) else b"content-length: %d\r\n" % len(body)
    data = render.response_head(ResponseHead(status, head), extra) + (body if extra else b"")
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "web")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    event = client.next_event()
    assert isinstance(event, h11.Response)
    assert event.status_code == status
    assert tuple(event.headers)[: len(head)] == head
    ours = responses(data, eof=True).only
    assert (ours.head[0], ours.head[1][: len(head)], ours.complete) == (status, head, True)
    assert ours.body == (body if extra else b"")


def test_reason_phrases() -> None:
    assert render.response_head(ResponseHead(404), b"") == b"HTTP/1.1 404 Not Found\r\n\r\n"
    assert render.response_head(ResponseHead(299), b"") == b"HTTP/1.1 299 \r\n\r\n"


def test_cookies_become_one_line() -> None:
    """RFC 9113 §8.2.3: HTTP/2 may split them."""
    head = request(fields=((b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")))
    assert render.request_head(head, b"") == b"GET / HTTP/1.1\r\nhost: web\r\nx: y\r\ncookie: a=1; b=2\r\n\r\n"


EVIL = [b"a\r\nset-cookie: b", b"a\rb", b"a\nb", b"a\n", b"\r\n", b"a\0b", b"\r\n\r\nHTTP/1.1 200 OK"]


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_splits_a_message(evil: bytes) -> None:
    around = ((b"a", b"b"), (b"x", evil), (b"c", b"d"))
    for make in (
        lambda: render.response_head(ResponseHead(200, around), b""),
        lambda: render.response_head(ResponseHead(200, ((evil, b"x"),)), b""),
        lambda: render.request_head(request(fields=around), b""),
        lambda: render.request_head(request(authority=evil), b""),
        lambda: render.request_head(request(path=b"/" + evil), b""),
        lambda: render.request_head(request(method=b"GET" + evil), b""),
        lambda: render.last_chunk(around),
    ):
        with pytest.raises(Failure) as caught:
            make()
        assert caught.value.kind in (Kind.PROTOCOL, Kind.MALFORMED)


@pytest.mark.parametrize(
    ("method", "path"),
    [(b"GET", b"/a HTTP/1.1"), (b"GET /admin", b"/"), (b"GET", b"/\t"), (b"GET", b""), (b"", b"/"), (b"CONNECT", b""),
     (b"GET", "/ü".encode()), (b"G(T", b"/")],
)  # fmt: skip
def test_what_http2_carries_and_a_request_line_cannot(method: bytes, path: bytes) -> None:
    with pytest.raises(Failure) as caught:
        render.request_head(request(method, path), b"")
    assert (caught.value.kind, caught.value.blame) == (Kind.MALFORMED, Blame.CLIENT)


def test_trailers_that_frame_or_route_are_not_sent() -> None:
    """They may come from HTTP/2, where they mean nothing; a reader that merges trailers into the head would believe them."""
    assert render.last_chunk(((b"content-length", b"3"), (b"x", b"y"))) == b"0\r\nx: y\r\n\r\n"
    assert render.last_chunk(((b"host", b"evil"), (b"transfer-encoding", b"chunked"))) == b"0\r\n\r\n"


def test_only_a_shared_head_keeps_its_bytes_and_only_for_the_same_framing() -> None:
    once, shared = request(), request()
    shared.shared = True
    for head in (once, shared):
        render.request_head(head, b"")
        assert render.request_head(head, CHUNKED).endswith(CHUNKED + b"\r\n")
    assert once.rendered is None
    assert render.request_head(shared, CHUNKED) is render.request_head(shared, CHUNKED)
    answer = ResponseHead(200)
    answer.shared = True
    assert render.response_head(answer, b"") is render.response_head(answer, b"")
    assert b"chunked" in render.response_head(answer, CHUNKED)
