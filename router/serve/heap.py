"""What the C library does with memory that a worker gives back.

A read of a large body is a buffer of 256 KiB (:mod:`protocols.wire.connection`) that is free again a moment later. Left to
itself glibc returns such memory to the kernel as soon as half a MiB is free at the heap's end, and the next read pays for
getting it anew, page by page: 5 % of the time where bodies are large. A worker keeps up to ``KEPT`` bytes instead.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

KEPT = 2 << 20
LARGE = 1 << 20  # from this size on a buffer is mapped by itself, and unmapped when it is free

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed(environ: Mapping[str, str] = os.environ) -> bool:
    """Have the heap keep what is freed; whether it does. Who set one of glibc's variables for this has decided already,
    and another C library or allocator decides for itself."""
    if any(name in environ for name in _SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_TRIM_THRESHOLD, KEPT) and mallopt(_M_MMAP_THRESHOLD, LARGE))
