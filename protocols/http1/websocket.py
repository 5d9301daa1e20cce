"""The opening handshake of WebSocket on one HTTP/1.1 hop (RFC 6455 §1.3, §4).

Inside the router a request for a WebSocket is a GET whose head says ``tunnel``, and the answer that opens one has status 101,
whatever the protocols of its two ends (RFC 8441 §5 has neither). ``Sec-WebSocket-Key`` goes on where there is one. Each end of
HTTP/1.1 deals with its own ``Sec-WebSocket-Accept``.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha1
from os import urandom

from protocols.http1.upgrade import listed
from router.model.headers import WEBSOCKET, Head, RequestHead, ResponseHead

KEY, ACCEPT = b"sec-websocket-key", b"sec-websocket-accept"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_key = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==").fullmatch  # 16 bytes


def asked(head: RequestHead) -> bool:
    """Whether a request of HTTP/1.1 without a body is an opening handshake (§4.2.1). The version is the endpoint's business."""
    keys = head.get_all(KEY)
    if head.method != b"GET" or len(keys) != 1 or _key(keys[0]) is None:
        return False
    return _switches(head)


def _switches(head: Head) -> bool:
    return WEBSOCKET in listed(head, b"upgrade") and b"upgrade" in listed(head, b"connection")


def accept(key: bytes) -> bytes:
    """The answer to a key (§4.2.2)."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def offer(head: RequestHead) -> tuple[bytes, bytes]:
    """The lines that ask an endpoint for a WebSocket, and what it must answer; a key is made where there is none."""
    lines = b"connection: Upgrade\r\nupgrade: websocket\r\n"
    key = head.get(KEY)
    if key is None:
        key = b64encode(urandom(16))
        lines += b"%b: %b\r\n" % (KEY, key)
    return lines, accept(key)


def fault(head: ResponseHead, wanted: bytes) -> str | None:
    """Why a 101 does not open the WebSocket that was asked for (§4.1); None where it does."""
    if not _switches(head):
        return "101 that does not switch to websocket"
    if head.get_all(ACCEPT) != [wanted]:
        return "Sec-WebSocket-Accept that does not answer our key"
    return None


def answer(request: RequestHead, head: ResponseHead) -> tuple[ResponseHead, bytes]:
    """A 101 for the client that sent ``request``: the head, and the lines of this hop."""
    key = request.get(KEY) or b""
    fields = tuple([field for field in head.fields if field[0] != ACCEPT])
    return ResponseHead(101, fields), b"connection: Upgrade\r\nupgrade: websocket\r\n%b: %b\r\n" % (ACCEPT, accept(key))
