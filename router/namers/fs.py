"""``io.l5d.fs``: a directory in which each file is a name, and its lines are the addresses.

    127.0.0.1 8080
    127.0.0.1 8081 * 0.5     # a weight
    db.example 5432          # resolved by name

Theory of operation

1. ``/#/<prefix>/a/b/rest`` is the first of ``a``, ``a/b``, ... that is a file below ``rootDir``; ``rest`` is the residual.
   Elements that begin with a dot are never looked for, which keeps paths below the root.
2. inotify tells when an entry of a watched directory was written, moved or removed; directories, not files, are watched,
   since editors and configuration managers replace files. Each observed name has one watch on the directory of its file.
   Where inotify is not to be had, the files' stamps are polled every ``POLL`` seconds.
3. A file that is missing is Neg. One that turns bad (a line that is no address, too large) keeps its last good content and
   is reported once per content, with file and line. One that was never good fails.
4. Bounds: ``MAX_BYTES`` per file; one watch per directory in use, given back when no name in it is observed any more.
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import attrs
import trio

from dtab import NEG, Activity, Addr, AddrBound, AddrFailed, Bound, Endpoint, Leaf, NameTree, Ok, Path, Source, State, read_path
from dtab.activity import Computed, Track
from dtab.namer import Answer, Resolver, union_addr
from router.model.host import Host
from router.namers.inet import InetResolver, literal  # siblings of one package
from router.spi import NamerContext, Plugin

log = logging.getLogger("waypost.namer.fs")

MAX_BYTES = 500_000
POLL = 0.1
RECHECK = 1.0  # look at everything this often, should an event have been lost
_EVENTS = 0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200  # modify, close after write, moved from, moved to, create, delete
_EVENT = struct.Struct("iIII")
_INOTIFY_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


def _is_directory(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not FilePath(value).is_dir():
        raise ValueError(f"rootDir {value!r} is not a directory")


@attrs.frozen
class Config:
    """``root_dir``: the directory. ``prefix``: below ``/#``."""

    root_dir: str = attrs.field(validator=_is_directory)
    prefix: str = "/io.l5d.fs"


class Watcher:
    """Calls back when something in a directory changed. Start ``run`` as a task; it ends by cancellation."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(_INOTIFY_FLAGS) if hasattr(self._libc, "inotify_init1") else -1
        self._watches: dict[int, str] = {}
        self._listeners: dict[str, dict[int, Callable[[], None]]] = {}

    def listen(self, directory: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after changes in ``directory``; returns what ends that."""
        listeners = self._listeners.setdefault(directory, {})
        if not listeners:
            self._add(directory)
        listeners[id(callback)] = callback

        def stop() -> None:
            listeners.pop(id(callback), None)
            if not listeners and self._listeners.pop(directory, None) is not None:
                self._remove(directory)

        return stop

    def _add(self, directory: str) -> None:
        if self.fd >= 0:
            watch = self._libc.inotify_add_watch(self.fd, os.fsencode(directory), _EVENTS)
            if watch >= 0:
                self._watches[watch] = directory

    def _remove(self, directory: str) -> None:
        for watch in [watch for watch, watched in self._watches.items() if watched == directory]:
            del self._watches[watch]
            self._libc.inotify_rm_watch(self.fd, watch)

    async def run(self) -> None:
        """Serve until cancelled; then the descriptor is closed."""
        try:
            while True:
                if self.fd >= 0 and len(self._watches) >= len(self._listeners):
                    with trio.move_on_after(RECHECK):
                        await trio.lowlevel.wait_readable(self.fd)
                    self._tell(self._changed() or set(self._listeners))
                else:  # no inotify, or none for some directory
                    await trio.sleep(POLL)
                    self._tell(set(self._listeners))
        finally:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1

    def _changed(self) -> set[str]:
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return set()
        changed, at = set(), 0
        while at + _EVENT.size <= len(data):
            watch, _, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            changed |= {self._watches[watch]} if watch in self._watches else set(self._listeners) if watch < 0 else set()
        return changed

    def _tell(self, directories: set[str]) -> None:
        for directory in directories:
            for callback in list(self._listeners.get(directory, {}).values()):
                callback()


class FsNamer:
    """See the theory of operation. ``start`` runs the watcher in the host's nursery."""

    def __init__(self, root: str, prefix: Path, resolve: Resolver) -> None:
        self._root = root
        self._prefix = prefix
        self._resolve = resolve
        self.watcher = Watcher()
        self._files: dict[tuple[bytes, ...], _File] = {}

    def start(self, host: Host) -> None:
        """Watch."""
        host.nursery.start_soon(self.watcher.run)

    def lookup(self, path: Path) -> Answer:
        """The first of the path's beginnings that is a file."""

        def compute(track: Track) -> State[NameTree[Any]]:
            for count in range(1, len(path) + 1):
                elements = tuple(path[:count])
                if any(element.startswith(b".") or b"/" in element or b"\0" in element for element in elements):
                    break
                file = self._file(elements)
                if track(file.present) == Ok(True):
                    bound = Bound(self._prefix.join(path.take(count)), file.addr, path.drop(count))
                    return Ok(Leaf(bound))
                if not os.path.isdir(file.name):
                    break
            return Ok(NEG)

        return Computed(compute)

    def _file(self, elements: tuple[bytes, ...]) -> _File:
        file = self._files.get(elements)
        if file is None:
            self._files = {key: known for key, known in self._files.items() if known.used}
            name = os.path.join(self._root, *[os.fsdecode(element) for element in elements])
            file = self._files[elements] = _File(name, self.watcher, self._resolve)
        return file


class _File:
    """One file over time: whether it is there, and the addresses that it lists."""

    def __init__(self, name: str, watcher: Watcher, resolve: Resolver) -> None:
        self.name = name
        self._watcher = watcher
        self._resolve = resolve
        self._stop: Callable[[], None] | None = None
        self._users = 0
        self._stamp: tuple[int, ...] | None = ()
        self.present: Source[bool] = Source(start=self._enter, stop=self._leave)
        self._lines: Source[list[Activity[Addr]] | AddrFailed] = Source(start=self._enter, stop=self._leave)
        self.addr: Activity[Addr] = Computed(self._addr)

    @property
    def used(self) -> bool:
        return self._users > 0

    def _addr(self, track: Track) -> State[Addr]:
        state = track(self._lines)
        if not isinstance(state, Ok):
            return state
        if isinstance(state.value, AddrFailed):
            return Ok(state.value)
        parts = [track(part) for part in state.value]
        return Ok(union_addr([part.value for part in parts if isinstance(part, Ok)] or [AddrBound()]))

    def _enter(self) -> None:
        self._users += 1
        if self._users == 1:
            self._stop = self._watcher.listen(os.path.dirname(self.name), self._check)
            self._stamp = ()
            self._check()

    def _leave(self) -> None:
        self._users -= 1
        if self._users == 0 and self._stop is not None:
            self._stop()
            self._stop = None

    def _check(self) -> None:
        """Read the file again if it is another one than before."""
        try:
            stat = os.stat(self.name)
            stamp: tuple[int, ...] | None = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            there = os.path.isfile(self.name)
        except OSError:
            stamp, there = None, False
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if there:
            self._read()
        self.present.set(Ok(there))

    def _read(self) -> None:
        try:
            self._lines.set(Ok([self._resolve_line(*line) for line in read_addresses(self.name)]))
        except (OSError, ValueError) as error:
            known = isinstance(self._lines.state, Ok) and not isinstance(self._lines.state.value, AddrFailed)
            log.error("%s%s", error, "; its last good content stays in use" if known else "")
            if not known:
                self._lines.set(Ok(AddrFailed(str(error))))

    def _resolve_line(self, host: str, port: int, weight: float) -> Activity[Addr]:
        ip = literal(host)
        if ip is not None:
            return Source(Ok(AddrBound(frozenset([Endpoint(ip, port, weight)]))))
        found = self._resolve(host, port, True)
        return found.map(lambda addr: _weigh(addr, weight))


def _weigh(addr: Addr, weight: float) -> Addr:
    if not isinstance(addr, AddrBound):
        return addr
    return AddrBound(frozenset([attrs.evolve(endpoint, weight=weight) for endpoint in addr.endpoints]))


def read_addresses(name: str) -> list[tuple[str, int, float]]:
    """(host, port, weight) of each line. Raises ValueError with file and line, or OSError."""
    with open(name, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name}: more than {MAX_BYTES} bytes of addresses")
    found = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        words = line.partition("#")[0].replace("*", " * ").split()
        if not words:
            continue
        try:
            found.append(_parse_line(words))
        except ValueError:
            raise ValueError(f"{name}:{number}: not an address (host port [* weight]): {line.strip()!r}") from None
    return found


def _parse_line(words: list[str]) -> tuple[str, int, float]:
    if len(words) == 2:
        weight = 1.0
    elif len(words) == 4 and words[2] == "*":
        weight = float(words[3])
    else:
        raise ValueError
    port = int(words[1])
    if not 0 < port < 65536 or not 0 < weight < 1e9:
        raise ValueError
    return words[0], port, weight


def make(config: Config, context: NamerContext) -> FsNamer:
    """The namer, watching."""
    namer = FsNamer(config.root_dir, Path.of("#").join(read_path(config.prefix)), InetResolver(context.host))
    namer.start(context.host)
    return namer


PLUGIN = Plugin("io.l5d.fs", Config, make)
