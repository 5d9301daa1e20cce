"""HTTP/1.1 framing and strictness: the table of rules, chunking invariance, and h11 as the other opinion."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.http1.core import Limits, RequestParser, ResponseParser
from protocols.http1.render import last_chunk, request_head, response_head
from protocols.http1.rules import ProtocolFault
from router.model.failure import Failure
from router.model.headers import RequestHead, ResponseHead

HOST = b"host: a\r\n"


class Log:
    """Everything that a parser told, body bytes joined."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def on_request(self, head: RequestHead, framing: Any) -> None:
        self.log.append(("request", head.method, head.authority, head.path, head.fields, head.version, framing.keep_alive))

    def on_response(self, head: ResponseHead, framing: Any) -> None:
        self.log.append(("response", head.status, head.fields))

    def on_informational(self, head: ResponseHead) -> None:
        self.log.append(("informational", head.status))

    def on_body(self, data: bytes) -> None:
        if self.log[-1][0] == "body":
            data = self.log.pop()[1] + data
        self.log.append(("body", data))

    def on_end(self, trailers: Any) -> None:
        self.log.append(("end", trailers))


def requests(pieces: list[bytes], limits: Limits | None = None) -> list[Any]:
    """What a request parser makes of the pieces; a fault ends the log with its status."""
    log = Log()
    parser = RequestParser(log, limits or Limits())
    try:
        for piece in pieces:
            parser.feed(piece)
            parser.resume()
        while parser.buffered and parser.state == 7:
            parser.resume()
    except ProtocolFault as fault:
        log.log.append(("fault", fault.status))
    return log.log


def responses(method: bytes, pieces: list[bytes], *, eof: bool = False) -> list[Any]:
    log = Log()
    parser = ResponseParser(log, Limits())
    parser.expect(method)
    try:
        for piece in pieces:
            parser.feed(piece)
        if eof:
            parser.eof()
    except ProtocolFault as fault:
        log.log.append(("fault", fault.status))
    return log.log


REFUSED = {
    "bare LF": (b"GET / HTTP/1.1\nhost: a\n\n", 400),
    "bare LF in headers": (b"GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", 400),
    "length and coding": (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", 400),
    "length list": (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 5, 6\r\n\r\n", 400),
    "signed length": (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: +5\r\n\r\n", 400),
    "folded line": (b"GET / HTTP/1.1\r\n" + HOST + b"x: a\r\n b\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "coding in 1.0": (b"POST / HTTP/1.0\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n", 400),
    "coding not chunked": (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: gzip\r\n\r\n", 400),
    "chunked not last": (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked, gzip\r\n\r\n", 400),
    "chunked twice": (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked, chunked\r\n\r\n", 400),
    "obfuscated coding": (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: \x0bchunked\r\n\r\n", 400),
    "chunk size with space": (
        b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        400,
    ),
    "chunk size 0x": (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
    "chunk size too long": (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n", 400),
    "chunk longer than said": (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", 400),
    "chunk line with LF": (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\n" + HOST + b"x: a\0b\r\n\r\n", 400),
    "UTF-8 in the target": ("GET /ü HTTP/1.1\r\n".encode() + HOST + b"\r\n", 400),
    "empty name": (b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n", 400),
    "relative target": (b"GET x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "host with a slash": (b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
    "two empty lines": (b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "other expectation": (b"GET / HTTP/1.1\r\n" + HOST + b"expect: magic\r\n\r\n", 417),
    "CONNECT without a port": (b"CONNECT a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "long line": (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "long headers": (b"GET / HTTP/1.1\r\n" + HOST + b"x: " + b"y" * 9000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + HOST + b"x: y\r\n" * 101 + b"\r\n", 431),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    data, status = REFUSED[name]
    assert requests([data])[-1] == ("fault", status)
    assert requests([data[at : at + 1] for at in range(len(data))])[-1] == ("fault", status)


def test_endless_heads_are_refused_before_they_end() -> None:
    assert requests([b"x" * 5000])[-1] == ("fault", 414)
    assert requests([b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 2000])[-1] == ("fault", 431)


@pytest.mark.parametrize("method", [b"GET", b"FOO", b"X-PURGE", b"M-SEARCH"])
@pytest.mark.parametrize("version", [b"1.1", b"1.2"])
def test_any_token_is_a_method_and_later_versions_are_1_1(method: bytes, version: bytes) -> None:
    log = requests([method + b" / HTTP/" + version + b"\r\n" + HOST + b"\r\n"])
    assert log[0][1] == method
    assert log[0][5] == (1, 1)


def test_equal_lengths_collapse_and_one_empty_line_is_skipped() -> None:
    log = requests([b"\r\nPOST / HTTP/1.1\r\n" + HOST + b"content-length: 2\r\ncontent-length: 2\r\n\r\nhi"])
    assert log[0][4] == ((b"content-length", b"2"),)
    assert log[1:] == [("body", b"hi"), ("end", ())]


def test_absolute_form_wins_over_host() -> None:
    log = requests([b"GET http://b:80/x?y HTTP/1.1\r\n" + HOST + b"\r\n", b"GET http://b?q HTTP/1.1\r\n" + HOST + b"\r\n"])
    assert [entry[2:4] for entry in log] == [(b"b:80", b"/x?y"), (b"b", b"/?q")]


def test_keep_alive_by_version_and_option() -> None:
    kept = [
        requests([b"GET / HTTP/1." + version + b"\r\n" + HOST + b"connection: " + option + b"\r\n\r\n"])[0][6]
        for version, option in ((b"1", b"x"), (b"1", b"Close"), (b"0", b"x"), (b"0", b"Keep-Alive"), (b"1", b"a, close"))
    ]
    assert kept == [True, False, False, True, False]


def test_pipelined_requests_wait_for_resume() -> None:
    log = Log()
    parser = RequestParser(log, Limits())
    one = b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\n"
    parser.feed(one + one.replace(b" /1 ", b" /2 "))
    assert [entry[3] for entry in log.log] == [b"/1"]
    assert parser.buffered
    parser.resume()
    assert [entry[3] for entry in log.log] == [b"/1", b"/2"]


def test_a_repeated_head_is_the_same_object() -> None:
    heads: list[RequestHead] = []
    log = Log()
    log.on_request = lambda head, framing: heads.append(head)  # type: ignore[method-assign]
    parser = RequestParser(log, Limits())
    for path in (b"/a", b"/a", b"/b", b"/a"):
        parser.feed(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        parser.resume()
    assert heads[0] is heads[1]
    assert heads[1].shared
    assert heads[3] is not heads[0]


CHUNKED = (
    b"POST /up HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"
    b"5;ext=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nx-sum: 11\r\nhost: evil\r\n\r\n"
)  # fmt: skip


def test_trailers_are_told_apart_and_filtered() -> None:
    log = requests([CHUNKED])
    assert log[1:] == [("body", b"hello world"), ("end", ((b"x-sum", b"11"),))]


@given(st.lists(st.integers(1, 40), max_size=40), st.booleans())
def test_cuts_make_no_difference(cuts: list[int], trailing: bool) -> None:
    data = CHUNKED + b"POST /2 HTTP/1.1\r\n" + HOST + b"content-length: 3\r\n\r\nabc" + (b"GET" if trailing else b"")
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    assert requests([*pieces, data[at:]]) == requests([data])


names = st.sampled_from(["x-a", "X-B", "accept", "Via", "cookie"])
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=10)


@settings(deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PATCH"]),
    st.lists(st.tuples(names, values), max_size=6),
    st.binary(max_size=50),
    st.booleans(),
)
def test_h11_writes_and_we_read(method: str, headers: list[tuple[str, str]], body: bytes, chunked: bool) -> None:
    framing = [("transfer-encoding", "chunked")] if chunked else [("content-length", str(len(body)))]
    peer = h11.Connection(h11.CLIENT)
    data = peer.send(h11.Request(method=method, target="/t", headers=[("host", "a"), *headers, *framing])) or b""
    data += (peer.send(h11.Data(data=body)) or b"") + (peer.send(h11.EndOfMessage()) or b"")
    log = requests([data])
    kept = [(name.lower().encode(), value.encode()) for name, value in headers]
    assert [field for field in log[0][4] if field[0] not in (b"transfer-encoding", b"content-length")] == kept
    assert b"".join(entry[1] for entry in log if entry[0] == "body") == body
    assert any(entry[0] == "end" for entry in log) or not (body or chunked)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 70), st.sampled_from(list(b"\r\n :;,x5\0\t/")))))
def test_what_we_accept_h11_accepts(mutations: list[tuple[int, int]]) -> None:
    data = bytearray(b"POST /t HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nx: y\r\n\r\nhello")
    for at, byte in mutations:
        if at < len(data):
            data[at] = byte
    log = requests([bytes(data)])
    if log and log[0][0] == "request" and log[-1][0] != "fault" and log[0][6] and log[0][5] == (1, 1):
        peer = h11.Connection(h11.SERVER)
        peer.receive_data(bytes(data))
        event = peer.next_event()
        assert isinstance(event, h11.Request)
        assert (event.method, dict(event.headers).get(b"content-length")) == (log[0][1], dict(log[0][4]).get(b"content-length"))


@pytest.mark.parametrize(
    ("method", "data", "log"),
    [
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", [204]),
        (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", [200]),
        (b"GET", b"HTTP/1.1 304 \r\ncontent-length: 5\r\n\r\n", [304]),
        (b"GET", b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi", [200, b"hi", "end"]),
        (b"GET", b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", [103, 200]),
        (b"GET", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n", [502]),
        (b"GET", b"HTTP/1.1 101 x\r\n\r\n", [502]),
        (b"GET", b"nonsense\r\n\r\n", [502]),
        (b"GET", b"HTTP/1.1 103 x\r\n\r\n" * 40, [103] * 32 + [502]),
    ],
)
def test_responses(method: bytes, data: bytes, log: list[Any]) -> None:
    seen = responses(method, [data])
    assert [entry[0] if entry[0] == "end" else entry[1] for entry in seen] == log


def test_bodies_that_end_with_the_connection_and_those_that_must_not() -> None:
    assert responses(b"GET", [b"HTTP/1.1 200 OK\r\n\r\nall"], eof=True)[1:] == [("body", b"all"), ("end", ())]
    assert responses(b"GET", [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall"], eof=True)[-1] == ("fault", 502)
    cut = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n"
    assert responses(b"GET", [cut], eof=True)[-1] == ("fault", 502)


def test_heads_are_rendered_and_never_split() -> None:
    head = RequestHead(b"GET", b"http", b"a", b"/x", ((b"x", b"1"), (b"cookie", b"a=1"), (b"cookie", b"b=2")))
    assert request_head(head, b"") == b"GET /x HTTP/1.1\r\nhost: a\r\nx: 1\r\ncookie: a=1; b=2\r\n\r\n"
    assert response_head(ResponseHead(404), b"x: y\r\n") == b"HTTP/1.1 404 Not Found\r\nx: y\r\n\r\n"
    assert last_chunk(((b"x", b"1"),)) == b"0\r\nx: 1\r\n\r\n"
    for evil in (b"a\r\nset-cookie: x", b"a\nb", b"a\0"):
        with pytest.raises(Failure):
            response_head(ResponseHead(200, ((b"x", evil),)), b"")
