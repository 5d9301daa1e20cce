"""Text that lists addresses: ``host port [* weight]`` a line, ``#`` comments, blank lines.

Hosts are IP addresses (also short IPv4, ``127.1``) or names. A weight of 0 takes the address out of service.
"""

from __future__ import annotations

import math

import attrs

MAX_BYTES = 500 * 1024


@attrs.frozen
class Entry:
    """One line: a host as it was written, a port (1 to 65535), a weight (0 or more)."""

    host: str
    port: int
    weight: float = 1.0


class HostListError(ValueError):
    """A line that is no address. ``line`` counts from 1; 0 means the whole text."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        super().__init__(message)


def parse(data: bytes) -> tuple[Entry, ...]:
    """The addresses in ``data``, in order. Raises :class:`HostListError` for the first line that is not one."""
    if len(data) > MAX_BYTES:
        raise HostListError(0, f"more than {MAX_BYTES} bytes: split it into several names")
    entries = []
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.partition(b"#")[0].decode("utf-8", "backslashreplace")
        words = text.replace("*", " * ", 1).split()
        if words:
            entries.append(_entry(words, number))
    return tuple(entries)


def _entry(words: list[str], line: int) -> Entry:
    if len(words) == 2:
        return Entry(words[0], _port(words[1], line))
    if len(words) == 4 and words[2] == "*":
        return Entry(words[0], _port(words[1], line), _weight(words[3], line))
    shown = " ".join(words)[:80]
    raise HostListError(line, f"expected `host port` or `host port * weight`, found `{shown}`")


def _port(text: str, line: int) -> int:
    if text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536:
        return int(text)
    raise HostListError(line, f"a port is a number from 1 to 65535, not `{text[:80]}`")


def _weight(text: str, line: int) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if 0 <= weight < math.inf:
        return weight
    raise HostListError(line, f"a weight is a number such as 0.5, not `{text[:80]}`")
