"""Whether a process that does not answer could have: one that gets no processor is slow, one that had its time hangs.

Theory of operation

1. What counts is the *chance* that its main thread had. While it sleeps, waits for a disk or is stopped, all time that passes
   is chance: nobody keeps it from answering but itself. While it can run, it is what it ran: on a machine that has no processor
   to spare that is little, in a loop without an end it is all there is.
2. Time in which we did not run ourselves (starved as well, or the machine stood still) is nobody's chance: between two looks at
   most ``MOST`` times the intended pause counts.
3. Without Linux's /proc, time is chance.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs
import trio

MOST = 2.0
RUNS = "R"
_TICK = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Usage:
    """``state``: the letter of proc(5); ``cpu``: seconds that the main thread ran."""

    state: str
    cpu: float


def usage(pid: int) -> Usage | None:
    """Of the main thread; None where that cannot be known."""
    try:
        with open(f"/proc/{pid}/task/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Usage(fields[0].decode(), (int(fields[11]) + int(fields[12])) / _TICK)


class Pulse:
    """From now on. ``chance``, ``passed`` and ``ran``: seconds."""

    def __init__(self, pid: int, look_at: Callable[[int], Usage | None] = usage) -> None:
        self._pid = pid
        self._look_at = look_at
        self._at = trio.current_time()
        self._before = look_at(pid)
        self.chance = self.passed = self.ran = 0.0

    def look(self, intended: float) -> None:
        """After a pause that was meant to be ``intended`` seconds."""
        now, seen, before = trio.current_time(), self._look_at(self._pid), self._before
        passed = now - self._at
        self._at, self._before = now, seen
        self.passed += passed
        ran = 0.0 if seen is None or before is None else seen.cpu - before.cpu
        self.ran += ran
        self.chance += ran if seen is not None and seen.state == RUNS else min(passed, MOST * intended)
