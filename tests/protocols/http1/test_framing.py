"""Where messages end: limits, pipelining, responses without bodies, and truncation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocols.http1.core import DONE, IDLE, MAX_INFORMATIONAL, Limits, RequestParser, ResponseParser
from protocols.http1.rules import MAX_FIELDS, Framing, ProtocolFault
from router.model.headers import Fields, RequestHead, ResponseHead

Read = Callable[..., Any]
LIMITS = Limits(line=64, headers=48, chunk_line=10, trailers=20)
CHUNKED = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def line_of(size: int) -> bytes:
    return b"GET /" + b"x" * (size - 14) + b" HTTP/1.1" + b"\r\nHost: web\r\n\r\n"


def headers_of(size: int) -> bytes:
    """The limit counts each line with the CRLF in front of it."""
    return b"GET / HTTP/1.1\r\nHost: web\r\nX: " + b"x" * (size - 16) + b"\r\n\r\n"


def chunk_line_of(size: int) -> bytes:
    return CHUNKED + b"0;" + b"x" * (size - 2) + b"\r\n\r\n"


def trailers_of(size: int) -> bytes:
    return CHUNKED + b"0\r\nX: " + b"x" * (size - 3) + b"\r\n\r\n"


class Waiting:
    """Takes events and does not go on by itself."""

    def __init__(self) -> None:
        self.heads: list[RequestHead | ResponseHead] = []
        self.bodies: list[bytes] = []
        self.ends = 0

    def on_request(self, head: RequestHead, framing: Framing) -> None:
        self.heads.append(head)

    def on_response(self, head: ResponseHead, framing: Framing) -> None:
        self.heads.append(head)

    def on_informational(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def on_body(self, data: bytes) -> None:
        self.bodies.append(data)

    def on_end(self, trailers: Fields) -> None:
        self.ends += 1


# -- limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [b"", b"\r\n"])
@pytest.mark.parametrize(
    ("make", "size", "status"), [(line_of, 64, 414), (headers_of, 48, 431), (chunk_line_of, 10, 400), (trailers_of, 20, 431)]
)
def test_limits_to_the_byte(requests: Read, make: Callable[[int], bytes], size: int, status: int, prefix: bytes) -> None:
    limits = LIMITS if make in (line_of, headers_of) else Limits(chunk_line=10, trailers=20)
    fits, exceeds = prefix + make(size), prefix + make(size + 1)
    assert requests(fits, limits=limits) == requests(*bytewise(fits), limits=limits)
    assert requests(fits, limits=limits).only.complete
    assert requests(exceeds, limits=limits).status == status
    assert requests(*bytewise(exceeds), limits=limits).status == status


def test_a_long_line_is_not_taken_for_long_headers(requests: Read) -> None:
    """A line may be longer than all headers together; whether it is complete yet makes no difference."""
    limits = Limits(line=4096, headers=1024)
    data = line_of(3000)
    assert requests(data[:2000], data[2000:], limits=limits).only.complete


@pytest.mark.parametrize("data", [b"x" * 66, b"GET / HTTP/1.1\r\nX: " + b"x" * 66, CHUNKED + b"0;" + b"x" * 300,
                                  CHUNKED + b"0\r\nX: " + b"x" * 9000])  # fmt: skip
def test_what_exceeds_a_limit_is_refused_before_it_is_complete(requests: Read, data: bytes) -> None:
    limits = LIMITS if not data.startswith(b"POST") else Limits()
    assert requests(data, limits=limits).status is not None


def test_as_many_fields_as_allowed(requests: Read) -> None:
    def head(count: int) -> bytes:
        return GET[:-2] + b"X: y\r\n" * (count - 1) + b"\r\n"

    assert len(requests(head(MAX_FIELDS)).only.head[3]) == MAX_FIELDS - 1  # Host has become the authority
    assert requests(head(MAX_FIELDS + 1)).status == 431
    assert requests(CHUNKED + b"0\r\n" + b"X: y\r\n" * (MAX_FIELDS + 1) + b"\r\n").status == 431


def test_responses_have_limits_too(responses: Read) -> None:
    for data in (b"HTTP/1.1 200 " + b"x" * 64, b"HTTP/1.1 200 \r\nX: " + b"x" * 66, b"HTTP/1.1 200 \r\n" + b"X: y\r\n" * 101):
        assert responses(data, limits=LIMITS).status == 502


def test_tiny_chunks_do_not_copy_what_follows_them() -> None:
    """They did, and a read of 256 KiB of them moved gigabytes."""
    data = b"1\r\nx\r\n" * 100
    parser: RequestParser

    class Watching(Waiting):
        def on_body(self, body: bytes) -> None:
            super().on_body(body)
            assert parser._buffer is data

    events = Watching()
    parser = RequestParser(events, Limits())
    parser.feed(CHUNKED)
    parser.feed(data)
    assert b"".join(events.bodies) == b"x" * 100
    assert parser.buffered == 0


# -- pipelining -----------------------------------------------------------------------------------------------


def test_nothing_is_parsed_before_resume() -> None:
    events = Waiting()
    parser = RequestParser(events, Limits())
    parser.feed(GET + b"nonsense\r\n\r\n")
    assert len(events.heads) == 1
    assert parser.state == DONE
    assert parser.buffered == 12
    parser.feed(b"more")
    assert parser.buffered == 16
    with pytest.raises(ProtocolFault):
        parser.resume()


def test_resume_within_a_message_changes_nothing() -> None:
    events = Waiting()
    parser = RequestParser(events, Limits())
    parser.feed(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nab")
    parser.resume()
    parser.feed(b"cd")
    assert (events.bodies, events.ends, parser.state, parser.buffered) == ([b"ab", b"cd"], 1, DONE, 0)


@pytest.mark.parametrize("message", [GET, CHUNKED + b"1\r\nx\r\n0\r\n\r\n"])
def test_thousands_of_pipelined_requests_do_not_nest(requests: Read, message: bytes) -> None:
    """The recorder resumes within the events, as a router does that refuses each request at once."""
    transcript = requests(message * 3000, eof=True)
    assert transcript.status is None
    assert [m.complete for m in transcript.messages] == [True] * 3000


def test_a_parser_can_be_used_after_an_event_has_raised() -> None:
    class Broken(Waiting):
        def on_request(self, head: RequestHead, framing: Framing) -> None:
            super().on_request(head, framing)
            if len(self.heads) == 1:
                raise ValueError

    events = Broken()
    parser = RequestParser(events, Limits())
    with pytest.raises(ValueError):
        parser.feed(GET + GET)
    parser.resume()
    assert len(events.heads) == 2


def test_an_idle_parser_holds_no_bytes() -> None:
    parser = RequestParser(Waiting(), Limits())
    parser.feed(GET)
    parser.resume()
    assert (parser._buffer, parser.state) == (b"", IDLE)


def test_a_body_is_not_copied() -> None:
    events = Waiting()
    parser = RequestParser(events, Limits())
    parser.feed(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000\r\n\r\n")
    data = b"x" * 50000
    parser.feed(data)
    assert events.bodies[0] is data


# -- repeated heads -------------------------------------------------------------------------------------------


def test_a_head_seen_before_is_shared_and_frames_the_same() -> None:
    events = Waiting()
    parser = RequestParser(events, Limits())
    for body in (b"ab", b"cd", b"ef"):
        parser.feed(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\n" + body)
        parser.resume()
    assert events.bodies == [b"ab", b"cd", b"ef"]
    assert events.heads[0] is events.heads[1] is events.heads[2]
    assert events.heads[0].shared


def test_the_same_response_to_another_method_has_another_body() -> None:
    events = Waiting()
    parser = ResponseParser(events, Limits())
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    for method, data in ((b"HEAD", head), (b"GET", head + b"ab"), (b"HEAD", head), (b"HEAD", head)):
        parser.expect(method)
        parser.feed(data)
        assert parser.state == DONE
    assert events.bodies == [b"ab"]
    assert events.heads[0] is not events.heads[1]
    assert events.heads[2] is events.heads[3]


# -- responses ------------------------------------------------------------------------------------------------

BODILESS = [
    (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 5),
    (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n", None),
    (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 5),
    (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", None),
    (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0),
]


@pytest.mark.parametrize(("method", "data", "length"), BODILESS)
def test_responses_without_a_body(responses: Read, method: bytes, data: bytes, length: int | None) -> None:
    for pieces in ([data * 2], bytewise(data * 2)):
        transcript = responses(*pieces, methods=[method, method], eof=True)
        assert transcript.status is None
        assert [(m.head[2], m.body, m.complete) for m in transcript.messages] == [(length, b"", True)] * 2


def test_a_204_does_not_declare_a_length(responses: Read) -> None:
    """RFC 9110 §8.6; a reader that believes it would wait for the body or take the next response for it."""
    assert responses(BODILESS[5][1]).only.head[1] == ()


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 200 OK\r\n\r\nall of it", b"HTTP/1.0 200\r\nConnection: keep-alive\r\n\r\nall of it"]
)
def test_a_body_until_the_end_of_the_connection(responses: Read, data: bytes) -> None:
    for pieces in ([data], bytewise(data)):
        parts = responses(*pieces)
        assert not parts.only.complete
        assert parts.only.framing == Framing(0, False, True, False)
        whole = responses(*pieces, eof=True)
        assert (whole.only.body, whole.only.complete, whole.status) == (b"all of it", True, None)


def test_an_empty_body_until_the_end_of_the_connection(responses: Read) -> None:
    assert responses(b"HTTP/1.1 200 OK\r\n\r\n", eof=True).only.complete


REFUSED = {
    "CL and TE": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "differing CL": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "TE in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "TE: gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "TE: gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "CL hidden by Connection": b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 0xx": b"HTTP/1.1 099 OK\r\n\r\n",
    "control byte in the reason": b"HTTP/1.1 200 \x01\r\n\r\n",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 OK\r\n\r\n",
    "ICY": b"ICY 200 OK\r\n\r\n",
    "a request": GET,
}


@pytest.mark.parametrize("name", REFUSED)
def test_responses_that_are_refused(responses: Read, name: str) -> None:
    for pieces in ([REFUSED[name]], bytewise(REFUSED[name])):
        transcript = responses(*pieces)
        assert transcript.status == 502
        assert transcript.messages == []


def test_expect_in_a_response_means_nothing(responses: Read) -> None:
    assert responses(b"HTTP/1.1 200 OK\r\nExpect: a miracle\r\nContent-Length: 0\r\n\r\n").only.complete


def test_informational_responses_come_first_and_are_bounded(responses: Read) -> None:
    early, final = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    both = b"HTTP/1.1 100 Continue\r\n\r\n" + early + final
    for pieces in ([both], bytewise(both)):
        transcript = responses(*pieces)
        assert (transcript.informational, transcript.only.head[0], transcript.status) == ([100, 103], 200, None)
    assert responses(early * MAX_INFORMATIONAL + final).only.complete
    assert responses(early * (MAX_INFORMATIONAL + 1) + final).status == 502
    many = responses(*([early * MAX_INFORMATIONAL + final] * 2), methods=[b"GET"] * 2)
    assert [m.complete for m in many.messages] == [True, True]


def test_a_response_that_nobody_asked_for_is_not_parsed() -> None:
    events = Waiting()
    parser = ResponseParser(events, Limits())
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert events.heads == []
    assert parser.buffered


# -- truncation -----------------------------------------------------------------------------------------------

WHOLE = {
    "chunked": CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    "by length": b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc",
    "head only": GET,
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_request_is_a_fault_wherever_it_is_cut(requests: Read, name: str) -> None:
    data = WHOLE[name]
    assert requests(data, eof=True).status is None
    for at in range(1, len(data)):
        transcript = requests(data[:at], eof=True)
        assert transcript.status == 400, at
        assert not any(message.complete for message in transcript.messages)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_a_truncated_response_is_a_fault_wherever_it_is_cut(responses: Read, framing: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + framing
    assert responses(data, eof=True).only.complete
    for at in range(1, len(data)):
        transcript = responses(data[:at], eof=True)
        assert transcript.status == 502, at
        assert not any(message.complete for message in transcript.messages)


def test_no_response_at_all_is_no_response(responses: Read) -> None:
    assert responses(b"", eof=True).messages == []
    assert responses(b"HTTP/1.1 100 Continue\r\n\r\n", eof=True).messages == []
