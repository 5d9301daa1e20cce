"""An HTTP/2 server that does what a script says, frame by frame.

Theory of operation

1. A connection greets with the SETTINGS of its `Script`, reads frames, and starts `script.run(stream)` for every request. What
   a script sends goes out at once; what it waits for are facts about its stream: the request is complete, so many bytes have
   come, the stream was reset.
2. `data` keeps to the peer's windows, so that a script that sends much shows whether credit comes back; `raw` keeps to nothing.
   Credit for what is received is given at once, unless the script says `credit=False` and gives it itself.
3. Everything that happened is in a `Record`, which expectations look at when the client has its answer. A fresh record begins
   with `Backend.play`; connections of an earlier cell are closed before, and awaited.
4. A script whose stream or connection goes away ends with `Gone`, which is no error. Any other exception fails the cell.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import hpack
import trio
import trio.lowlevel
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 65_535
FRAME = 16_384
Fields = Sequence[tuple[str, str]]
GRPC_HEAD: Fields = ((":status", "200"), ("content-type", "application/grpc"))
PLAIN_HEAD: Fields = ((":status", "200"), ("content-type", "text/plain"))
GRPC_OK: Fields = (("grpc-status", "0"),)

INITIAL_WINDOW, MAX_STREAMS = SettingsFrame.INITIAL_WINDOW_SIZE, SettingsFrame.MAX_CONCURRENT_STREAMS


class Gone(Exception):
    """The stream was reset, or the connection has ended."""


@dataclass(frozen=True)
class Script:
    """What the server does with each request, and how it greets. `settings`: of its first SETTINGS."""

    run: Callable[[Stream], Awaitable[None]]
    settings: Mapping[int, int] = field(default_factory=dict)
    credit: bool = True
    greets: bool = True


@dataclass
class Record:
    """What one cell did to the server. `most`: streams open at once on one connection, at the peak."""

    connections: list[Connection] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    most: int = 0
    errors: list[str] = field(default_factory=list)


class Stream:
    """One request, as the server sees it."""

    def __init__(self, conn: Connection, stream_id: int, fields: list[tuple[str, str]]) -> None:
        self.conn = conn
        self.id = stream_id
        self.attempt = len(conn.record.streams)
        self.fields = fields
        self.trailers: list[tuple[str, str]] = []
        self.received = 0
        self.sent = 0
        self.ended = False
        self.answered = False
        self.reset: int | None = None
        self.window = conn.initial_window
        self.news = _News()

    def get(self, name: str) -> str | None:
        """The first value of a field."""
        return next((value for key, value in self.fields if key == name), None)

    @property
    def open(self) -> bool:
        return self.reset is None and not (self.ended and self.answered) and not self.conn.over

    # -- waiting --------------------------------------------------------------------------------------------

    async def until(self, fact: Callable[[], bool]) -> None:
        """Wait for a fact; raises `Gone` when it cannot come any more."""
        while not fact():
            if self.reset is not None or self.conn.over:
                raise Gone
            await self.news.wait()

    async def request(self) -> None:
        """The whole request has come."""
        await self.until(lambda: self.ended)

    async def first(self, size: int) -> None:
        """So many bytes of the body have come."""
        await self.until(lambda: self.received >= size)

    async def was_reset(self) -> int:
        """The other side has reset the stream; returns the code."""
        with suppress(Gone):
            await self.until(lambda: False)
        if self.reset is None:
            raise Gone
        return self.reset

    # -- sending --------------------------------------------------------------------------------------------

    async def head(self, fields: Fields = GRPC_HEAD, *, end: bool = False, fragment: int = FRAME, pause: float = 0.0) -> None:
        """A header block, in fragments of at most `fragment` bytes."""
        block = self.conn.encoder.encode(list(fields))
        pieces = [block[at : at + fragment] for at in range(0, len(block), fragment)]
        for at, piece in enumerate(pieces):
            frame: Frame = ContinuationFrame(self.id, data=piece) if at else HeadersFrame(self.id, data=piece)
            if end and not at:
                frame.flags.add("END_STREAM")
            if at == len(pieces) - 1:
                frame.flags.add("END_HEADERS")
            self.answered = self.answered or (end and not at)
            await self.conn.send(frame)
            if pause:
                await trio.sleep(pause)

    async def data(self, payload: bytes, *, end: bool = False, pad: int | None = None, most: int = FRAME) -> None:
        """Bytes, as the windows allow, `most` in a frame; with `pad` bytes of padding in every frame."""
        extra = 0 if pad is None else pad + 1
        while True:
            await self.until(lambda: not payload or min(self.window, self.conn.window) > extra)
            room = min(self.window - extra, self.conn.window - extra, most, FRAME - extra)
            piece, payload = payload[: max(room, 0)], payload[max(room, 0) :]
            frame = DataFrame(self.id, data=piece)
            if pad is not None:
                frame.pad_length = pad
                frame.flags.add("PADDED")
            if end and not payload:
                frame.flags.add("END_STREAM")
            self.window -= len(piece) + extra
            self.conn.window -= len(piece) + extra
            self.sent += len(piece)
            self.answered = self.answered or (end and not payload)
            await self.conn.send(frame)
            if not payload:
                return

    async def finish(self, fields: Fields = GRPC_OK) -> None:
        """Trailers."""
        await self.head(fields, end=True)

    async def answer(self, payload: bytes = b"", head: Fields = GRPC_HEAD, trailers: Fields = GRPC_OK) -> None:
        """A whole response."""
        await self.head(head)
        await self.data(payload)
        await self.finish(trailers)

    async def rst(self, code: int) -> None:
        self.answered = self.ended = True
        await self.conn.send(RstStreamFrame(self.id, error_code=code))

    async def credit(self, size: int) -> None:
        """Allow the other side so many more bytes, on the stream and on the connection."""
        for stream_id in (0, self.id):
            await self.conn.send(WindowUpdateFrame(stream_id, window_increment=size))

    def goes_above(self, last: int) -> bool:
        return self.id > last


class Connection:
    """One connection of the proxy."""

    def __init__(self, socket: trio.SocketStream, script: Script, record: Record) -> None:
        self.socket = socket
        self.script = script
        self.record = record
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder(max_header_list_size=1 << 20)
        self.streams: dict[int, Stream] = {}
        self.window = self.initial_window = WINDOW
        self.pings: set[bytes] = set()
        self.acked: set[bytes] = set()
        self.goaway: int | None = None
        self.over = False
        self.requests = 0
        self.news = _News()
        self._lock = trio.Lock()
        self._buffer = bytearray()

    # -- sending --------------------------------------------------------------------------------------------

    async def send(self, frame: Frame) -> None:
        await self.raw(frame.serialize())

    async def raw(self, data: bytes) -> None:
        try:
            async with self._lock:
                await self.socket.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Gone from error

    async def ping(self) -> None:
        payload = len(self.pings).to_bytes(8, "big")
        self.pings.add(payload)
        await self.send(PingFrame(0, opaque_data=payload))

    async def say_goaway(self, last: int, code: int = 0) -> None:
        await self.send(GoAwayFrame(0, last_stream_id=last, error_code=code))

    async def close(self) -> None:
        """End our half, and wait for the other's for at most a second."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(1):
            async with self._lock:
                await self.socket.send_eof()
            while not self.over:
                await self.news.wait()
        await trio.aclose_forcefully(self.socket)

    # -- receiving ------------------------------------------------------------------------------------------

    def tell(self) -> None:
        """Something happened that concerns every stream."""
        self.news.tell()
        for stream in self.streams.values():
            stream.news.tell()

    async def serve(self) -> None:
        """Until the other side closes."""
        try:
            async with trio.open_nursery() as nursery:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError, Gone):
                    await self._read(nursery)
                self.over = True
                self.tell()
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        finally:
            self.over = True
            self.tell()
            await trio.aclose_forcefully(self.socket)

    async def _read(self, nursery: trio.Nursery) -> None:
        if self.script.greets:
            await self.send(SettingsFrame(0, settings=dict(self.script.settings)))
        if await self._exactly(len(PREFACE)) != PREFACE:
            self.record.errors.append("no connection preface")
            return
        while True:
            frame, length = Frame.parse_frame_header(memoryview(await self._exactly(9)), strict=False)
            frame.parse_body(memoryview(await self._exactly(length)))
            await self._act(frame, nursery)
            stream = self.streams.get(frame.stream_id)
            self.tell() if stream is None else stream.news.tell()

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = await self.socket.receive_some(262_144)
            if not data:
                raise Gone
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _act(self, frame: Frame, nursery: trio.Nursery) -> None:
        stream = self.streams.get(frame.stream_id)
        if isinstance(frame, HeadersFrame):
            await self._headers(frame, nursery)
        elif isinstance(frame, DataFrame) and stream is not None:
            stream.received += len(frame.data)
            stream.ended = stream.ended or "END_STREAM" in frame.flags
            if self.script.credit and frame.flow_controlled_length:
                await self.send(WindowUpdateFrame(0, window_increment=frame.flow_controlled_length))
                if not stream.ended:
                    await self.send(WindowUpdateFrame(stream.id, window_increment=frame.flow_controlled_length))
        elif isinstance(frame, RstStreamFrame) and stream is not None:
            stream.reset = frame.error_code
        elif isinstance(frame, WindowUpdateFrame):
            if frame.stream_id == 0:
                self.window += frame.window_increment
            elif stream is not None:
                stream.window += frame.window_increment
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            await self._settings(frame)
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self.acked.add(frame.opaque_data)
            else:
                await self.send(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame.error_code

    async def _settings(self, frame: SettingsFrame) -> None:
        initial = frame.settings.get(INITIAL_WINDOW, self.initial_window)
        for stream in self.streams.values():
            stream.window += initial - self.initial_window
        self.initial_window = initial
        await self.send(SettingsFrame(0, flags=["ACK"]))

    async def _headers(self, frame: HeadersFrame, nursery: trio.Nursery) -> None:
        block, flags = bytes(frame.data), frame.flags
        while "END_HEADERS" not in flags:
            more, length = Frame.parse_frame_header(memoryview(await self._exactly(9)), strict=False)
            more.parse_body(memoryview(await self._exactly(length)))
            block += more.data
            flags = more.flags
        fields = [(str(name), str(value)) for name, value in self.decoder.decode(block)]
        stream = self.streams.get(frame.stream_id)
        ends = "END_STREAM" in frame.flags
        if stream is not None:
            stream.trailers, stream.ended = fields, ends
            return
        stream = self.streams[frame.stream_id] = Stream(self, frame.stream_id, fields)
        self.record.streams.append(stream)
        stream.ended = ends
        self.requests += 1
        self.record.most = max(self.record.most, sum(each.open for each in self.streams.values()))
        nursery.start_soon(self._run, stream)

    async def _run(self, stream: Stream) -> None:
        try:
            await self.script.run(stream)
        except Gone:
            pass
        except Exception as error:  # noqa: BLE001 - a script that breaks fails its cell
            self.record.errors.append(f"script: {type(error).__name__}: {error}")


class _News:
    """An event that is new after each telling."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class Backend:
    """A listener on a port of 127.0.0.1 whose script can be changed between cells."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.script: Script | None = None
        self.record = Record()
        self._listeners: trio.CancelScope | None = None
        self._nursery: trio.Nursery

    async def run(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        await self.up()

    async def up(self) -> None:
        """Listen."""
        if self._listeners is None:
            self._listeners = await self._nursery.start(self._listen)

    def down(self) -> None:
        """Listen no more: connections are refused."""
        if self._listeners is not None:
            self._listeners.cancel()
            self._listeners = None

    async def _listen(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            task_status.started(scope)
            await trio.serve_listeners(self._serve, listeners, handler_nursery=self._nursery)

    async def _serve(self, socket: trio.SocketStream) -> None:
        if self.script is None:
            await trio.aclose_forcefully(socket)
            return
        connection = self.connection(socket, self.script)
        self.record.connections.append(connection)
        await connection.serve()

    def connection(self, socket: trio.SocketStream, script: Script) -> Connection:
        return Connection(socket, script, self.record)

    async def play(self, script: Script | None) -> Record:
        """Close what is left of the last cell and begin another; None: be down."""
        self.script = None
        async with trio.open_nursery() as nursery:
            for connection in self.record.connections:
                nursery.start_soon(connection.close)
        self.record = Record()
        self.script = script
        if script is None:
            self.down()
        else:
            await self.up()
        return self.record
