"""The opening handshake on a hop of HTTP/1.1, and the parser that lets a connection go."""

from __future__ import annotations

from typing import Any

import pytest
from wsproto.utilities import generate_accept_token

from protocols.http1 import websocket
from protocols.http1.core import Limits, ResponseParser
from protocols.http1.rules import ProtocolFault
from router.model.headers import Fields, RequestHead, ResponseHead

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
FIELDS = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", KEY))


def head(fields: Fields, method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, b"http", b"web", b"/", fields, version=(1, 1))


def test_the_answer_to_a_key_is_the_rfcs() -> None:
    assert websocket.accept(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 §1.3


def test_made_keys_differ_and_are_answered_as_wsproto_does() -> None:
    seen = set()
    for _ in range(10):
        lines, accept = websocket.offer(head(()))
        key = lines.split(b"sec-websocket-key: ")[1].strip()
        assert accept == generate_accept_token(key)
        assert websocket.asked(head((*FIELDS[:2], (b"sec-websocket-key", key))))
        seen.add(key)
    assert len(seen) == 10


def test_a_key_goes_on() -> None:
    lines, accept = websocket.offer(head(FIELDS))
    assert b"sec-websocket-key" not in lines
    assert accept == websocket.accept(KEY)


@pytest.mark.parametrize("key", [b"", b"x", b"=" * 24, KEY[:-1], KEY + b"=", KEY.replace(b"Q==", b"B=="), KEY[:-2] + b"\xff="])
def test_keys_that_are_none(key: bytes) -> None:
    assert not websocket.asked(head((*FIELDS[:2], (b"sec-websocket-key", key))))


def test_what_a_101_must_say() -> None:
    wanted = websocket.accept(KEY)
    good = ((b"connection", b"keep-alive, UPGRADE"), (b"upgrade", b"WebSocket"), (b"sec-websocket-accept", wanted))
    assert websocket.fault(ResponseHead(101, good), wanted) is None
    for at in range(3):
        assert websocket.fault(ResponseHead(101, good[:at] + good[at + 1 :]), wanted)
    assert websocket.fault(ResponseHead(101, (*good, good[2])), wanted)


class Events:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_switch(self, head: ResponseHead) -> None:
        self.told.append(("switch", head.status))

    def on_informational(self, head: ResponseHead) -> None:
        self.told.append(("informational", head.status))

    def on_response(self, head: ResponseHead, framing: Any) -> None:
        self.told.append(("response", head.status))

    def on_body(self, data: bytes) -> None:
        self.told.append(("body", data))

    def on_end(self, trailers: Fields) -> None:
        self.told.append(("end", trailers))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_follows_a_101_is_left_alone(size: int) -> None:
    events = Events()
    parser = ResponseParser(events, Limits())
    parser.expect(b"GET", switching=True)
    data = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Go\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    for at in range(0, len(data), size):
        parser.feed(data[at : at + size])
    assert events.told == [("informational", 103), ("switch", 101)]
    assert parser.take() == b"HTTP/1.1 200 OK\r\n\r\n"


def test_a_101_that_nobody_asked_for_is_malformed() -> None:
    parser = ResponseParser(Events(), Limits())
    parser.expect(b"GET", switching=True)
    parser.feed(b"HTTP/1.1 204 None\r\n\r\n")
    parser.expect(b"GET")
    with pytest.raises(ProtocolFault):
        parser.feed(b"HTTP/1.1 101 Go\r\n\r\n")
