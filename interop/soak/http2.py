"""Clients of HTTP/2 on the h2 library: each a function that does one thing on a connection of its own, or fails with OSError or
ValueError."""

from __future__ import annotations

import random
import select
import socket
import time
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.settings

LIMIT = 20.0
BODY = bytes(range(256)) * 400


class Client:
    """A connection, and what its streams have come to."""

    def __init__(self, port: int, window: int = 65535) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        values = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self.h2.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.over: dict[int, str] = {}
        self.pause = 0.0
        self.unpaid: list[tuple[int, int]] = []
        self.stingy = False  # give no credit for now
        self.settled = False
        self.flush()
        while not self.settled:
            self.step()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def flush(self) -> None:
        self._sock.sendall(self.h2.data_to_send())

    def raw(self, data: bytes) -> None:
        self.flush()
        self._sock.sendall(data)

    def request(self, path: str, body: bytes = b"", end: bool = True) -> int:
        """Begin a request, with as much of its body as the window takes."""
        stream = self.h2.get_next_available_stream_id()
        method = "POST" if body or not end else "GET"
        head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "web")]
        self.h2.send_headers(stream, head, end_stream=not body and end)
        self.bodies[stream] = b""
        self._send(stream, body, end)
        self.flush()
        return stream

    def _send(self, stream: int, body: bytes, end: bool) -> None:
        while body:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                self.flush()
                if not self.step() or stream in self.over:
                    return
                continue
            self.h2.send_data(stream, body[:room], end_stream=end and len(body) <= room)
            body = body[room:]

    def readable(self, seconds: float) -> bool:
        return bool(select.select([self._sock], [], [], seconds)[0])

    def step(self) -> bool:
        """Read once; False at the end of the connection."""
        time.sleep(self.pause)
        data = self._sock.recv(65536)
        if not data and not self.settled:
            raise ValueError("closed before SETTINGS")
        for event in self.h2.receive_data(data) if data else ():
            self._event(event)
        if data:
            self.flush()
        return bool(data)

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.SettingsAcknowledged):
            self.settled = True
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.unpaid.append((event.flow_controlled_length, event.stream_id))
            if not self.stingy:
                self.pay()
        elif isinstance(event, h2.events.StreamEnded):
            self.over[event.stream_id] = "ended"
        elif isinstance(event, h2.events.StreamReset):
            self.over[event.stream_id] = f"reset {event.error_code}"

    def pay(self) -> None:
        """Give credit for all that came."""
        for size, stream in self.unpaid:
            self.h2.acknowledge_received_data(size, stream)
        self.unpaid.clear()
        self.flush()

    def wait(self, streams: list[int]) -> None:
        while not set(streams) <= self.over.keys():
            if not self.step():
                raise ValueError("closed early")

    def cancel(self, stream: int) -> None:
        if stream not in self.over:
            self.h2.reset_stream(stream, 8)
            self.over[stream] = "cancelled"
            self.flush()


def polite(port: int) -> None:
    """Several streams at once, each to its end."""
    with Client(port) as client:
        small = [client.request("/small") for _ in range(8)]
        large = client.request("/echo", BODY)
        client.wait([*small, large])
        if client.bodies[large] != BODY or any(client.bodies[stream] != b"small" for stream in small):
            raise ValueError("another body")


def cancels(port: int) -> None:
    """Streams that are reset at any time: before an answer, within it, within the request."""
    with Client(port) as client:
        streams = [client.request(path) for path in ("/slow", "/big", "/small", "/slow", "/big")]
        streams.append(client.request("/echo", bytes(3000), end=False))
        for _ in range(random.randrange(4)):
            client.step()
        for stream in random.sample(streams, 4) + streams[-1:]:
            client.cancel(stream)
        client.wait(streams)


def slow_reader(port: int) -> None:
    """Little window, late credit; half of them leave within the answer."""
    with Client(port, window=random.choice([1000, 20000])) as client:
        client.stingy, client.pause = True, 0.02
        streams = [client.request("/big"), client.request("/slow")]
        for _ in range(random.randrange(3, 40)):
            if random.random() < 0.8 or not client.readable(0.1):
                client.pay()
            client.step()
        if random.random() < 0.5:
            return
        client.stingy, client.pause = False, 0.0
        client.pay()
        client.cancel(streams[0])
        client.wait(streams)


def half_closed(port: int) -> None:
    """Requests without an end, on streams that are left as they are, and the connection with them."""
    with Client(port) as client:
        for _ in range(3):
            client.request("/echo", bytes(2000), end=False)
        time.sleep(random.random() / 5)
        client.raw(b"")


def broken(port: int) -> None:
    """Backends that break off; what comes must come to an end."""
    with Client(port) as client:
        streams = [client.request(path) for path in ("/cut", "/reset")]
        streams.append(client.request("/early", bytes(30000)))
        client.wait(streams)


def bad_frames(port: int) -> None:
    """A good request, then what breaks a stream or the connection."""
    bad = [
        b"\0\0\4\x08\0\0\0\0\0" + bytes(4),  # WINDOW_UPDATE of 0
        b"\0\0\1\0\0\0\0\0\x63x",  # DATA on an idle stream
        b"\0\0\x08\6\0\0\0\0\1" + bytes(8),  # PING on a stream
        b"\0\0\3\1\4\0\0\1\1\xff\xff\xff",  # a header block that is none
        b"\0\0\1\1\0\0\0\0\x65\x82" + b"\0\0\1\1\0\0\0\0\x67\x82",  # HEADERS within a header block
        b"\xff\xff\xff\0\0\0\0\0\1",  # a frame beyond all measure
        random.randbytes(200),
    ]
    with Client(port) as client:
        client.request("/slow")
        client.request("/echo", bytes(100), end=False)
        try:
            client.raw(random.choice(bad))
            client._sock.shutdown(socket.SHUT_WR)
            while client._sock.recv(65536):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass
