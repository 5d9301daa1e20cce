"""WebSocket on streams of HTTP/2 (RFC 8441), of the libraries h2 and wsproto: `python over_h2.py server|client PORT`.

The server echoes as the others do; the client prints a JSON object of outcomes, "" for a good one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

sys.path.insert(0, str(Path(__file__).parents[2]))
from interop.websocket import cases

DEFLATE = b"permessage-deflate"


class Stream:
    """A connection with one stream at a time, which is a WebSocket."""

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        self.sock = sock
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding=None))
        self.h2.initiate_connection()
        self.id = 0
        self.head: dict[bytes, bytes] = {}
        self.ws: Connection
        self.asked = self.ended = self.broken = self.gone = False

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def read(self) -> None:
        """Act on what comes in one read."""
        self.flush()
        data = self.sock.recv(65536)
        self.gone = not data
        self.ended = self.ended or self.gone
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.ws.receive_data(event.data)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended = True
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                self.ended = self.broken = True
            elif isinstance(event, h2.events.RequestReceived | h2.events.ResponseReceived):
                self.id, self.head = event.stream_id, dict(event.headers)
                self.asked = True
        self.flush()

    def send(self, event: Event) -> None:
        data = self.ws.send(event)
        while data:
            room = min(self.h2.local_flow_control_window(self.id), self.h2.max_outbound_frame_size, len(data))
            if room:
                self.h2.send_data(self.id, data[:room])
                data = data[room:]
            else:
                self.read()
        self.flush()

    def messages(self) -> Iterator[Any]:
        """Complete messages, and the other events, as they come."""
        pieces: list[Any] = []
        while True:
            for event in self.ws.events():
                if isinstance(event, TextMessage | BytesMessage):
                    pieces.append(event.data)
                    if event.message_finished:
                        yield type(pieces[0])().join(pieces)
                        pieces = []
                else:
                    yield event
            if self.ended:
                return
            self.read()


def agreed(connection: ConnectionType, wanted: bool) -> Connection:
    if not wanted:
        return Connection(connection)
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    return Connection(connection, [extension])


def serve(sock: socket.socket) -> None:
    stream = Stream(sock, client=False)
    stream.h2.update_settings({SettingCodes.ENABLE_CONNECT_PROTOCOL: 1, SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    while True:
        while not stream.asked and not stream.gone:
            stream.read()
        if stream.gone:
            return
        stream.asked = stream.ended = stream.broken = False
        echo(stream)


def echo(stream: Stream) -> None:
    deflate = DEFLATE in stream.head.get(b"sec-websocket-extensions", b"")
    stream.ws = agreed(ConnectionType.SERVER, deflate)
    fields = [(b"sec-websocket-extensions", DEFLATE)] if deflate else []
    assert (stream.head[b":method"], stream.head[b":protocol"]) == (b"CONNECT", b"websocket")
    stream.h2.send_headers(stream.id, [(b":status", b"200"), *fields])
    stream.flush()
    for message in stream.messages():
        if isinstance(message, str) and message.startswith("close "):
            stream.send(CloseConnection(int(message.partition(" ")[2])))
        elif isinstance(message, str):
            stream.send(TextMessage(message))
        elif isinstance(message, bytes):
            stream.send(BytesMessage(message))
        elif isinstance(message, Ping):
            stream.send(message.response())
        elif isinstance(message, CloseConnection):
            break
    if not stream.broken and not stream.gone:
        stream.h2.end_stream(stream.id)
        stream.flush()


def server(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve_safely, args=(sock,), daemon=True).start()


def _serve_safely(sock: socket.socket) -> None:
    with sock:
        try:
            serve(sock)
        except (OSError, h2.exceptions.ProtocolError) as error:
            print(f"{type(error).__name__}: {error}", flush=True)


def connect(port: int) -> Stream:
    stream = Stream(socket.create_connection(("127.0.0.1", port), timeout=10), client=True)
    while stream.h2.remote_settings.enable_connect_protocol != 1:
        stream.read()
    target = [(b":scheme", b"http"), (b":path", b"/echo"), (b":authority", b"127.0.0.1:%d" % port)]
    ask = [(b"sec-websocket-version", b"13"), (b"sec-websocket-extensions", DEFLATE)]
    stream.h2.send_headers(1, [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *target, *ask])
    stream.ws = Connection(ConnectionType.CLIENT)
    while not stream.head:
        stream.read()
    assert stream.head[b":status"] == b"200", stream.head
    stream.ws = agreed(ConnectionType.CLIENT, DEFLATE in stream.head.get(b"sec-websocket-extensions", b""))
    return stream


def play(name: str, stream: Stream) -> None:
    """One case."""
    came = stream.messages()
    if name == "text":
        stream.send(TextMessage(cases.TEXT))
        assert next(came) == cases.TEXT
    elif name == "binary":
        data = os.urandom(cases.BIG)
        stream.send(BytesMessage(data))
        assert next(came) == data
    elif name == "fragmented":
        for at, piece in enumerate(cases.PIECES):
            stream.send(TextMessage(piece, message_finished=at == len(cases.PIECES) - 1))
        assert next(came) == "".join(cases.PIECES)
    elif name == "many":
        for number in range(cases.MANY):
            stream.send(TextMessage(str(number)))
        assert [next(came) for _ in range(cases.MANY)] == [str(number) for number in range(cases.MANY)]
    elif name == "ping":
        stream.send(Ping(b"are you there?"))
        pong = next(came)
        assert isinstance(pong, Pong)
        assert pong.payload == b"are you there?"
    elif name == "deflate":
        assert b"sec-websocket-extensions" in stream.head, "not agreed on"
        stream.send(TextMessage("x" * cases.BIG))
        assert next(came) == "x" * cases.BIG
    else:
        stream.send(TextMessage(f"close {cases.CODE}"))
        close = next(came)
        assert isinstance(close, CloseConnection)
        assert close.code == cases.CODE
        stream.send(close.response())


def client(port: int) -> None:
    outcomes = {}
    for name in cases.CASES:
        try:
            stream = connect(port)
            with stream.sock:
                play(name, stream)
            outcomes[name] = ""
        except Exception as error:  # noqa: BLE001 - the outcome
            outcomes[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(outcomes))


if __name__ == "__main__":
    {"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]))
