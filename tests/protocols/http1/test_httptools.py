"""The parser against llhttp, Node's, by way of httptools.

Where llhttp accepts and we refuse (all deliberate): no Host, two Hosts, a Host that is none, HTTP/0.9, TE in HTTP/1.0, sizes
without limits, expectations, white space and control bytes here and there. Where we accept and llhttp refuses: methods that it
does not know, and :data:`LENIENT`. What both accept must mean the same, down to the byte where the next message begins.
"""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.protocols.http1.test_parser_properties import SEEDS, Read, cut, cuts, mutants, target_of

pytestmark = pytest.mark.slow  # a second each

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nto the end",
]
SPICE = [
    b"\r\n", b"\n", b" ", b"\t", b":", b",", b"\0", b"0", b"5", b"\xff", b"chunked", b"\r\n ", b"\r\n\r\n", b"HTTP/1.0", b"204",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Content-Length: 5\r\n", b"Connection: close\r\n",
]  # fmt: skip


# What llhttp refuses and we do not: a length twice, HTTP/1.2 and above (RFC 9110 §2.5), white space before a chunk's extension
# (RFC 9112 §7.1.1). Each of its verdicts ends its reading.
LENIENT = (
    "Duplicate Content-Length",
    "Invalid character in Content-Length",
    "Invalid HTTP version",
    "Invalid character in chunk extensions",
)


class Told:
    """What httptools told: of each message its fields, body and whether it is complete."""

    def __init__(self, make: Any) -> None:
        self.messages: list[dict[str, Any]] = []
        self.parser = make(self)
        self.fault = ""

    def on_message_begin(self) -> None:
        self.messages.append({"url": b"", "headers": [], "body": b"", "trailers": [], "complete": False, "headed": False})

    def on_url(self, url: bytes) -> None:
        self.messages[-1]["url"] += url

    def on_header(self, name: bytes, value: bytes) -> None:
        last = self.messages[-1]
        last["trailers" if last["headed"] else "headers"].append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        last = self.messages[-1]
        last["headed"] = True
        last["version"] = self.parser.get_http_version()
        request = isinstance(self.parser, httptools.HttpRequestParser)
        last["start"] = self.parser.get_method() if request else self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.messages[-1]["body"] += data

    def on_message_complete(self) -> None:
        self.messages[-1]["complete"] = True

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fault = "upgrade"
        except httptools.HttpParserError as error:
            self.fault = str(error)
        return self.messages


def unknown(method: bytes) -> bool:
    """Whether llhttp does not know a method; it judges by the first bytes already."""
    told = Told(httptools.HttpRequestParser)
    told.feed(method + b" / HTTP/1.1\r\nHost: web\r\n\r\n")
    return bool(told.fault)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(mutants())
@example(b"\r\n" + SEEDS[0])
def test_what_we_accept_means_the_same_to_llhttp(requests: Read, data: bytes) -> None:
    """Method, target, fields, body, trailers, and where the next request begins."""
    ours = [message for message in requests(data, eof=True).messages if message.complete]
    told = Told(httptools.HttpRequestParser)
    theirs = told.feed(data)
    for at, message in enumerate(ours):
        if unknown(message.head[0]) or message.framing.upgrades:
            return
        if at >= len(theirs) and not ours[at - 1].framing.keep_alive:
            return  # llhttp reads nothing behind a request that ends its connection, and we do not answer it
        if told.fault in LENIENT and at >= len(theirs) - 1:
            return
        assert at < len(theirs), told.fault
        other = theirs[at]
        assert other["complete"], told.fault
        method, _, _, fields, _, version = message.head
        assert (other["start"], other["body"], other["version"]) == (method, message.body, f"{version[0]}.{version[1]}")
        target = target_of(message)
        assert other["url"].endswith(target) or target in (b"/", b"*") or target.startswith(b"/?")
        kept = [field for field in other["headers"] if field[0] not in (b"host", b"expect", b"content-length")]
        assert kept == [field for field in fields if field[0] != b"content-length"]
        assert set(message.trailers) <= set(other["trailers"])


@st.composite
def mutated_answers(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(ANSWERS))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(SPICE)) + data[at + draw(st.integers(0, 3)) :]
    return data


@settings(derandomize=True, max_examples=100, deadline=None)
@given(mutated_answers())
def test_what_we_accept_of_an_answer_means_the_same_to_llhttp(responses: Read, data: bytes) -> None:
    transcript = responses(data, eof=True)
    ours = [message for message in transcript.messages if message.complete]
    told = Told(httptools.HttpResponseParser)
    theirs = [message for message in told.feed(data) if message.get("start", 0) >= 200]
    for message, other in zip(ours, theirs, strict=False):
        if told.fault in LENIENT and other is theirs[-1]:
            return
        status, fields, _ = message.head
        assert other["start"] == status
        assert other["body"] == message.body
        if not message.framing.until_eof:  # of that llhttp is told by nobody
            assert other["complete"], told.fault
        kept = [field for field in other["headers"] if field[0] != b"content-length"]
        assert kept == [field for field in fields if field[0] != b"content-length"]
    assert len(theirs) >= len(ours) or told.fault in LENIENT, told.fault


@settings(max_examples=40, deadline=None)
@given(mutated_answers(), cuts)
def test_where_the_bytes_of_an_answer_are_cut_makes_no_difference(responses: Read, data: bytes, at: list[int]) -> None:
    whole = responses(data, eof=True)
    for pieces in (cut(data, at), [data[i : i + 1] for i in range(len(data))]):
        other = responses(*pieces, eof=True)
        assert (other.status, other.informational) == (whole.status, whole.informational)
        assert [message for message in other.messages if message.complete] == [
            message for message in whole.messages if message.complete
        ]
