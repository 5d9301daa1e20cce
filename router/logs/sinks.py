"""Where lines go. Neither keeps who logs waiting; what there is no room for is dropped and counted."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import BinaryIO, Protocol

MAX_BYTES = 1 << 20
PATIENCE = 2.0


class Sink(Protocol):
    """``dropped``: lines that there was no room for."""

    dropped: int

    def write(self, line: bytes) -> None:
        """Have a line, with its newline, written soon."""

    def sweep(self) -> None:
        """Write what is left, if it can be written now."""

    def close(self) -> None:
        """Write what is left, and write no more."""


class ThreadSink:
    """Written by a thread. Bound: ``MAX_BYTES`` that wait; ``close`` gives up after ``PATIENCE`` seconds."""

    def __init__(self, stream: BinaryIO) -> None:
        self.dropped = 0
        self._stream = stream
        self._waiting = 0
        self._lock = threading.Lock()
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="logs", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """See :class:`Sink`."""
        with self._lock:
            if self._waiting + len(line) > MAX_BYTES:
                self.dropped += 1
                return
            self._waiting += len(line)
        self._queue.put(line)

    def sweep(self) -> None:
        """The thread does that."""

    def _work(self) -> None:
        while (line := self._queue.get()) is not None:
            with suppress(OSError, ValueError):  # nobody reads any more; there is nobody to tell
                self._stream.write(line)
                self._stream.flush()
            with self._lock:
                self._waiting -= len(line)

    def close(self) -> None:
        """See :class:`Sink`."""
        self._queue.put(None)
        self._thread.join(PATIENCE)


class PipeSink:
    """Written at once to a pipe that nobody else writes to, else kept. Bound: ``MAX_BYTES`` that wait."""

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        self._fd = fd
        self._rest = b""
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.set_blocking(fd, False)

    def write(self, line: bytes) -> None:
        """See :class:`Sink`."""
        self.sweep()
        if len(self._rest) + len(line) > MAX_BYTES:
            self.dropped += 1
            return
        self._rest += line
        self.sweep()

    def sweep(self) -> None:
        """See :class:`Sink`."""
        while self._rest:
            try:
                self._rest = self._rest[os.write(self._fd, self._rest) :]
            except BlockingIOError:
                return
            except OSError:  # the supervisor is gone
                self._rest = b""

    def close(self) -> None:
        """See :class:`Sink`."""
        self.sweep()
