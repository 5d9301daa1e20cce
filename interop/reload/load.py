"""Four kinds of clients in threads: keep-alive and one-shot HTTP/1.1, unary gRPC, and gRPC streams of two seconds.

Nothing is retried but what never left its client: grpcio fails a call that it was about to send when a GOAWAY arrived, however
high the GOAWAY's last stream, and leaves the replay to its transparent retries (gRFC A6). The backend refuses to serve a call a
second time, so that such a replay cannot hide a call that had been sent. A call is `lost` when it got no answer, or less of one
than it should have got; `refused` are connections that were not accepted.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from interop.reload.backend import MESSAGES

PAUSE = 0.01  # seconds between two calls of one client
LIMIT = 10.0  # seconds for a call


class Load:
    """The clients. `done`, `lost` and `refused` count by kind; `faults` says what was lost, and when."""

    def __init__(self, grpc_port: int, http_port: int, clients: int) -> None:
        self._grpc, self._http = grpc_port, http_port
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.faults: list[tuple[float, str]] = []
        kinds = (self.keep_alive, self.one_shot, self.unary, self.streams)
        self._threads = [threading.Thread(target=kind, daemon=True) for kind in kinds for _ in range(clients)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Load for the length of the block; what is under way at its end is waited for."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(LIMIT)

    def _count(self, kind: str, call: Callable[[], None]) -> bool:
        try:
            call()
        except ConnectionRefusedError:
            self.refused[kind] += 1
        except (OSError, grpc.RpcError, ValueError) as error:
            with self._lock:
                self.lost[kind] += 1
                self.faults.append((time.monotonic(), f"{kind}: {_shown(error)}"))
        else:
            with self._lock:
                self.done[kind] += 1
            return True
        return False

    def keep_alive(self) -> None:
        """One connection for as long as the server keeps it."""
        client = Client(self._http)
        while not self._stop.wait(PAUSE):
            if not self._count("keep-alive", client.get):
                client.close()
        client.close()

    def one_shot(self) -> None:
        """A connection for each request."""
        while not self._stop.wait(PAUSE):
            client = Client(self._http)
            self._count("one-shot", client.get)
            client.close()

    def unary(self) -> None:
        """Calls one after the other, on a channel of its own."""
        with self._channel() as channel:
            call = channel.unary_unary("/echo.Echo/Unary")

            def once() -> None:
                body = b"%d" % next(self._numbers)
                _same(call(body, timeout=LIMIT), body)

            while not self._stop.wait(PAUSE):
                self._count("unary", once)

    def streams(self) -> None:
        """Streams one after the other, each counted message by message."""
        with self._channel() as channel:
            call = channel.unary_stream("/echo.Echo/Stream")

            def once() -> None:
                body = b"%d" % next(self._numbers)
                _same(len(list(call(body, timeout=LIMIT))), MESSAGES)

            while not self._stop.wait(PAUSE):
                self._count("stream", once)

    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self._grpc}", [("grpc.use_local_subchannel_pool", 1)])


class Client:
    """A plain HTTP/1.1 client that keeps its connection until it is told not to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sock: socket.socket | None = None

    def get(self) -> None:
        """One request, and the whole answer to it. Raises OSError or ValueError."""
        if self._sock is None:
            self._sock = socket.create_connection(("127.0.0.1", self._port), timeout=LIMIT)
        self._sock.sendall(b"GET /x HTTP/1.1\r\nhost: web\r\n\r\n")
        data = b""
        while not data.endswith(b"served /x"):
            piece = self._sock.recv(4096)
            if not piece:
                raise ValueError(f"closed after {len(data)} bytes")
            data += piece
        _same(data.split(b" ", 2)[1], b"200")
        if b"\r\nconnection: close\r\n" in data:
            self.close()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _same(got: object, wanted: object) -> None:
    if got != wanted:
        raise ValueError(f"{got!r} instead of {wanted!r}")


def _shown(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name} {error.details()}"  # type: ignore[attr-defined]
    return str(error) or repr(error)
