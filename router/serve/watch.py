"""``waypost run --watch``: the configuration file is looked at, and what has changed is used as after SIGHUP.

It is looked at by time and not by inotify, since what mounts files (Kubernetes) replaces links several directories away. A
change is complete when two looks in a row find the same: a file that is written piece by piece is read once, when it is done.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import trio

EVERY = 1.0

Stamp = tuple[int, int, int, int]


class Watch:
    """``name``: the file, which is taken to be as it will be read in a moment."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._used = self._seen = self._look()

    def _look(self) -> Stamp | None:
        """What changes whenever the content does; None: there is no such file."""
        try:
            status = os.stat(self._name)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    async def run(self, reload: Callable[[], Awaitable[object]]) -> None:
        """Call ``reload``, once for each change, until cancelled."""
        while True:
            await trio.sleep(EVERY)
            before, self._seen = self._seen, self._look()
            if self._seen == before != self._used:
                self._used = before
                await reload()
