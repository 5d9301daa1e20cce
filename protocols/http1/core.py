"""The framing of HTTP/1.1 messages, without I/O: bytes in, heads, body bytes and ends out (RFC 9112 §6, §7).

Theory of operation

1. :meth:`Parser.feed` keeps what is not complete and acts on the rest. Where the bytes are cut makes no difference: what is
   refused while incomplete would be refused when complete; of two faults the one that is seen first is told.
2. After the end of a message a parser stops until :meth:`Parser.resume`: pipelined requests wait in its buffer. Whoever feeds
   it stops reading meanwhile, so that the buffer is bounded by the limits and one read. ``resume`` may be called from an event:
   the loop that is under way goes on, so that many pipelined messages do not nest.
3. A head that is byte for byte the one before gives the same head object: keep-alive clients repeat themselves.
4. Bounds: ``Limits``; heads are refused as soon as they exceed them, complete or not.
5. Steps move ``_at`` through the buffer and never copy what follows: a read full of tiny chunks costs linear time.
"""

from __future__ import annotations

import re
from typing import Protocol

import attrs

from protocols.http1.rules import MAX_FIELDS, Framing, Known, ProtocolFault, parse_request, parse_response, parse_trailers
from router.model.headers import Fields, RequestHead, ResponseHead

_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?").fullmatch
MAX_INFORMATIONAL = 32
_PLAIN_SIZE = 15  # digits: a longer chunk line has an extension
IDLE, LENGTH, CHUNK_LINE, CHUNK_DATA, CHUNK_END, TRAILERS, UNTIL_EOF, DONE = range(8)


def _bare_lf(buffer: bytes, at: int) -> bool:
    """Whether a line after ``at`` ends in LF alone. Counting is fast; heads may come byte by byte."""
    return buffer.count(b"\n", at) != buffer.count(b"\r\n", at)


@attrs.frozen
class Limits:
    """Bytes: of the first line, of all headers together, of a chunk's line, of the trailers, of all chunk extensions of a
    message; ``fields``: how many headers."""

    line: int = 4096
    headers: int = 8192
    chunk_line: int = 256
    trailers: int = 8192
    extensions: int = 16384
    fields: int = MAX_FIELDS


class Events(Protocol):
    """What a parser tells."""

    def on_body(self, data: bytes) -> None:
        """Bytes of the body."""

    def on_end(self, trailers: Fields) -> None:
        """The message is complete."""


class Parser:
    """What both roles share: bodies."""

    fault = 400

    def __init__(self, events: Events, limits: Limits) -> None:
        self.events = events
        self.limits = limits
        self.state = IDLE
        self.keep_alive = True
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._extensions = 0
        self._running = False
        self._skipped = False
        self._known = Known()

    def feed(self, data: bytes) -> None:
        """Act on ``data``. Raises :class:`ProtocolFault`."""
        self._buffer = self._buffer[self._at :] + data if self._buffer else data
        self._at = 0
        self._run()

    def _run(self) -> None:
        if self._running:
            return
        self._running = True
        try:
            while self._at < len(self._buffer) and self.state != DONE and self._advance():
                pass
        finally:
            self._running = False
        if self._at == len(self._buffer):
            self._buffer, self._at = b"", 0

    @property
    def buffered(self) -> int:
        """Bytes that wait."""
        return len(self._buffer) - self._at

    @property
    def between(self) -> bool:
        """Whether what waits is the beginning of a message, and not of a part of its body."""
        return self.state in (IDLE, DONE)

    def take(self) -> bytes:
        """What waits is no business of this parser any more."""
        rest, self._buffer = self._buffer[self._at :], b""
        self._at = 0
        return rest

    def resume(self) -> None:
        """Go on with the next message."""
        if self.state == DONE:
            self.state = IDLE
            if self._buffer:
                self._run()

    def eof(self) -> None:
        """The peer will send nothing more. Raises :class:`ProtocolFault` where that truncates a message."""
        if self.state == UNTIL_EOF:
            self._end(())
        elif self.state not in (IDLE, DONE) or (self.state == IDLE and self.buffered):
            raise ProtocolFault(self.fault, "the connection ended within a message")

    # -- steps ----------------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """One step; False when more bytes are needed."""
        state = self.state
        if state == IDLE:
            return self._head()
        if state in (LENGTH, CHUNK_DATA):
            return self._counted()
        if state == CHUNK_LINE:
            return self._chunk_line()
        if state == CHUNK_END:
            return self._chunk_end()
        if state == TRAILERS:
            return self._trailers()
        data = self._buffer[self._at :]
        self._at = len(self._buffer)
        self.events.on_body(data)
        return False

    def _head(self) -> bool:
        buffer, limits = self._buffer, self.limits
        if buffer.startswith(b"\r\n", self._at):
            self._skip_line()
        at = self._at
        end = buffer.find(b"\r\n\r\n", at, at + limits.line + limits.headers + 4)
        self._check_head(at, end)
        if end < 0:
            return False
        self._at = end + 4
        self._skipped = False
        self.on_head(buffer[at:end])
        return True

    def _skip_line(self) -> None:
        """One empty line in front of a message is forgiven (RFC 9112 §2.2)."""
        if self._skipped:
            raise ProtocolFault(self.fault, "empty lines before a message")
        self._skipped = True
        self._at += 2

    def _check_head(self, at: int, end: int) -> None:
        """Limits of a head that ends at ``end``, or is not complete (-1): then its last three bytes may belong to its end."""
        buffer, limits = self._buffer, self.limits
        line = buffer.find(b"\r\n", at, at + limits.line + 2)
        if line < 0:
            if len(buffer) - at >= limits.line + 2:
                raise ProtocolFault(414 if self.fault == 400 else self.fault, f"first line longer than {limits.line} bytes")
        elif (end if end >= 0 else len(buffer) - 3) - line > limits.headers:
            raise ProtocolFault(431 if self.fault == 400 else self.fault, f"headers longer than {limits.headers} bytes")
        if end < 0 and _bare_lf(buffer, at):
            raise ProtocolFault(self.fault, "a line that does not end in CRLF")

    def on_head(self, data: bytes) -> None:
        """A complete head."""
        raise NotImplementedError

    def begin(self, framing: Framing) -> None:
        """A message begins whose body is framed like this."""
        self.keep_alive = framing.keep_alive
        self._left = framing.length
        if framing.chunked:
            self._extensions = self.limits.extensions
            self.state = CHUNK_LINE
        elif framing.until_eof:
            self.state = UNTIL_EOF
        elif framing.length:
            self.state = LENGTH
        else:
            self.state = DONE

    def _counted(self) -> bool:
        at = self._at
        data = self._buffer[at : at + self._left]
        self._at = at + len(data)
        self._left -= len(data)
        ended = not self._left
        chunked = self.state == CHUNK_DATA
        if ended and chunked:
            self.state = CHUNK_END
        self.events.on_body(data)
        if ended and not chunked:
            self._end(())
        return True

    def _chunk_line(self) -> bool:
        buffer, at, limit = self._buffer, self._at, self.limits.chunk_line
        end = buffer.find(b"\r\n", at, at + limit + 2)
        if end < 0:
            if len(buffer) - at >= limit + 2 or _bare_lf(buffer, at):
                raise ProtocolFault(self.fault, "malformed chunk size")
            return False
        match = _chunk_line(buffer, at, end)
        if match is None:
            raise ProtocolFault(self.fault, "malformed chunk size")
        if end - at > _PLAIN_SIZE:
            self._extensions -= end - at
            if self._extensions < 0:
                raise ProtocolFault(self.fault, "too many chunk extensions")
        self._at = end + 2
        self._left = int(match[1], 16)
        self.state = CHUNK_DATA if self._left else TRAILERS
        return True

    def _chunk_end(self) -> bool:
        buffer, at = self._buffer, self._at
        if buffer.startswith(b"\r\n", at):
            self._at = at + 2
            self.state = CHUNK_LINE
            return True
        if buffer[at:] != b"\r":
            raise ProtocolFault(self.fault, "a chunk that is longer than its size")
        return False

    def _trailers(self) -> bool:
        buffer, at, limit = self._buffer, self._at, self.limits.trailers
        if buffer.startswith(b"\r\n", at):
            self._at = at + 2
            self._end(())
            return True
        end = buffer.find(b"\r\n\r\n", at, at + limit + 4)
        if end < 0:
            if len(buffer) - at >= limit + 4:
                raise ProtocolFault(431 if self.fault == 400 else self.fault, f"trailers longer than {limit} bytes")
            if _bare_lf(buffer, at):
                raise ProtocolFault(self.fault, "a line that does not end in CRLF")
            return False
        self._at = end + 4
        self._end(parse_trailers(buffer[at:end].split(b"\r\n"), self.fault))
        return True

    def _end(self, trailers: Fields) -> None:
        self.state = DONE
        self.events.on_end(trailers)


class RequestEvents(Events, Protocol):
    """What a request parser tells."""

    def on_request(self, head: RequestHead, framing: Framing) -> None:
        """A request has begun; its body follows unless the framing has none."""


class RequestParser(Parser):
    """Requests of one connection."""

    events: RequestEvents

    def __init__(self, events: RequestEvents, limits: Limits, scheme: bytes = b"http") -> None:
        super().__init__(events, limits)
        self.scheme = scheme
        self._last: tuple[bytes, RequestHead, Framing] | None = None

    def on_head(self, data: bytes) -> None:
        last = self._last
        if last is not None and last[0] == data:
            _, head, framing = last
            head.shared = True
        else:
            head, framing = parse_request(data, self._known, self.scheme, most=self.limits.fields)
            self._last = (data, head, framing)
        self.begin(framing)
        self.events.on_request(head, framing)


class ResponseEvents(Events, Protocol):
    """What a response parser tells."""

    def on_informational(self, head: ResponseHead) -> None:
        """A 1xx response."""

    def on_switch(self, head: ResponseHead) -> None:
        """A 101 to a request that asked for it. What follows waits, to be taken."""

    def on_response(self, head: ResponseHead, framing: Framing) -> None:
        """The final response has begun."""


class ResponseParser(Parser):
    """Responses of one connection; ``expect`` the method of each request before its response comes."""

    fault = 502
    events: ResponseEvents

    def __init__(self, events: ResponseEvents, limits: Limits) -> None:
        super().__init__(events, limits)
        self.state = DONE
        self._method = b""
        self._informational = 0
        self._switching = False
        self._last: tuple[bytes, bytes, ResponseHead, Framing] | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing of the response has come."""
        return self.state == IDLE and not self.buffered and not self._informational

    def expect(self, method: bytes, *, switching: bool = False) -> None:
        """The next response answers ``method``; ``switching``: it may be a 101."""
        self._method = method
        self._switching = switching
        self._informational = 0
        self.resume()

    def on_head(self, data: bytes) -> None:
        last = self._last
        if last is not None and last[0] == data and last[1] == self._method:
            _, _, head, framing = last
            head.shared = True
        else:
            head, framing = parse_response(data, self._method, self._known)
            self._last = (data, self._method, head, framing)
        if head.status < 200:
            self._informational += 1
            if head.status == 101 and self._switching:
                self.state = DONE
                self.events.on_switch(head)
                return
            if head.status == 101 or self._informational > MAX_INFORMATIONAL:
                raise ProtocolFault(502, "an informational response that cannot be used")
            self.events.on_informational(head)
            return
        self.begin(framing)
        self.events.on_response(head, framing)
