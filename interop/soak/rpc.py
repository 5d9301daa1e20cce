"""Clients of gRPC on grpcio: each does one thing on a channel that lives on, or fails with RpcError or ValueError."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import grpc

LIMIT = 20.0


class Rpc:
    """Calls on one channel. Those that are to end badly must end in that way and no other."""

    def __init__(self, port: int) -> None:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)

    def close(self) -> None:
        self._channel.close()

    def unary(self) -> None:
        """Small and large messages."""
        body = bytes(random.choice([10, 1000, 300_000]))
        if self._unary("Unary")(body, timeout=LIMIT) != body:
            raise ValueError("another message")

    def expires(self) -> None:
        """A deadline that is too short."""
        _ends(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: self._unary("Slow")(b"x", timeout=0.05))

    def fails(self) -> None:
        """A status of the server's."""
        _ends(grpc.StatusCode.UNAVAILABLE, lambda: self._unary("Fail")(b"x", timeout=LIMIT))

    def cancels(self) -> None:
        """A call that is cancelled while it waits."""
        call = self._unary("Slow").future(b"x", timeout=LIMIT)
        time.sleep(random.random() / 10)
        call.cancel()

    def stream(self) -> None:
        """A stream of messages, read to its end or cancelled within."""
        call = self._channel.unary_stream("/soak.Soak/Stream")(b"x", timeout=LIMIT)
        last = random.choice([3, 10, 20])
        for number, _ in enumerate(call, 1):
            if number == last < 20:
                call.cancel()
                return
        if last != 20:
            raise ValueError("a short stream")

    def talk(self) -> None:
        """Both ways, message by message."""
        taken = threading.Semaphore(1)
        asked = answered = 0

        def ask() -> Iterator[bytes]:
            nonlocal asked
            for asked in range(1, 21):
                taken.acquire(timeout=LIMIT)
                yield b"%d" % asked

        try:
            for answered, message in enumerate(self._channel.stream_stream("/soak.Soak/Talk")(ask(), timeout=LIMIT), 1):
                if message != b"%d" % answered:
                    raise ValueError("another message")
                taken.release()
        except grpc.RpcError as error:
            raise ValueError(f"{error.code().name} after {asked} asked and {answered} answered") from error  # type: ignore[attr-defined]
        if answered != 20:
            raise ValueError(f"a short talk of {answered}")

    def _unary(self, method: str) -> grpc.UnaryUnaryMultiCallable:
        return self._channel.unary_unary(f"/soak.Soak/{method}")


def _ends(code: grpc.StatusCode, call: object) -> None:
    try:
        call()  # type: ignore[operator]
    except grpc.RpcError as error:
        if error.code() is not code:  # type: ignore[attr-defined]
            raise
    else:
        raise ValueError(f"OK instead of {code.name}")
