"""What is accepted and what is not: smuggling lives in the difference between two readers of the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocols.http1.rules import Known, ProtocolFault, parse_request

Read = Callable[..., Any]


def get(*lines: bytes, start: bytes = b"GET /a?b HTTP/1.1", host: bytes = b"Host: web\r\n") -> bytes:
    return start + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return get(*lines, start=b"POST / HTTP/1.1") + body


CHUNKED = b"Transfer-Encoding: chunked"

REFUSED = {
    # line ends
    "bare LF": (b"GET / HTTP/1.1\nHost: web\n\n", 400),
    "bare LF after the request line": (b"GET / HTTP/1.1\nHost: web\r\n\r\n", 400),
    "bare LF after a header": (b"GET / HTTP/1.1\r\nHost: web\nX: y\r\n\r\n", 400),
    "bare LF as the empty line": (b"GET / HTTP/1.1\r\nHost: web\r\n\n", 400),
    "bare CR in a value": (get(b"X: a\rb"), 400),
    "CR CR LF": (get(b"X: a\r"), 400),
    "two empty lines first": (b"\r\n\r\n" + get(), 400),
    "an empty line of LF first": (b"\n" + get(), 400),
    # request line
    "two spaces after the method": (get(start=b"GET  / HTTP/1.1"), 400),
    "two spaces before the version": (get(start=b"GET /  HTTP/1.1"), 400),
    "tab for a space": (get(start=b"GET\t/ HTTP/1.1"), 400),
    "space first": (get(start=b" GET / HTTP/1.1"), 400),
    "space last": (get(start=b"GET / HTTP/1.1 "), 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "no target": (get(start=b"GET HTTP/1.1"), 400),
    "method that is no token": (get(start=b"G(T / HTTP/1.1"), 400),
    "lower-case protocol name": (get(start=b"GET / http/1.1"), 400),
    "two digits of minor version": (get(start=b"GET / HTTP/1.10"), 400),
    "UTF-8 in the target": (get(start="GET /ü HTTP/1.1".encode()), 400),
    "control byte in the target": (get(start=b"GET /\x01 HTTP/1.1"), 400),
    "NUL in the target": (get(start=b"GET /\x00 HTTP/1.1"), 400),
    "DEL in the target": (get(start=b"GET /\x7f HTTP/1.1"), 400),
    "HTTP/2.0": (get(start=b"GET / HTTP/2.0"), 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "relative target": (get(start=b"GET a HTTP/1.1"), 400),
    "asterisk without OPTIONS": (get(start=b"GET * HTTP/1.1"), 400),
    "CONNECT to no port": (get(start=b"CONNECT web:0 HTTP/1.1"), 400),
    "CONNECT with a path": (get(start=b"CONNECT / HTTP/1.1"), 400),
    "CONNECT with a body": (get(b"Content-Length: 1", start=b"CONNECT web:443 HTTP/1.1") + b"x", 400),
    "another scheme": (get(start=b"GET ftp://web/ HTTP/1.1"), 400),
    # authority
    "no Host": (get(host=b""), 400),
    "no Host beside an absolute target": (get(start=b"GET http://web/ HTTP/1.1", host=b""), 400),
    "two Hosts": (get(b"Host: other"), 400),
    "two equal Hosts": (get(b"Host: web"), 400),
    "two Hosts in HTTP/1.0": (get(b"Host: web", start=b"GET / HTTP/1.0"), 400),
    "space in Host": (get(host=b"Host: a b\r\n"), 400),
    "slash in Host": (get(host=b"Host: a/b\r\n"), 400),
    "user in Host": (get(host=b"Host: trusted@evil\r\n"), 400),
    "port that is no number": (get(host=b"Host: a:b\r\n"), 400),
    "two ports": (get(host=b"Host: a:1:2\r\n"), 400),
    "bracket within Host": (get(host=b"Host: a[b\r\n"), 400),
    "user in the target": (get(start=b"GET http://trusted@evil/ HTTP/1.1"), 400),
    "target without a host": (get(start=b"GET http:///a HTTP/1.1"), 400),
    "fragment as authority": (get(start=b"GET http://web#x HTTP/1.1"), 400),
    # headers
    "folded line": (get(b"X: a", b" b"), 400),
    "folded first line": (b"GET / HTTP/1.1\r\n Host: web\r\n\r\n", 400),
    "space before the colon": (get(b"X : a"), 400),
    "tab before the colon": (get(b"X\t: a"), 400),
    "no colon": (get(b"X"), 400),
    "no name": (get(b": a"), 400),
    "name that is no token": (get(b"X(): a"), 400),
    "NUL in a name": (get(b"X\x00: a"), 400),
    "NUL in a value": (get(b"X: a\x00b"), 400),
    "control byte in a value": (get(b"X: \x0b"), 400),
    "DEL in a value": (get(b"X: \x7f"), 400),
    "unknown expectation": (get(b"Expect: a miracle"), 417),
    # framing
    "CL and TE": (post(b"Content-Length: 3", CHUNKED), 400),
    "TE and CL": (post(CHUNKED, b"Content-Length: 3"), 400),
    "CL of 0 and TE": (post(CHUNKED, b"Content-Length: 0"), 400),
    "TE in HTTP/1.0": (get(CHUNKED, start=b"POST / HTTP/1.0"), 400),
    "TE: identity": (post(b"Transfer-Encoding: identity"), 400),
    "TE: gzip": (post(b"Transfer-Encoding: gzip"), 400),
    "TE: gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked"), 501),
    "TE: gzip; chunked in a second line": (post(b"Transfer-Encoding: gzip", CHUNKED), 501),
    "TE: chunked, gzip": (post(b"Transfer-Encoding: chunked, gzip"), 400),
    "TE: chunked twice": (post(CHUNKED, CHUNKED), 400),
    "TE: chunked, chunked": (post(b"Transfer-Encoding: chunked, chunked"), 400),
    "TE: , chunked": (post(b"Transfer-Encoding: , chunked"), 501),
    "TE: chunked,": (post(b"Transfer-Encoding: chunked,"), 400),
    "TE: xchunked": (post(b"Transfer-Encoding: xchunked"), 400),
    "TE: chunked;q=1": (post(b"Transfer-Encoding: chunked;q=1"), 400),
    'TE: "chunked"': (post(b'Transfer-Encoding: "chunked"'), 400),
    "TE: vertical tab, chunked": (post(b"Transfer-Encoding: \x0bchunked"), 400),
    "TE: empty": (post(b"Transfer-Encoding:"), 400),
    "TE, space before the colon": (post(b"Transfer-Encoding : chunked"), 400),
    "TE, folded": (post(b"Transfer-Encoding:", b" chunked"), 400),
    "CL: differing": (post(b"Content-Length: 3", b"Content-Length: 4"), 400),
    "CL: differing list": (post(b"Content-Length: 3, 4"), 400),
    "CL: list with an empty element": (post(b"Content-Length: 3,"), 400),
    "CL: empty": (post(b"Content-Length:"), 400),
    "CL: +3": (post(b"Content-Length: +3"), 400),
    "CL: -3": (post(b"Content-Length: -3"), 400),
    "CL: 3_0": (post(b"Content-Length: 3_0"), 400),
    "CL: 0x3": (post(b"Content-Length: 0x3"), 400),
    "CL: 3.0": (post(b"Content-Length: 3.0"), 400),
    "CL: 3 3": (post(b"Content-Length: 3 3"), 400),
    "CL: Arabic digits": (post("Content-Length: ٣".encode()), 400),
    "CL: too large for any file": (post(b"Content-Length: " + b"9" * 19), 400),
    "CL: equal, but not written alike": (post(b"Content-Length: 5\r\nContent-Length: 05", body=b"hello"), 400),
    "CL: thousands of digits": (post(b"Content-Length: " + b"9" * 5000), 400),
    "CL: hidden by Connection": (post(b"Connection: close, Content-Length", b"Content-Length: 3"), 400),
    # chunks
    "chunk size with a space after": (post(CHUNKED, body=b"3 \r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size with a space before": (post(CHUNKED, body=b" 3\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size of 0x3": (post(CHUNKED, body=b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size of +3": (post(CHUNKED, body=b"+3\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size of -3": (post(CHUNKED, body=b"-3\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size of 3_0": (post(CHUNKED, body=b"3_0\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size that is empty": (post(CHUNKED, body=b"\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size that overflows": (post(CHUNKED, body=b"1" + b"0" * 15 + b"3\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size with LF": (post(CHUNKED, body=b"3\nabc\r\n0\r\n\r\n"), 400),
    "chunk size with CR": (post(CHUNKED, body=b"3\rabc\r\n0\r\n\r\n"), 400),
    "chunk extension with LF": (post(CHUNKED, body=b"3;a\nabc\r\n0\r\n\r\n"), 400),
    "chunk extension with NUL": (post(CHUNKED, body=b"3;a\x00\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk extension without a semicolon": (post(CHUNKED, body=b"3 a\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk longer than its size": (post(CHUNKED, body=b"3\r\nabcd\r\n0\r\n\r\n"), 400),
    "chunk that ends in LF": (post(CHUNKED, body=b"3\r\nabc\n0\r\n\r\n"), 400),
    "chunk that ends in CR CR": (post(CHUNKED, body=b"3\r\nabc\r\r"), 400),
    "trailer that is folded": (post(CHUNKED, body=b"0\r\nX: a\r\n b\r\n\r\n"), 400),
    "trailer with LF": (post(CHUNKED, body=b"0\r\nX: a\n\n"), 400),
    "trailer without a colon": (post(CHUNKED, body=b"0\r\nGET / HTTP/1.1\r\n\r\n"), 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_however_it_is_cut(requests: Read, name: str) -> None:
    data, status = REFUSED[name]
    whole = requests(data)
    assert whole.status == status, whole
    assert whole.why
    bytewise = requests(*(data[at : at + 1] for at in range(len(data))))
    assert bytewise.status == status
    assert not any(message.complete for message in whole.messages + bytewise.messages)


ACCEPTED = {
    "one empty line first": (b"\r\n" + get(), {"head": (b"GET", b"web", b"/a?b", (), None, (1, 1))}),
    "unknown method": (get(start=b"X-PURGE / HTTP/1.1"), {"method": b"X-PURGE"}),
    "lower-case method is another method": (get(start=b"get / HTTP/1.1"), {"method": b"get"}),
    "HTTP/1.2 as 1.1": (get(start=b"GET / HTTP/1.2"), {"version": (1, 1), "keep_alive": True}),
    "HTTP/1.0 without Host": (
        get(start=b"GET / HTTP/1.0", host=b""),
        {"authority": b"", "version": (1, 0), "keep_alive": False},
    ),
    "HTTP/1.0 keep-alive": (get(b"Connection: Keep-Alive", start=b"GET / HTTP/1.0"), {"keep_alive": True}),
    "HTTP/1.0 keep-alive, close": (get(b"Connection: keep-alive, close", start=b"GET / HTTP/1.0"), {"keep_alive": False}),
    "close": (get(b"Connection: x , Close"), {"keep_alive": False}),
    "close in the second of two": (get(b"Connection: x", b"Connection: close"), {"keep_alive": False}),
    "closed is not close": (get(b"Connection: closed"), {"keep_alive": True}),
    "empty Host": (get(host=b"Host:\r\n"), {"authority": b""}),
    "Host with port": (get(host=b"Host: web:80\r\n"), {"authority": b"web:80"}),
    "Host with IPv6": (get(host=b"Host: [::1]:80\r\n"), {"authority": b"[::1]:80"}),
    "absolute target": (get(start=b"GET http://other:1/x?y HTTP/1.1"), {"authority": b"other:1", "path": b"/x?y"}),
    "absolute target, upper case": (get(start=b"GET HTTPS://other/x HTTP/1.1"), {"authority": b"other", "path": b"/x"}),
    "absolute target without path": (get(start=b"GET http://other HTTP/1.1"), {"authority": b"other", "path": b"/"}),
    "absolute target, query only": (get(start=b"GET http://other?a/b HTTP/1.1"), {"authority": b"other", "path": b"/?a/b"}),
    "OPTIONS, absolute without path": (get(start=b"OPTIONS http://other HTTP/1.1"), {"authority": b"other", "path": b"*"}),
    "OPTIONS *": (get(start=b"OPTIONS * HTTP/1.1"), {"path": b"*"}),
    "absolute target within a path": (get(start=b"GET /http://x HTTP/1.1"), {"authority": b"web", "path": b"/http://x"}),
    "empty value": (get(b"X:"), {"fields": ((b"x", b""),)}),
    "white space around a value": (get(b"X: \t a b \t"), {"fields": ((b"x", b"a b"),)}),
    "obs-text in a value": (get(b"X: \xff"), {"fields": ((b"x", b"\xff"),)}),
    "fields stay in order": (get(b"B: 1", b"a: 2", b"B: 3"), {"fields": ((b"b", b"1"), (b"a", b"2"), (b"b", b"3"))}),
    "expectation": (post(b"Expect: 100-Continue", b"Content-Length: 1", body=b"x"), {"expects": True, "length": 1}),
    "expectation in HTTP/1.0 is ignored": (
        get(b"Expect: 100-continue", b"Content-Length: 0", start=b"POST / HTTP/1.0"),
        {"expects": False},
    ),
    "CL repeated": (
        post(b"Content-Length: 3", b"A: b", b"Content-Length: 3", body=b"abc"),
        {"body": b"abc", "fields": ((b"content-length", b"3"), (b"a", b"b"))},
    ),
    "CL list": (post(b"Content-Length: 3 , 3", body=b"abc"), {"body": b"abc", "fields": ((b"content-length", b"3"),)}),
    "CL with zeros": (post(b"Content-Length: 003", body=b"abc"), {"body": b"abc", "fields": ((b"content-length", b"3"),)}),
    "CL of zero": (post(b"Content-Length: 0"), {"length": 0, "body": b""}),
    "chunks": (post(CHUNKED, body=b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), {"body": b"abc0123456789", "length": None}),
    "TE: ChUnKeD": (post(b"Transfer-Encoding: ChUnKeD", body=b"0\r\n\r\n"), {"body": b""}),
    "chunk extensions": (post(CHUNKED, body=b'3;a="b;c";d\r\nabc\r\n00;x\r\n\r\n'), {"body": b"abc"}),
    "a chunk that holds a request": (
        post(CHUNKED, body=b"12\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"),
        {"body": b"GET / HTTP/1.1\r\n\r\n"},
    ),
    "trailers are apart": (
        post(CHUNKED, body=b"0\r\nX: y\r\nZ:\r\n\r\n"),
        {"trailers": ((b"x", b"y"), (b"z", b"")), "body": b""},
    ),
    "trailers that frame, route or authenticate are dropped": (
        post(
            CHUNKED,
            body=b"0\r\nHost: evil\r\nContent-Length: 9\r\nTransfer-Encoding: gzip\r\nAuthorization: x\r\nConnection: a\r\n"
            b"Content-Type: x\r\nTrailer: y\r\nSet-Cookie: z\r\nOK: 1\r\n\r\n",
        ),
        {"trailers": ((b"ok", b"1"),)},
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_however_it_is_cut(requests: Read, name: str) -> None:
    data, expected = ACCEPTED[name]
    transcript = requests(data, eof=True)
    assert transcript.status is None, transcript.why
    message = transcript.only
    assert message.complete
    method, authority, path, fields, length, version = message.head
    seen = {"method": method, "authority": authority, "path": path, "fields": fields, "length": length, "version": version,
            "keep_alive": message.framing.keep_alive, "expects": message.framing.expects, "body": message.body,
            "trailers": message.trailers, "head": message.head}  # fmt: skip
    assert {key: seen[key] for key in expected} == expected
    assert requests(*(data[at : at + 1] for at in range(len(data))), eof=True) == transcript


def test_a_value_of_spaces_takes_linear_time() -> None:
    """The expression that preceded this one was cubic: 800 spaces took a second."""
    data = b"GET / HTTP/1.1\r\nHost: web\r\nX: " + b" \t" * 4000 + b"\x01"
    with pytest.raises(ProtocolFault, match="malformed header line"):
        parse_request(data, Known())


def test_faults_do_not_repeat_what_they_refuse_at_length(requests: Read) -> None:
    assert len(requests(get(b"X" * 4000)).why) < 200
    assert len(requests(get(start=b"GET " + b"x" * 4000 + b" HTTP/1.1")).why) < 200
