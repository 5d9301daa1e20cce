"""An HTTP/2 server for h2spec to find behind the router: `python -m interop.h2spec.backend PORT`, plaintext, until SIGTERM.

It answers every complete request with 200 and a short body. The body must not be empty: the cases on flow control look for its
first byte, and the one on concurrent streams needs streams that stay open while their window is closed.
"""

from __future__ import annotations

import socket
import socketserver
import sys
from contextlib import suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError

from interop._support import LOOPBACK

BODY = b"waypost\n" * 8


class Connection(socketserver.BaseRequestHandler):
    """One connection. `self.unsent` has what each stream's window has not let out yet."""

    request: socket.socket

    def handle(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.unsent: dict[int, bytes] = {}
        self.h2.initiate_connection()
        with suppress(ConnectionError):  # the router may go at any time
            self.request.sendall(self.h2.data_to_send())
            while data := self.request.recv(65_536):
                for event in self.h2.receive_data(data):
                    # h2 has seen the whole read: a later frame may have reset the stream, or said goodbye.
                    with suppress(ProtocolError):
                        self.react(event)
                self.request.sendall(self.h2.data_to_send())

    def react(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.h2.send_headers(event.stream_id, [(":status", "200"), ("content-length", str(len(BODY)))])
            self.unsent[event.stream_id] = BODY
            self.send(event.stream_id)
        elif isinstance(event, StreamReset):
            self.unsent.pop(event.stream_id, None)
        elif isinstance(event, WindowUpdated):
            for stream in list(self.unsent):
                self.send(stream)

    def send(self, stream: int) -> None:
        body = self.unsent.pop(stream)
        room = max(0, self.h2.local_flow_control_window(stream))  # a window can be negative
        now, later = body[:room], body[room:]
        self.h2.send_data(stream, now, end_stream=not later)
        if later:
            self.unsent[stream] = later


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Server((LOOPBACK, int(sys.argv[1])), Connection) as server:
        server.serve_forever()
