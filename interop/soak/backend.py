"""`backend.py GRPC_PORT HTTP_PORT`: a grpcio service and a web server that answer well, slowly or partly, until SIGTERM.

By path of the web server: ``/small``; ``/big`` (``BIG`` bytes); ``/echo`` sends a request's body back; ``/early`` answers
before it has read the body and closes; ``/cut`` breaks off within its body, ``/reset`` with a TCP reset; ``/slow`` drips.
By method of the service ``/soak.Soak/``: ``Unary``, ``Slow``, ``Fail``, ``Stream``, ``Talk`` (both ways).
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc

BIG = 1 << 20
PIECE = bytes(8192)


class Soak(grpc.GenericRpcHandler):
    """The service, on raw bytes."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return {
            "/soak.Soak/Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "/soak.Soak/Slow": grpc.unary_unary_rpc_method_handler(slow),
            "/soak.Soak/Fail": grpc.unary_unary_rpc_method_handler(fail),
            "/soak.Soak/Stream": grpc.unary_stream_rpc_method_handler(stream),
            "/soak.Soak/Talk": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
        }.get(handler_call_details.method)


def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
    time.sleep(0.2)
    return request


def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNAVAILABLE, "as asked")
    raise AssertionError


def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    for _ in range(20):
        if not context.is_active():
            return
        yield PIECE
        time.sleep(0.01)


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def do_GET(self) -> None:
        kind = self.path.split("?")[0]
        if kind == "/big":
            self.answer(PIECE * (BIG // len(PIECE)))
        elif kind == "/slow":
            self.drip()
        elif kind in ("/cut", "/reset"):
            self.break_off(kind)
        else:
            self.answer(b"small")

    def do_POST(self) -> None:
        if self.path == "/early":
            self.close_connection = True
            self.answer(b"early")
            return
        self.answer(self.body())

    def body(self) -> bytes:
        """The whole body; raises OSError where it does not come to its end."""
        if self.headers.get("transfer-encoding") is None:
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        whole = b""
        while size := int(self.rfile.readline() or b"x", 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return whole

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for _ in range(10):
            self.wfile.write(b"400\r\n" + bytes(1024) + b"\r\n")
            time.sleep(0.02)
        self.wfile.write(b"0\r\n\r\n")

    def break_off(self, kind: str) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-length", "100000")
        self.end_headers()
        self.wfile.write(PIECE)
        self.wfile.flush()
        if kind == "/reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Peers that go away are what this is for."""


def main() -> None:
    service = grpc.server(futures.ThreadPoolExecutor(64), handlers=(Soak(),))
    service.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    service.start()
    web = Server(("127.0.0.1", int(sys.argv[2])), Web)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=web.shutdown).start())
    web.serve_forever()
    service.stop(0)


if __name__ == "__main__":
    main()
