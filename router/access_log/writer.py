"""Lines into a file, off the loop: what a slow or full disk delays are lines, never exchanges.

Theory of operation

1. Exchanges that are over are made lines of ``BATCH`` at a time, or when the lines are due: one after the other that takes a
   third of what it takes between other work, since the processor's caches do not hold both.
2. Lines are kept until ``EVERY`` seconds have passed since the first of them, then handed to a thread, which writes them
   with one call. What is handed over and not written yet is bounded by ``MAX_BYTES``; beyond that lines are dropped, and
   counted.
3. Before it writes the thread looks whether the path still is the file that it has open (somebody may have moved it away), and
   whether the file is to give way to a new one. Several processes may write to one file: they append, and the one that holds
   the file's lock moves it; the others notice.
4. What goes wrong loses those lines. It is counted, told once in ``TELL_EVERY`` seconds, and tried again with the next ones.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import attrs

from router.access_log.record import Line
from router.config.access_log import RollPolicy
from router.model.host import Host
from router.model.metrics import Metrics

EVERY = 0.1
BATCH = 64
MAX_BYTES = 8 << 20
TELL_EVERY = 60.0
STDOUT = "-"


@attrs.frozen
class FileSettings:
    """``path``: ``-`` is standard output. ``rotate_count``: how many old files are kept; -1: all."""

    path: str
    roll: RollPolicy = attrs.field(factory=RollPolicy)
    append: bool = True
    rotate_count: int = -1


class LogFile:
    """The file as the thread has it."""

    def __init__(self, settings: FileSettings) -> None:
        self._settings = settings
        self._fd = -1
        self._opened = 0.0
        self._first = True

    def write(self, data: bytes) -> None:
        """Append. Raises OSError."""
        if self._settings.path == STDOUT:
            _all(sys.stdout.fileno(), data)
            return
        if self._fd < 0 or self._moved():
            self._open()
        size = os.fstat(self._fd).st_size
        if self._settings.roll.due(size, self._opened, time.time()):
            self._roll()
        _all(self._fd, data)

    def _open(self) -> None:
        self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if self._first and not self._settings.append:
            flags |= os.O_TRUNC
        self._first = False
        self._fd = os.open(self._settings.path, flags, 0o640)
        status = os.fstat(self._fd)
        self._opened = status.st_mtime if status.st_size else time.time()

    def _moved(self) -> bool:
        try:
            there, here = os.stat(self._settings.path), os.fstat(self._fd)
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _roll(self) -> None:
        """Move the file away, unless another process does or did, and go on with a new one."""
        path = self._settings.path
        fcntl.flock(self._fd, fcntl.LOCK_EX)  # goes with the descriptor
        if not self._moved():
            os.rename(path, _free_name(path, time.strftime("%Y%m%d-%H%M%S", time.localtime(self._opened))))
            self._forget_old()
        self._open()

    def _forget_old(self) -> None:
        count = self._settings.rotate_count
        path = Path(self._settings.path)
        if count >= 0:
            old = sorted(path.parent.glob(f"{path.name}.[0-9]*"), key=lambda one: one.stat().st_mtime, reverse=True)
            for one in old[count:]:
                one.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _free_name(path: str, stamp: str) -> str:
    name, number = f"{path}.{stamp}", 0
    while os.path.exists(name):
        number += 1
        name = f"{path}.{stamp}-{number}"
    return name


def _all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Writer:
    """See the theory of operation. Everything but the thread is on the loop. It is a :class:`router.access_log.record.Room`."""

    def __init__(self, host: Host, settings: FileSettings, metrics: Metrics) -> None:
        self._host = host
        self._settings = settings
        self._lines: list[str] = []
        self.over: list[tuple[Line, Any, float]] = []
        self.now = host.timers.now
        self.full = BATCH
        self._timer: Any = None
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._waiting = 0  # bytes handed over and not written; the thread's and the loop's, under the lock
        self._lock = threading.Lock()
        self._trouble: OSError | None = None
        self._lost = 0
        self._told = -TELL_EVERY
        self._written, self._dropped = metrics.counter("written"), metrics.counter("dropped")
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """See :class:`router.access_log.record.Room`."""
        if self._timer is None:
            self._timer = self._host.timers.after(EVERY, self._hand_over)
        if len(self.over) >= BATCH:
            self._render()

    def _render(self) -> None:
        ahead = self._host.wall_ns() - int(self._host.timers.now() * 1e9)
        for line, taken, now in self.over:
            try:
                self._lines.append(line(taken, now, ahead + int(now * 1e9)))
            except Exception as error:  # noqa: BLE001 - a bug costs its line, and no other
                self._host.crashed(error)
        self.over.clear()

    def _hand_over(self, _: Any) -> None:
        self._timer = None
        self._render()
        lines, self._lines = self._lines, []
        data = "".join(lines).encode("utf-8", "backslashreplace")
        with self._lock:
            full = self._waiting + len(data) > MAX_BYTES
            self._waiting += 0 if full else len(data)
            trouble, self._trouble = self._trouble, None
            lost, self._lost = self._lost, 0
        if full:
            lost += len(lines)
        else:
            self._written.value += len(lines)
            self._queue.put(data)
        self._dropped.value += lost
        if lost:
            self._tell(trouble)

    def _tell(self, trouble: OSError | None) -> None:
        now = self._host.timers.now()
        if now - self._told >= TELL_EVERY:
            self._told = now
            cause = "the disk is too slow" if trouble is None else trouble.strerror or str(trouble)
            self._host.events.fail("access_log_trouble", file=self._settings.path, cause=cause, dropped=self._dropped.value)

    def _work(self) -> None:
        file = LogFile(self._settings)
        while (data := self._queue.get()) is not None:
            trouble = None
            try:
                file.write(data)
            except OSError as error:
                trouble = error
                file.close()
            with self._lock:
                self._waiting -= len(data)
                if trouble is not None:
                    self._trouble = trouble
                    self._lost += data.count(b"\n")
        file.close()

    def close(self, patience: float = 2.0) -> None:
        """Write what is left; give up after ``patience`` seconds."""
        if self._timer is not None:
            self._timer.cancel()
        self._hand_over(None)
        self._queue.put(None)
        self._thread.join(patience)
