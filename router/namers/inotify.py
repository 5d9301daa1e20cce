"""Linux's inotify, by ctypes: the kernel tells which entries of a directory changed.

Only what the watcher needs: directories, entries by name, no recursion. See inotify(7) for the events and the limits
(``fs.inotify.max_user_instances``, ``fs.inotify.max_user_watches``).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any, NamedTuple

MODIFY, CLOSE_WRITE = 0x2, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
Q_OVERFLOW, IGNORED = 0x4000, 0x8000
ONLYDIR = 0x1000000
MASK = MODIFY | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | ONLYDIR

_HEADER = struct.Struct("iIII")
_READ = 65536


class Event(NamedTuple):
    """``watch``: which directory, -1 if events were lost. ``mask``: what happened. ``name``: to which entry."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One inotify instance: a descriptor that is readable when there are events. Raises OSError where there is none."""

    __slots__ = ("_libc", "fd")

    def __init__(self) -> None:
        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            raise OSError(errno.ENOSYS, "this system has no inotify")
        self.fd: int = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, directory: bytes) -> int:
        """Watch a directory and return its number; the same number if it is watched already. Raises OSError."""
        return self._checked(self._libc.inotify_add_watch(self.fd, directory, MASK))

    def remove(self, watch: int) -> None:
        """Watch no more; harmless if the kernel dropped the watch by itself, with the directory."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Event]:
        """The events that are there; one read, so that a flood leaves others their turn. None when it is closed, as it
        may be by the time that a task which waited for events gets its turn."""
        if self.fd < 0:
            return []
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return []
        events, at = [], 0
        while at < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            events.append(Event(watch, mask, data[at : at + length].rstrip(b"\0")))
            at += length
        return events

    def close(self) -> None:
        """Give the descriptor back; harmless when repeated."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
