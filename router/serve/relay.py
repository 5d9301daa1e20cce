"""What a worker writes to standard error, to the supervisor's: its log lines as they are, everything else as an event.

What is no log line comes from below Python's logging: the tracebacks of :mod:`faulthandler`, the last words of an interpreter
or a library in C. Lines of it that come together are one event, ``worker_stderr``.

Bounds: ``MAX_LINE`` bytes a line, ``MAX_RAW`` of other text an event; more becomes several.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable
from typing import Any

import trio

from router.model.events import log_event

log = logging.getLogger("waypost.relay")
log.setLevel(1)  # the worker has judged by its own levels

MAX_LINE = 65536
MAX_RAW = 6000
TOGETHER = 0.1


class Relay:
    """One worker's. ``fd`` is the reading end of its pipe, and closed by ``close``; ``who``: fields of the events."""

    def __init__(self, fd: int, as_json: bool, who: Callable[[], dict[str, Any]]) -> None:
        self._fd = fd
        self._as_json = as_json
        self._who = who
        self._rest = b""
        self._raw: list[bytes] = []
        self._ended = False
        os.set_blocking(fd, False)

    async def run(self) -> None:
        """Pass on until the other end is closed."""
        while not self._ended:
            with trio.move_on_after(TOGETHER if self._raw else math.inf) as patience:
                await trio.lowlevel.wait_readable(self._fd)
            if patience.cancelled_caught:
                self._tell_raw()
            else:
                self._read()

    def close(self) -> None:
        """Pass on what is there, and close."""
        if self._fd >= 0:
            while self._read():
                pass
            if self._rest:
                self._line(self._rest)
            self._tell_raw()
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            data = os.read(self._fd, MAX_LINE)
        except BlockingIOError:
            return False
        self._ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._rest) > MAX_LINE:
            self._line(self._rest)
            self._rest = b""
        return bool(data)

    def _line(self, line: bytes) -> None:
        if not self._as_json or _is_object(line):
            self._tell_raw()
            log.info("%s", line.decode("utf-8", "replace"), extra={"line": line + b"\n"})
            return
        if sum(map(len, self._raw)) + len(line) > MAX_RAW:
            self._tell_raw()
        self._raw.append(line)

    def _tell_raw(self) -> None:
        raw, self._raw = self._raw, []
        text = b"\n".join(raw).decode("utf-8", "replace").strip()
        if text:
            log_event(logging.WARNING, "worker_stderr", {**self._who(), "text": text})


def _is_object(line: bytes) -> bool:
    try:
        return line.startswith(b"{") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
