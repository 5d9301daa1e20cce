"""A POST to a collector, on a connection of its own. Its caller limits the time."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

import attrs
import trio

MAX_ANSWER = 65536


@attrs.frozen
class Collector:
    """Where spans go: an ``http`` or ``https`` URL, taken apart."""

    host: str
    port: int
    target: str
    secure: bool = False

    async def post(self, body: bytes, content_type: str) -> None:
        """Send ``body``. Raises OSError, or trio's errors of streams, where it does not arrive or is not taken."""
        stream: trio.abc.Stream = await trio.open_tcp_stream(self.host, self.port)
        if self.secure:
            context = ssl.create_default_context()
            stream = trio.SSLStream(stream, context, server_hostname=self.host, https_compatible=True)
        async with stream:
            await stream.send_all(self._head(len(body), content_type) + body)
            status = _status(await _answer(stream))
        if status // 100 != 2:
            raise OSError(f"the collector answered with {status}")

    def _head(self, length: int, content_type: str) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines: Sequence[str] = (
            f"POST {self.target} HTTP/1.1",
            f"host: {host}:{self.port}",
            "user-agent: waypost",
            f"content-type: {content_type}",
            f"content-length: {length}",
            "connection: close",
        )
        return "\r\n".join([*lines, "", ""]).encode()


async def _answer(stream: trio.abc.ReceiveStream) -> bytes:
    """All of the answer, so that the collector sees its connection end well."""
    data = b""
    while len(data) < MAX_ANSWER:
        more = await stream.receive_some(MAX_ANSWER)
        if not more:
            break
        data += more
    return data


def _status(answer: bytes) -> int:
    """The status of the final response."""
    while True:
        head, _, rest = answer.partition(b"\r\n\r\n")
        words = head.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise OSError("the collector did not answer in HTTP/1.1")
        status = int(words[1])
        if status // 100 != 1:
            return status
        answer = rest


def read_url(url: str) -> Collector:
    """Take a URL apart. Raises ValueError, which says what is wrong."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be a URL such as http://localhost:4318/v1/traces, not {url!r}")
    if parts.username is not None or parts.fragment or not (url.isascii() and url.isprintable() and " " not in url):
        raise ValueError(f"must have neither user, fragment nor characters that are to be encoded: {url!r}")
    secure = parts.scheme == "https"
    target = parts.path or "/"
    return Collector(
        parts.hostname, parts.port or (443 if secure else 80), f"{target}?{parts.query}" if parts.query else target, secure
    )
