"""``io.l5d.fs``: a directory in which each file is a name, and its lines are the addresses.

    127.0.0.1 8080
    127.0.0.1 8081 * 0.5     # a weight
    db.example 5432          # looked up, again and again

Theory of operation

1. ``/#/<prefix>/a/b/rest`` is the first of ``a``, ``a/b``, ... that is a file below ``rootDir``; that much is the id and
   ``rest`` the residual. Nothing there: Neg.
2. Elements that begin with a dot, or hold a slash or a NUL, are no names: no path leads above the root, and the hidden
   directories of Kubernetes' volumes are hidden here too. Symbolic links are followed wherever they lead; who may write
   in ``rootDir`` decides.
3. Every directory entry that a look-up went through is watched (:mod:`router.namers.trace`) from ``rootDir`` itself on, so
   replacing, renaming and re-linking are seen at any level. Directories above ``rootDir`` must not move.
4. A change that may be half of one (a truncation, a removal) is looked at ``SETTLE`` seconds later, a complete one at once.
   Writers that are slower than that should write another file and rename it.
5. The tree changes when files come and go; their addresses change inside of the bound name. An empty file is a name
   without endpoints.
6. A file that turns bad keeps its last good content and is reported once per error, with its line. One that was never
   good has an address state that says why.
7. Files are read where events are handled, not in a thread: they are small and local, in memory when they just changed.
   A file of 1,000 lines holds the worker for about 4 ms.
8. What names there are, in use or not, is told to who asks: the files found by going through the directories again.
   Bounds: ``hostlist.MAX_BYTES`` a file; names and watches while observed only; ``watcher.MAX_WATCHES``; ``MOST_NAMES`` names
   that are told, ``MOST_DEEP`` directories deep.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import attrs

from dtab import NEG, Bound, Computed, Leaf, NameTree, Ok, Path, State
from dtab.activity import Track
from dtab.namer import Answer, Name
from router.namers.inet import InetResolver
from router.namers.prefix import full_prefix, is_prefix
from router.namers.spot import File, Missing, Root, Seen
from router.namers.watcher import Watcher
from router.spi import NamerContext, Plugin, Watched

MOST_NAMES = 10_000
MOST_DEEP = 16


def _is_directory(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not os.path.isdir(value):
        raise ValueError(f"rootDir {value!r} is not a directory: create it, or correct the path")


@attrs.frozen
class Config:
    """``root_dir``: the directory, which must exist. ``prefix``: below ``/#``."""

    root_dir: str = attrs.field(validator=_is_directory)
    prefix: str = attrs.field(default="/io.l5d.fs", validator=is_prefix)


class FsNamer:
    """See the theory of operation."""

    def __init__(self, root: Root, prefix: Path) -> None:
        self._root = root
        self._prefix = prefix

    def lookup(self, path: Path) -> Answer:
        """The first of the path's beginnings that is a file."""

        def compute(track: Track) -> State[NameTree[Name]]:
            for count, element in enumerate(path, 1):
                if element.startswith(b".") or b"/" in element or b"\0" in element:
                    break
                spot = self._root.spot(path.take(count))
                state: State[Seen] = track(spot.seen)
                if not isinstance(state, Ok):
                    return state
                if isinstance(state.value, File):
                    return Ok(Leaf(Bound(self._prefix.join(path.take(count)), spot.addr, path.drop(count))))
                if isinstance(state.value, Missing):
                    break
            return Ok(NEG)

        return Computed(compute)

    def watched(self) -> Iterable[Watched]:
        """See :class:`router.spi.Watching`."""
        return [spot.watched() for spot in list(self._root.spots.values())]

    def names(self) -> Iterable[Path]:
        """See :class:`router.spi.Enumerating`."""
        return islice(_files(os.path.join(self._root.base, self._root.name), (), frozenset()), MOST_NAMES)


def _files(directory: bytes, elements: tuple[bytes, ...], above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """The files below a directory; what cannot be read has none. A link that leads back up is not followed."""
    try:
        status = os.stat(directory)
        found = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    here = (status.st_dev, status.st_ino)
    if here in above or len(elements) >= MOST_DEEP:
        return
    for entry in found:
        if entry.name.startswith(b"."):
            continue
        if _is(entry.is_dir):
            yield from _files(entry.path, (*elements, entry.name), above | {here})
        elif _is(entry.is_file):
            yield Path((*elements, entry.name))


def _is(question: Callable[[], bool]) -> bool:
    """Its answer; no, where nothing can be said (a loop of links)."""
    try:
        return question()
    except OSError:
        return False


def make(config: Config, context: NamerContext) -> FsNamer:
    """The namer. It watches while its names are observed."""
    above, name = os.path.split(os.path.abspath(os.fsencode(config.root_dir)))
    watcher = Watcher(context.host)
    failures = context.metrics.counter("failures")
    root = Root(os.path.realpath(above), name, watcher, context.host, InetResolver(context.host), failures)
    context.metrics.gauge("names", lambda: len(root.spots))
    context.metrics.gauge("watches", lambda: watcher.watches)
    return FsNamer(root, full_prefix(config.prefix))


PLUGIN = Plugin("io.l5d.fs", Config, make)
