"""A gRPC server on grpcio whose messages are bytes: `backend.py PORT`, plaintext on 127.0.0.1, until SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}
PATIENCE = 5.0  # seconds for which one call waits for another


class Gate:
    """A stream that another call moves on, and whose end others can wait for."""

    def __init__(self) -> None:
        self.moves = threading.Semaphore(0)
        self.over = threading.Event()


class Echo:
    """The methods, each from bytes to bytes or to several."""

    def __init__(self) -> None:
        self._gates: dict[bytes, Gate] = {}
        self._lock = threading.Lock()

    def _gate(self, key: bytes) -> Gate:
        with self._lock:
            return self._gates.setdefault(key, Gate())

    def echo(self, request: bytes, context: Any) -> bytes:
        return request

    def via(self, request: bytes, context: Any) -> bytes:
        return _metadata(context)["via"].encode()

    def metadata(self, request: bytes, context: Any) -> bytes:
        token = _metadata(context)["x-token"]
        context.send_initial_metadata((("x-echo", token),))
        context.set_trailing_metadata((("x-trailer", token),))
        return request

    def fail(self, request: bytes, context: Any) -> bytes:
        code, _, message = request.decode().partition(" ")
        context.abort(CODES[int(code)], message)
        raise AssertionError("abort raises")

    def wait(self, request: bytes, context: Any) -> bytes:
        over = threading.Event()
        context.add_callback(over.set)
        over.wait(PATIENCE)
        return request

    def many(self, request: bytes, context: Any) -> Iterator[bytes]:
        count, size = map(int, request.split())
        for _ in range(count):
            yield bytes(size)

    def many_then_fail(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield from self.many(request, context)
        context.abort(grpc.StatusCode.ABORTED, "enough")

    def gated(self, request: bytes, context: Any) -> Iterator[bytes]:
        gate = self._gate(request)
        context.add_callback(gate.over.set)
        for at in range(5):
            yield b"%d" % at
            if not gate.moves.acquire(timeout=PATIENCE):
                context.abort(grpc.StatusCode.INTERNAL, "nobody saw the message")

    def go(self, request: bytes, context: Any) -> bytes:
        self._gate(request).moves.release()
        return b""

    def cancelled(self, request: bytes, context: Any) -> bytes:
        return b"yes" if self._gate(request).over.wait(PATIENCE / 2) else b"no"


def _metadata(context: Any) -> dict[str, str]:
    return dict(context.invocation_metadata())


def handlers(echo: Echo) -> Any:
    """The service `waypost.Echo`."""
    unary: dict[str, Callable[[bytes, Any], bytes]] = {
        "Echo": echo.echo, "Via": echo.via, "Metadata": echo.metadata, "Fail": echo.fail, "Wait": echo.wait, "Go": echo.go,
        "Cancelled": echo.cancelled,
    }  # fmt: skip
    streams = {"Many": echo.many, "ManyThenFail": echo.many_then_fail, "Gated": echo.gated}
    methods = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in unary.items()}
    methods |= {name: grpc.unary_stream_rpc_method_handler(method) for name, method in streams.items()}
    return grpc.method_handlers_generic_handler("waypost.Echo", methods)


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(64))
    server.add_generic_rpc_handlers((handlers(Echo()),))
    if not server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}"):
        raise SystemExit("no port")
    server.start()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    over.wait()
    server.stop(0).wait()


if __name__ == "__main__":
    main()
