"""Who wants to hear of which directory entries, over one inotify descriptor.

Theory of operation

1. A listener names entries, (directory, name) pairs that need not exist yet, and is called when one was written, created,
   moved or removed. Watches are on directories and shared; events of other entries are dropped by name.
2. ``settled`` tells the listener whether the change is complete (a file closed after writing, a rename) or may be the
   first half of one (truncation, removal), which is worth a moment's patience.
3. Lost events (a queue that overflowed, a directory that is gone) are told to everyone concerned as settled changes.
4. What cannot be watched is polled: the listener is called every ``POLL`` seconds, and tries to watch again each time.
5. The descriptor and the task that reads it exist while there are watches. Bounds: ``MAX_WATCHES`` directories.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

import trio

from router.model.host import Host
from router.model.timers import Timer
from router.namers.inotify import CLOSE_WRITE, IGNORED, MOVED_TO, Q_OVERFLOW, Event, Inotify

POLL = 1.0
MAX_WATCHES = 4096

Listener = Callable[[bool], None]
Key = tuple[int, bytes]


class Watcher:
    """See the theory of operation. ``open_inotify`` makes the descriptor."""

    def __init__(self, host: Host, open_inotify: Callable[[], Inotify] = Inotify) -> None:
        self._host = host
        self._open_inotify = open_inotify
        self._inotify: Inotify | None = None
        self._watches: dict[int, dict[bytes, set[Listener]]] = {}
        self._polled: dict[Listener, None] = {}
        self._timer: Timer | None = None
        self._warned = False

    @property
    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._watches)

    def add(self, directory: bytes, name: bytes, listener: Listener) -> Key:
        """Tell ``listener`` of changes of ``name`` in ``directory``. Returns what ends that. Raises OSError."""
        try:
            watch = self._watch(directory)
        except OSError as error:
            self._close_unused()
            self._warn(error)
            raise
        self._watches.setdefault(watch, {}).setdefault(name, set()).add(listener)
        return watch, name

    def drop(self, key: Key, listener: Listener) -> None:
        """End what ``add`` returned."""
        watch, name = key
        names = self._watches.get(watch)
        if names is None or name not in names:
            return  # the directory went away
        names[name].discard(listener)
        if not names[name]:
            del names[name]
        if not names:
            del self._watches[watch]
            if self._inotify is not None:
                self._inotify.remove(watch)
            self._close_unused()

    def poll(self, listener: Listener, wanted: bool) -> None:
        """Call ``listener`` every ``POLL`` seconds, or do not any more."""
        if not wanted:
            self._polled.pop(listener, None)
            return
        self._polled[listener] = None
        if self._timer is None:
            self._timer = self._host.timers.after(POLL, self._poll)

    def _warn(self, error: OSError) -> None:
        """Once: an exhausted limit would otherwise be reported for every name that comes along."""
        if not self._warned and error.errno not in (errno.ENOENT, errno.ENOTDIR):
            self._warned = True
            advice = "a higher fs.inotify.max_user_watches or max_user_instances"
            self._host.events.warn("namer_watch_exhausted", cause=error.strerror, looks_every_s=POLL, advice=advice)

    def _poll(self, _: None) -> None:
        self._timer = None
        self._tell(dict.fromkeys(self._polled, True))
        if self._polled and self._timer is None:
            self._timer = self._host.timers.after(POLL, self._poll)

    # -- the descriptor -------------------------------------------------------------------------------------

    def _watch(self, directory: bytes) -> int:
        inotify = self._inotify or self._open()
        watch = inotify.add(directory)
        if watch not in self._watches and len(self._watches) >= MAX_WATCHES:
            inotify.remove(watch)
            raise OSError(errno.ENOSPC, f"{MAX_WATCHES} directories are watched already")
        return watch

    def _open(self) -> Inotify:
        inotify = self._inotify = self._open_inotify()
        self._host.nursery.start_soon(self._serve, inotify)
        return inotify

    def _close_unused(self) -> None:
        inotify = self._inotify
        if inotify is not None and not self._watches:
            self._inotify = None
            trio.lowlevel.notify_closing(inotify.fd)
            inotify.close()

    async def _serve(self, inotify: Inotify) -> None:
        try:
            while inotify.fd >= 0:
                await trio.lowlevel.wait_readable(inotify.fd)
                self._dispatch(inotify.read())
        except trio.ClosedResourceError:
            return  # nobody listens any more
        finally:
            if self._inotify is inotify:
                self._inotify = None
                self._watches.clear()
            inotify.close()

    def _dispatch(self, events: Iterable[Event]) -> None:
        """Tell each listener once, however many of the events concern it."""
        heard: dict[Listener, bool] = {}
        for watch, mask, name in events:
            settled = bool(mask & (CLOSE_WRITE | MOVED_TO | IGNORED | Q_OVERFLOW))
            for listener in self._concerned(watch, mask, name):
                heard[listener] = heard.get(listener, False) or settled
        self._tell(heard)

    def _concerned(self, watch: int, mask: int, name: bytes) -> list[Listener]:
        if mask & Q_OVERFLOW:
            return [each for names in self._watches.values() for some in names.values() for each in some]
        if mask & IGNORED:
            return [each for some in self._watches.pop(watch, {}).values() for each in some]
        return list(self._watches.get(watch, {}).get(name, ()))

    def _tell(self, heard: dict[Listener, bool]) -> None:
        for listener, settled in heard.items():
            try:
                listener(settled)
            except Exception as error:  # noqa: BLE001 - one listener's bug must not silence the others
                self._host.crashed(error)
