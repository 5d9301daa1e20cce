"""The parser against itself cut otherwise, and against h11.

Where h11 accepts and we refuse (all deliberate): bare LF; folded lines; Content-Length with Transfer-Encoding; white space
around a chunk's size; control bytes in chunk extensions; sizes above 15 digits; Transfer-Encoding in HTTP/1.0; hosts, targets
and expectations that make no sense; HTTP/2 and above; CONNECT; user information; Connection naming Content-Length.
Where we accept and h11 refuses: one empty line in front of a request (RFC 9112 §2.2). What both accept must mean the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytestmark = pytest.mark.slow  # a second each

Read = Callable[..., Any]
tokens = st.text("ABCdefxyz019!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
names = tokens.map(lambda token: b"X-" + token)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from("\t\x80\xff"), max_size=20).map(
    lambda text: text.encode("latin-1").strip(b" \t")
)
fields = st.lists(st.tuples(names, values), max_size=6)
targets = st.text("/abc?=&%20;:@", max_size=20).map(lambda text: b"/" + text.encode())
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


@st.composite
def messages(draw: st.DrawFn, start: Callable[[st.DrawFn], Any]) -> tuple[Any, list[bytes], list[tuple[bytes, bytes]], bool]:
    """What is to be sent: a head without framing, pieces of body, trailers, and whether it goes in chunks."""
    chunked = draw(st.booleans())
    return start(draw), draw(bodies), draw(fields) if chunked else [], chunked


def a_request(draw: st.DrawFn) -> Any:
    return draw(tokens.filter(lambda token: token != b"CONNECT")), draw(targets), draw(fields)


def a_response(draw: st.DrawFn) -> Any:
    return draw(st.integers(200, 599).filter(lambda status: status not in (204, 304))), draw(fields)


def framing(pieces: list[bytes], chunked: bool) -> list[tuple[bytes, bytes]]:
    if chunked:
        return [(b"Transfer-Encoding", b"chunked")]
    return [(b"Content-Length", b"%d" % sum(map(len, pieces)))]


def sent_by_h11(connection: h11.Connection, head: Any, pieces: list[bytes], trailers: Any) -> bytes:
    events = [head, *(h11.Data(data=piece) for piece in pieces), h11.EndOfMessage(headers=trailers)]
    return b"".join(connection.send(event) or b"" for event in events)


def lowered(pairs: Any) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((bytes(name).lower(), bytes(value)) for name, value in pairs)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


cuts = st.lists(st.integers(0, 5000), max_size=12)


@given(st.lists(messages(a_request), min_size=1, max_size=3), cuts)
def test_requests_that_h11_writes(requests: Read, conversation: list[Any], at: list[int]) -> None:
    client, data = h11.Connection(h11.CLIENT), b""
    for (method, target, extra), pieces, trailers, chunked in conversation:
        head = h11.Request(method=method, target=target, headers=[(b"Host", b"web"), *extra, *framing(pieces, chunked)])
        data += sent_by_h11(client, head, pieces, trailers)
        client = h11.Connection(h11.CLIENT)
    transcript = requests(*cut(data, at), eof=True)
    assert transcript == requests(data, eof=True)
    assert transcript.status is None, transcript.why
    for message, ((method, target, extra), pieces, trailers, chunked) in zip(transcript.messages, conversation, strict=True):
        length = None if chunked else sum(map(len, pieces))
        assert message.head == (method, b"web", target, lowered([*extra, *framing(pieces, chunked)]), length, (1, 1))
        assert (message.body, message.trailers, message.complete) == (b"".join(pieces), lowered(trailers), True)


@given(st.lists(messages(a_response), min_size=1, max_size=3), cuts)
def test_responses_that_h11_writes(responses: Read, conversation: list[Any], at: list[int]) -> None:
    data = b""
    for (status, extra), pieces, trailers, chunked in conversation:
        server = h11.Connection(h11.SERVER)
        server.receive_data(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        server.next_event()
        head = h11.Response(status_code=status, headers=[*extra, *framing(pieces, chunked)], reason=b"x")
        data += sent_by_h11(server, head, pieces, trailers)
    methods = [b"GET"] * len(conversation)
    transcript = responses(*cut(data, at), methods=methods, eof=True)
    assert transcript == responses(data, methods=methods, eof=True)
    assert transcript.status is None, transcript.why
    for message, ((status, extra), pieces, trailers, chunked) in zip(transcript.messages, conversation, strict=True):
        length = None if chunked else sum(map(len, pieces))
        assert message.head == (status, lowered([*extra, *framing(pieces, chunked)]), length)
        assert (message.body, message.trailers, message.complete) == (b"".join(pieces), lowered(trailers), True)


# -- mutated traffic ------------------------------------------------------------------------------------------

SEEDS = [
    b"GET /a HTTP/1.1\r\nHost: web\r\nX: y\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"GET http://a.b:1/?c HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
]
SPICE = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b";", b",", b"\0", b"0", b"5", b"\xff", b"/", b"chunked", b"\r\n ", b"\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Content-Length: 5\r\n", b"Host: b\r\n", b"x", b"HTTP/1.0",
]  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Up to three edits of up to two pipelined requests."""
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(SPICE)) + data[at + draw(st.integers(0, 3)) :]
    return data


@given(mutants(), cuts)
@example(b"\r\n\r\n" + SEEDS[0], [2])
def test_where_bytes_are_cut_makes_no_difference(requests: Read, data: bytes, at: list[int]) -> None:
    whole = requests(data, eof=True)
    for pieces in (cut(data, at), [data[i : i + 1] for i in range(len(data))]):
        other = requests(*pieces, eof=True)
        assert other.status == whole.status
        assert [m for m in other.messages if m.complete] == [m for m in whole.messages if m.complete]


def read_by_h11(data: bytes) -> list[tuple[bytes, bytes, bytes, bool]]:
    """Method, target, body and whether it ended, of each request up to the first fault."""
    seen: list[tuple[bytes, bytes, bytes, bool]] = []
    while True:
        server = h11.Connection(h11.SERVER)
        server.receive_data(data.removeprefix(b"\r\n"))
        try:
            event = server.next_event()
            if not isinstance(event, h11.Request):
                return seen
            seen.append((event.method, event.target, b"", False))
            while True:
                event = server.next_event()
                if isinstance(event, h11.Data):
                    seen[-1] = (*seen[-1][:2], seen[-1][2] + bytes(event.data), False)
                elif isinstance(event, h11.EndOfMessage):
                    seen[-1] = (*seen[-1][:3], True)
                    break
                else:
                    return seen
        except h11.RemoteProtocolError:
            return seen
        data = server.trailing_data[0]


def target_of(message: Any) -> bytes:
    return bytes(message.head[2])


@given(mutants())
@example(b"\r\n" + SEEDS[0])
def test_what_we_accept_means_the_same_to_h11(requests: Read, data: bytes) -> None:
    """Method, body and the place where the next request begins: what a smuggler would have two readers disagree about."""
    ours = [m for m in requests(data, eof=True).messages if m.complete]
    theirs = read_by_h11(data)
    assert len(theirs) >= len(ours)
    for message, (method, target, body, complete) in zip(ours, theirs, strict=False):
        assert complete
        assert (message.head[0], message.body) == (method, body)
        assert target.endswith(target_of(message)) or target_of(message) in (b"/", b"*") or target_of(message).startswith(b"/?")
