"""What is fuzzed: each target takes bytes, and raises only for a finding.

A finding is an exception that is not the documented one; bytes that mean something else when they come in other pieces;
credit or streams that are left; an error without a place; or more memory than the stated bounds (kept by the targets' own
asserts). The first byte of an input, where ``cut`` is used, says where the rest is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dtab import DtabSyntaxError, read_dtab
from protocols.http1.core import DONE, Limits, RequestParser, ResponseParser
from protocols.http1.rules import ProtocolFault
from protocols.http2 import frames
from protocols.http2.codec import Decoder, HeaderCodecError
from protocols.http2.server import Http2Server
from protocols.http2.server_connection import Http2ServerConnection
from protocols.http2.state import Settings
from router.config.load import load_text
from router.config.plugins import Registry
from router.model.answers import render_h2
from router.model.events import Events
from router.model.exchange import Exchange
from router.model.headers import ResponseHead
from router.model.metrics import Metrics
from router.model.timers import Timers
from router.spi import ServerContext

Target = Callable[[bytes], None]


def cut(data: bytes, where: int) -> list[bytes]:
    """In pieces: whole, byte by byte, or of ``where`` bytes."""
    size = {0: len(data) or 1, 1: 1}.get(where, where)
    return [data[at : at + size] for at in range(0, len(data), size)]


# -- HTTP/2 -------------------------------------------------------------------------------------------------------------------


class Wire:
    """Counts what is written; the size of it must stay in proportion to what was read."""

    peer = "fuzz"
    congested = False
    unsent = sent = 0
    client_certificate = None

    def __init__(self) -> None:
        self.out = bytearray()
        self.closed = False
        self.turns = 0

    def write(self, data: Any) -> None:
        assert not self.closed, "written after the end"
        self.out += data

    def write_pair(self, head: bytes, body: Any) -> None:
        self.write(head)
        self.write(body)

    def close(self) -> None:
        self.closed = True

    def pause(self) -> None:
        pass

    resume = pause

    def again(self) -> None:
        self.turns += 1


class Host:
    """A clock that stands; whatever crashes is a finding."""

    def __init__(self) -> None:
        self.timers = Timers(lambda: 0.0, self.crashed)
        self.events = Events()

    def crashed(self, error: Exception) -> None:
        raise AssertionError("a bug in an exchange") from error


async def echo(exchange: Exchange) -> None:
    """Send the body back."""
    sink = exchange.respond(ResponseHead(200, ((b"x", b"y"),)), exchange.body is None)
    exchange.conclude(())
    if exchange.body is not None:
        exchange.body.join(sink)


def converse(pieces: list[bytes]) -> tuple[bytes, int, bool]:
    """A server's whole side of a conversation: what it wrote, its open streams, whether it closed."""
    wire: Any = Wire()
    host: Any = Host()
    server = Http2Server(Settings(streams=20, window=5000), ServerContext(host, None, echo, render_h2, Metrics()))
    connection = Http2ServerConnection(wire, server.settings, server, 0.0)
    for piece in pieces:
        connection.received(piece)
        while wire.turns:
            wire.turns -= 1
            connection.received(b"")
    open_streams = len(connection.streams)
    assert open_streams <= 20
    connection.lost("the end")
    assert not connection.streams, "streams that outlive their connection"
    assert not connection.blocked
    assert connection.uncredited() == 0 or wire.closed, f"{connection.uncredited()} bytes of credit are lost"
    assert host.timers.pending() == 0, "timers that outlive their connection"
    return bytes(wire.out), open_streams, wire.closed


def http2_server(data: bytes) -> None:
    """A client's bytes. The input goes behind a preface and SETTINGS, so that little of it is wasted."""
    if data:
        greeting = frames.PREFACE + frames.settings({})
        whole = converse([greeting + data[1:]])
        pieces = converse(cut(greeting + data[1:], data[0]))
        assert whole[1:] == pieces[1:], "the outcome depends on where bytes are cut"


def hpack(data: bytes) -> None:
    """Two header blocks for one decoder, the first of as many bytes as the first byte says."""
    decoder = Decoder(4096, 16384, 100)
    blocks = [data[1 : 1 + data[0]], data[1 + data[0] :]] if data else []
    try:
        for block in blocks:
            fields = decoder.decode(block).fields
            assert sum([len(name) + len(value) + 32 for name, value in fields]) <= 16384, "more than the limit"
            assert all(type(name) is bytes and type(value) is bytes for name, value in fields)
    except HeaderCodecError:
        pass


# -- HTTP/1.1 -----------------------------------------------------------------------------------------------------------------


class Recorder:
    """Writes down what a parser tells, and goes on with the next message."""

    def __init__(self, *, responses: bool) -> None:
        limits = Limits(line=200, headers=400, chunk_line=30, trailers=200)
        self.told: list[Any] = []
        self.parser: Any = ResponseParser(self, limits) if responses else RequestParser(self, limits)
        self.next()

    def next(self) -> None:
        if isinstance(self.parser, ResponseParser):
            self.parser.expect(b"GET")
        else:
            self.parser.resume()

    def on_request(self, head: Any, framing: Any) -> None:
        assert not {b"\r", b"\n", b" "} & {bytes((byte,)) for byte in head.path}, "a path that splits"
        self.told.append([(head.method, head.authority, head.path, head.fields), framing, b"", None])
        self._maybe_next()

    def on_response(self, head: Any, framing: Any) -> None:
        self.told.append([(head.status, head.fields), framing, b"", None])
        self._maybe_next()

    def on_informational(self, head: Any) -> None:
        pass

    def on_body(self, data: bytes) -> None:
        self.told[-1][2] += data

    def on_end(self, trailers: Any) -> None:
        self.told[-1][3] = trailers
        self._maybe_next()

    def _maybe_next(self) -> None:
        if self.parser.state == DONE:
            self.next()

    def read(self, pieces: list[bytes]) -> tuple[list[Any], bool]:
        """What was told of complete messages, and whether there was a fault: which one of two may depend on the cut."""
        refused = False
        try:
            for piece in pieces:
                self.parser.feed(piece)
                assert self.parser.buffered <= 1000, "a buffer beyond the limits"
            self.parser.eof()
        except ProtocolFault:
            refused = True
        return [told for told in self.told if told[3] is not None], refused


def _http1(data: bytes, *, responses: bool) -> None:
    if data:
        whole = Recorder(responses=responses).read([data[1:]])
        assert whole == Recorder(responses=responses).read(cut(data[1:], data[0])), "the meaning depends on where bytes are cut"


def http1_request(data: bytes) -> None:
    """Pipelined requests."""
    _http1(data, responses=False)


def http1_response(data: bytes) -> None:
    """Responses to GET."""
    _http1(data, responses=True)


# -- text ---------------------------------------------------------------------------------------------------------------------


def dtab(data: bytes) -> None:
    """A dtab: what is read shows as a text that reads as the same; what is not has its place within the text."""
    text = data.decode("utf-8", "replace")
    try:
        table = read_dtab(text)
    except DtabSyntaxError as error:
        fault = error
    else:
        assert read_dtab(table.show()) == table
        return
    assert 0 <= fault.offset <= len(text)
    assert fault.caret()


def config(data: bytes) -> None:
    """A configuration: every problem is within the text, and can be shown."""
    loaded = load_text(data.decode("utf-8", "replace"), "fuzz.yaml", REGISTRY)
    assert loaded.config is not None or loaded.problems, "refused without a reason"
    lines = len(loaded.source.splitlines()) + 1
    for problem in loaded.problems:
        assert 0 <= problem.line <= lines, f"line {problem.line} of {lines}"
    loaded.render()


REGISTRY = Registry()
TARGETS: dict[str, Target] = {
    "http2-server": http2_server,
    "hpack": hpack,
    "http1-request": http1_request,
    "http1-response": http1_response,
    "dtab": dtab,
    "config": config,
}
