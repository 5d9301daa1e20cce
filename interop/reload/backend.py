"""`backend.py GRPC_PORT HTTP_PORT`: a grpcio service that echoes, at once or as a stream, and a web server, until SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc

MESSAGES, EVERY = 40, 0.05  # of a stream: how many, and how far apart in seconds


class Echo(grpc.GenericRpcHandler):
    """`/echo.Echo/Unary` and `/echo.Echo/Stream`, on raw bytes. A request that was seen before gets ALREADY_EXISTS."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._lock = threading.Lock()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if handler_call_details.method == "/echo.Echo/Unary":
            return grpc.unary_unary_rpc_method_handler(self._unary)
        if handler_call_details.method == "/echo.Echo/Stream":
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return None

    def _once(self, request: bytes, context: grpc.ServicerContext) -> None:
        with self._lock:
            known = request in self._seen
            self._seen.add(request)
        if known:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "served twice")

    def _unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._once(request, context)
        return request

    def _stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._once(request, context)
        for number in range(MESSAGES):
            yield request + b" %d" % number
            time.sleep(EVERY)


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = b"served " + self.path.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(32), handlers=(Echo(),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    web = Server(("127.0.0.1", int(sys.argv[2])), Web)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=web.shutdown).start())
    web.serve_forever()
    server.stop(0)


if __name__ == "__main__":
    main()
