"""Clients of every kind, each on a thread of its own, until they are told to stop."""

from __future__ import annotations

import functools
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import h2.exceptions

from interop.soak import http1, http2, rpc

PAUSE = 0.1  # seconds between two calls of a client: it is time that finds leaks, not load


class Load:
    """Counts what came to its end (``done``) and what did not, though it should have (``faults``)."""

    def __init__(self, http: int, grpc_port: int, secure: int, tls: ssl.SSLContext) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.faults: dict[str, str] = {}  # the first of each kind
        self._rpc = rpc.Rpc(grpc_port)
        kinds: dict[str, Callable[[], None]] = {
            "http/1.1 over TLS": functools.partial(http1.keep_alive, secure, tls),
        }
        for module, names in (
            (http1, ("keep_alive", "half_close", "slow_reader", "slow_writer", "broken", "garbage")),
            (http2, ("polite", "cancels", "slow_reader", "half_closed", "broken", "bad_frames")),
        ):
            label = "http/1.1" if module is http1 else "http/2"
            kinds |= {f"{label} {name}": functools.partial(getattr(module, name), http) for name in names}
        kinds |= {
            f"grpc {name}": getattr(self._rpc, name) for name in ("unary", "expires", "fails", "cancels", "stream", "talk")
        }
        self._threads = [threading.Thread(target=self._run, args=kind, daemon=True) for kind in kinds.items()]

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
                thread.join(2 * http1.LIMIT)
            self._rpc.close()

    def _run(self, kind: str, call: Callable[[], None]) -> None:
        while not self._stop.wait(PAUSE):
            try:
                call()
            except (OSError, ValueError, grpc.RpcError, h2.exceptions.ProtocolError) as error:
                with self._lock:
                    self.failed[kind] += 1
                    self.faults.setdefault(kind, _shown(error))
            else:
                with self._lock:
                    self.done[kind] += 1


def _shown(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name} {error.details()}"  # type: ignore[attr-defined]
    return repr(error)
