"""How a name in the file system is found, and every directory entry that the answer depends on.

A path with symbolic links depends on more than its own directory: on each link, on where that leads, and so on. Whoever
watches all the entries that a look-up went through sees every way in which its answer can change, the swap of a
directory link (Kubernetes' ``..data``, a deployment's ``current``) among them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Sequence

MAX_LINKS = 40  # as Linux has it
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


def trace(base: bytes, parts: Sequence[bytes], visit: Callable[[bytes, bytes], None]) -> tuple[bytes, os.stat_result] | None:
    """Follow ``parts`` from the real directory ``base``. Returns the real path and its status, or None if it is missing.

    ``visit(directory, name)`` is called for each entry *before* it is looked at, so that a watch set there misses nothing.
    Raises OSError when something stands in the way (no permission).
    """
    todo, at, links = deque(parts), base, 0
    status = os.lstat(base)
    while todo:
        part = todo.popleft()
        if part in (b"", b"."):
            continue
        if part == b"..":
            at = os.path.dirname(at)
            continue
        visit(at, part)
        path = os.path.join(at, part)
        try:
            status = os.lstat(path)
            target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise
        if target is None:
            at = path
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        at = b"/" if target.startswith(b"/") else at
        todo.extendleft(reversed(target.split(b"/")))
    return at, status
