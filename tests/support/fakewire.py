"""A connection without a socket, for conversations with the protocols' shells."""

from __future__ import annotations

from typing import Any

from router.model.ends import Ends


class FakeWire:
    """Keeps what is written; says what it was told to do."""

    peer = "192.0.2.1:4242"
    secure = False

    def __init__(self) -> None:
        self.ends = Ends(("192.0.2.1", 4242), ("192.0.2.2", 80))
        self.client_certificate: bytes | None = None
        self.out = bytearray()
        self.protocol: Any = None
        self.congested = self.gone = self.closed = self.aborted = self.finished = False
        self.reading = True
        self.unsent = self.sent = 0
        self.agains = 0

    def start(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.out += data

    def write_pair(self, head: bytes, body: Any) -> None:
        self.write(head)
        self.write(body)

    def take(self) -> bytes:
        """What was written has left."""
        data, self.out = bytes(self.out), bytearray()
        self.sent += len(data)
        return data

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    def again(self, pause: float = 0.0) -> None:
        self.agains += 1

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        self.closed = True

    def abort(self, why: str = "aborted") -> None:
        """Ends at once, as a socket does: the protocol hears of it."""
        if not self.gone:
            self.gone = self.aborted = True
            if self.protocol is not None:
                self.protocol.lost(why)

    def reset(self, why: str = "reset") -> None:
        self.abort(why)
