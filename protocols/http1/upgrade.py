"""Leaving HTTP/1.1 for HTTP/2 on the same connection: ``Upgrade: h2c`` (RFC 7540 §3.2).

A server may ignore Upgrade, and this one does where the RFC says it must (over TLS, without exactly one HTTP2-Settings that
Connection names) and where the request has a body: the client would have to send all of it first.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error

from router.model.headers import Head, RequestHead

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n"


def h2c_settings(head: RequestHead) -> bytes | None:
    """The payload of the SETTINGS frame that a request for h2c carries; None where it is no such request."""
    if b"h2c" not in listed(head, b"upgrade"):
        return None
    given = head.get_all(b"http2-settings")
    if len(given) != 1 or not {b"upgrade", b"http2-settings"} <= set(listed(head, b"connection")):
        return None
    try:
        return b64decode(given[0] + b"=" * (-len(given[0]) % 4), altchars=b"-_", validate=True)
    except Error:
        return None


def listed(head: Head, name: bytes) -> list[bytes]:
    """The elements of a field that is a list, in lower case."""
    return [one.strip().lower() for one in b",".join(head.get_all(name)).split(b",")]
