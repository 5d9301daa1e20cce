"""What parsers tell, written down so that it can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import pytest

from protocols.http1.core import DONE, Limits, Parser, RequestParser, ResponseParser
from protocols.http1.rules import Framing, ProtocolFault
from router.model.headers import Fields, RequestHead, ResponseHead


@attrs.define
class Message:
    """A message as far as it came; ``complete`` once its end was told."""

    head: Any
    framing: Framing
    body: bytes = b""
    trailers: Fields = ()
    complete: bool = False


@attrs.define
class Transcript:
    """Everything that a parser told; ``status`` is the fault's that ended it."""

    messages: list[Message] = attrs.field(factory=list)
    informational: list[int] = attrs.field(factory=list)
    status: int | None = None
    why: str = attrs.field(default="", eq=False)

    @property
    def only(self) -> Message:
        (message,) = self.messages
        return message


def plain(head: RequestHead | ResponseHead) -> tuple[Any, ...]:
    """A head as a value."""
    if isinstance(head, RequestHead):
        return head.method, head.authority, head.path, head.fields, head.length, head.version
    return head.status, head.fields, head.length


class Recorder:
    """Takes part in a conversation without limit: goes on with the next message as soon as one has ended."""

    def __init__(self, methods: Iterable[bytes] = ()) -> None:
        self.transcript = Transcript()
        self.parser: Parser
        self.methods = list(methods)

    def on_request(self, head: RequestHead, framing: Framing) -> None:
        self.transcript.messages.append(Message(plain(head), framing))
        self._maybe_next()

    def on_response(self, head: ResponseHead, framing: Framing) -> None:
        self.transcript.messages.append(Message(plain(head), framing))
        self._maybe_next()

    def on_informational(self, head: ResponseHead) -> None:
        self.transcript.informational.append(head.status)

    def on_body(self, data: bytes) -> None:
        assert data
        assert not self.transcript.messages[-1].complete
        self.transcript.messages[-1].body += data

    def on_end(self, trailers: Fields) -> None:
        self.transcript.messages[-1].trailers = trailers
        self._maybe_next()

    def _maybe_next(self) -> None:
        if self.parser.state != DONE:
            return
        assert not self.transcript.messages[-1].complete
        self.transcript.messages[-1].complete = True
        if isinstance(self.parser, RequestParser):
            self.parser.resume()
        elif self.methods:
            self.expect_next()

    def expect_next(self) -> None:
        assert isinstance(self.parser, ResponseParser)
        self.parser.expect(self.methods.pop(0))

    def run(self, pieces: Iterable[bytes], eof: bool) -> Transcript:
        try:
            for piece in pieces:
                self.parser.feed(piece)
            if eof:
                self.parser.eof()
        except ProtocolFault as fault:
            self.transcript.status, self.transcript.why = fault.status, fault.why
        return self.transcript


ReadRequests = Callable[..., Transcript]
ReadResponses = Callable[..., Transcript]


@pytest.fixture(scope="session")
def requests() -> ReadRequests:
    """Read pieces of bytes as a server does."""

    def read(*pieces: bytes, limits: Limits | None = None, eof: bool = False) -> Transcript:
        recorder = Recorder()
        recorder.parser = RequestParser(recorder, limits or Limits())
        return recorder.run(pieces, eof)

    return read


@pytest.fixture(scope="session")
def responses() -> ReadResponses:
    """Read pieces of bytes as the client does that sent these methods."""

    def read(
        *pieces: bytes, methods: Iterable[bytes] = (b"GET",), limits: Limits | None = None, eof: bool = False
    ) -> Transcript:
        recorder = Recorder(methods)
        recorder.parser = ResponseParser(recorder, limits or Limits())
        recorder.expect_next()
        return recorder.run(pieces, eof)

    return read
