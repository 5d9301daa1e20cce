"""One place below the root of the ``io.l5d.fs`` namer: what is there, over time. The rules are at the top of :mod:`fs
<router.namers.fs>`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence

import attrs

from dtab import Activity, Computed, Failed, Ok, Path, Pending, Source, State
from dtab.activity import Track
from dtab.namer import Addr, AddrBound, AddrFailed, AddrNeg, AddrPending, Endpoint, Resolver, union_addr
from router.model.host import Host
from router.model.metrics import Counter
from router.model.timers import Timer
from router.namers.hostlist import MAX_BYTES, Entry, HostListError, parse
from router.namers.inet import literal
from router.namers.trace import trace
from router.namers.watcher import Key, Watcher
from router.spi import Watched

SETTLE = 0.04
_FRESH = 2_000_000_000  # ns: a file this young can change again without changing its time of change
_GONE = (FileNotFoundError, NotADirectoryError)


@attrs.frozen
class Missing:
    """Nothing is there."""


@attrs.frozen
class Directory:
    """Names are further below."""


@attrs.frozen
class File:
    """A file: what its lines say, or why they cannot be understood. ``addrs`` are those lines' addresses over time."""

    entries: tuple[Entry, ...] | str
    fixed: frozenset[Endpoint] = attrs.field(default=frozenset(), eq=False)
    addrs: tuple[Activity[Addr], ...] = attrs.field(default=(), eq=False)


Seen = Missing | Directory | File


@attrs.frozen
class Root:
    """Where places are: ``name`` in the real directory ``base``. ``spots`` are the places that are observed."""

    base: bytes
    name: bytes
    watcher: Watcher
    host: Host
    resolve: Resolver
    failures: Counter
    spots: dict[tuple[bytes, ...], Spot] = attrs.field(factory=dict)

    def spot(self, elements: Path) -> Spot:
        """The place of these names."""
        return self.spots.get(elements) or Spot(self, elements)


class Spot:
    """One place below the root, over time; among the namer's ``spots`` while it is observed."""

    def __init__(self, root: Root, elements: Path) -> None:
        self._root = root
        self._elements = elements
        self._keys: set[Key] = set()
        self._timer: Timer | None = None
        self._stamp: tuple[int, ...] | None = None
        self._reported = ""
        self._since = self._error_at = 0.0
        self._error = ""
        self.seen: Source[Seen] = Source(start=self._start, stop=self._stop)
        self.addr: Activity[Addr] = Computed(self._addr)

    def _start(self) -> None:
        self._root.spots.setdefault(self._elements, self)
        self._stamp = None
        self._set(Pending())  # what was seen in an earlier life is no "last good content"
        self._look()

    def _stop(self) -> None:
        self._watch(set(), poll=False)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._root.spots.get(self._elements) is self:
            del self._root.spots[self._elements]

    # -- looking --------------------------------------------------------------------------------------------

    def _changed(self, settled: bool) -> None:
        if settled:
            self._look()
        elif self._timer is None:
            self._timer = self._root.host.timers.after(SETTLE, self._look)

    def _look(self, _: None = None) -> None:
        """Find the place again, watch the way to it, and read what is there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        keys: set[Key] = set()
        unwatched: list[OSError] = []

        def visit(directory: bytes, name: bytes) -> None:
            try:
                keys.add(self._root.watcher.add(directory, name, self._changed))
            except _GONE:
                pass  # just now; the entry of the directory itself is watched
            except OSError as error:
                unwatched.append(error)

        try:
            found = trace(self._root.base, (self._root.name, *self._elements), visit)
        except OSError as error:
            self._watch(keys, poll=True)
            self._unreachable(error)
            return
        self._watch(keys, poll=bool(unwatched))
        self._found(found)

    def _watch(self, keys: set[Key], *, poll: bool) -> None:
        """Keep these watches and no others."""
        watcher = self._root.watcher
        for key in self._keys - keys:
            watcher.drop(key, self._changed)
        self._keys = keys
        watcher.poll(self._changed, poll)

    def _found(self, found: tuple[bytes, os.stat_result] | None) -> None:
        if found is None:
            self._stamp = None
            self._set(Ok(Missing()))
        elif stat.S_ISDIR(found[1].st_mode):
            self._stamp = None
            self._set(Ok(Directory()))
        elif not stat.S_ISREG(found[1].st_mode):
            self._bad(f"{os.fsdecode(found[0])}: not a file; replace it by a file of addresses")
        elif self._is_new(found[1]):
            self._read(found[0])

    def _is_new(self, status: os.stat_result) -> bool:
        """Whether the file may be another than the one that was read."""
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known, self._stamp = self._stamp, stamp
        return stamp != known or abs(time.time_ns() - max(stamp[3:])) < _FRESH

    def _read(self, name: bytes) -> None:
        try:
            with open(name, "rb", opener=_open) as file:
                entries = parse(file.read(MAX_BYTES + 1))
        except HostListError as error:
            line = f":{error.line}" if error.line else ""
            self._bad(f"{os.fsdecode(name)}{line}: {error}")
        except OSError as error:
            self._stamp = None
            self._bad(f"{os.fsdecode(name)}: cannot be read: {error.strerror}")
        else:
            self._reported = ""
            self._set(Ok(self._file(entries)))

    # -- what was seen --------------------------------------------------------------------------------------

    def watched(self) -> Watched:
        """What is known, for people."""
        root, name = self._root, self._elements.show()
        source = os.fsdecode(os.path.join(root.base, root.name, *self._elements))
        state = self.seen.state
        known = (name, source, _word(state), self._since, self._error, self._error_at)
        if not (isinstance(state, Ok) and isinstance(state.value, File)):
            return Watched(*known)
        addr = self.addr.sample()
        return Watched(*known, addr.value if isinstance(addr, Ok) else AddrPending())

    def _set(self, state: State[Seen]) -> None:
        if state != self.seen.state or not self._since:
            self._since = self._now()
        self.seen.set(state)

    def _fault(self, problem: str) -> None:
        self._error, self._error_at = problem, self._now()

    def _now(self) -> float:
        return self._root.host.wall_ns() / 1e9

    def _bad(self, problem: str) -> None:
        """Say it once; good content stays."""
        state = self.seen.state
        good = isinstance(state, Ok) and isinstance(state.value, File) and not isinstance(state.value.entries, str)
        if problem != self._reported:
            self._reported = problem
            self._fault(problem)
            self._root.failures.value += 1
            in_use = "its last good content" if good else "nothing"
            self._root.host.events.fail("namer_file_refused", cause=problem, in_use=in_use)
        if not good:
            self._set(Ok(File(problem)))

    def _unreachable(self, error: OSError) -> None:
        """What was known stays, be it that there is nothing."""
        if error.strerror != self._reported:
            self._reported = error.strerror or ""
            file = os.fsdecode(error.filename or b"?")
            self._fault(f"{file}: {error.strerror}")
            self._root.host.events.fail("namer_file_unreachable", file=file, cause=error.strerror)
        if isinstance(self.seen.state, Pending):
            self._set(Failed(error))

    def _file(self, entries: tuple[Entry, ...]) -> File:
        fixed: list[Endpoint] = []
        addrs: list[Activity[Addr]] = []
        for entry in entries:
            ip = literal(entry.host)
            if not entry.weight:
                continue
            if ip is not None:
                fixed.append(Endpoint(ip, entry.port, entry.weight))
            else:
                addrs.append(self._root.resolve(entry.host, entry.port, False).map(_weighing(entry.weight)))
        return File(entries, frozenset(fixed), tuple(addrs))

    def _addr(self, track: Track) -> State[Addr]:
        state: State[Seen] = track(self.seen)
        if not isinstance(state, Ok):
            return state
        file = state.value
        if not isinstance(file, File):
            return Ok(AddrNeg())
        if isinstance(file.entries, str):
            return Ok(AddrFailed(file.entries))
        return _together(file.fixed, [track(addr) for addr in file.addrs])


def _together(fixed: frozenset[Endpoint], states: Sequence[State[Addr]]) -> State[Addr]:
    """All endpoints that are known; pending only while none is and one may come."""
    known: list[Addr] = [state.value for state in states if isinstance(state, Ok)]
    if fixed or not states:
        known.append(AddrBound(fixed))
    return Ok(union_addr(known)) if known else states[0]


def _word(state: State[Seen]) -> str:
    if not isinstance(state, Ok):
        return "pending" if isinstance(state, Pending) else "failed"
    if isinstance(state.value, File):
        return "failed" if isinstance(state.value.entries, str) else "bound"
    return "neg" if isinstance(state.value, Missing) else "directory"


def _weighing(weight: float) -> Callable[[Addr], Addr]:
    def weigh(addr: Addr) -> Addr:
        if not isinstance(addr, AddrBound):
            return addr
        return AddrBound(frozenset([attrs.evolve(endpoint, weight=weight) for endpoint in addr.endpoints]))

    return weigh


def _open(name: str | bytes, flags: int) -> int:
    """Never wait: what was a file a moment ago may be a pipe without a writer now."""
    return os.open(name, flags | os.O_NONBLOCK)
