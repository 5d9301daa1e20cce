"""Paths and prefixes.

A path is a tuple of non-empty byte strings. Its text escapes what cannot be shown: an element with one byte outside of
``[0-9A-Za-z_:.#$%-]`` is written as ``\\xhh`` throughout, as Finagle does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Self

SHOWABLE = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_:.#$%-")
_showable = re.compile(rb"[0-9A-Za-z_:.#$%\-]+").fullmatch
WILDCARD = b"*"


@lru_cache(maxsize=4096)
def show_element(element: bytes) -> str:
    """The canonical text of one element."""
    if _showable(element):
        return element.decode("ascii")
    return "".join(f"\\x{byte:02x}" for byte in element)


class Path(tuple[bytes, ...]):
    """A sequence of elements; compares and hashes as a tuple of bytes. ``Path.read`` is in :mod:`dtab.reader`."""

    __slots__ = ()

    def __new__(cls, elements: Iterable[bytes] = ()) -> Self:
        """A path of ``elements``. Raises ValueError for an empty element."""
        path = super().__new__(cls, elements)
        if b"" in path:
            raise ValueError("a path has no empty elements")
        return path

    @classmethod
    def of(cls, *elements: str) -> Path:
        """A path of elements given as text: ``Path.of("svc", "web")``."""
        return cls(element.encode() for element in elements)

    def show(self) -> str:
        """The canonical text; ``/`` for the empty path."""
        return "/" + "/".join([show_element(element) for element in self])

    def starts_with(self, prefix: Path) -> bool:
        """Whether the first elements are those of ``prefix``."""
        return self[: len(prefix)] == tuple(prefix)

    def take(self, count: int) -> Path:
        """The first ``count`` elements, or all."""
        return _path(self[: max(count, 0)])

    def drop(self, count: int) -> Path:
        """What is left without the first ``count`` elements."""
        return _path(self[max(count, 0) :])

    def join(self, other: Path) -> Path:
        """This path and then ``other``."""
        return _path(tuple(self) + tuple(other)) if other else self

    def __str__(self) -> str:
        return self.show()

    def __repr__(self) -> str:
        return f"Path({self.show()})"


def _path(elements: tuple[bytes, ...]) -> Path:
    """A path of elements that are known to be non-empty."""
    return tuple.__new__(Path, elements)


ROOT = Path()


class Prefix(tuple["bytes | None", ...]):
    """The left side of a dentry: elements, and None for ``*``, which matches any one element."""

    __slots__ = ()

    def matches(self, path: Path) -> bool:
        """Whether ``path`` begins with this prefix."""
        return self.mismatch(path) is None

    def mismatch(self, path: Path) -> str | None:
        """Why ``path`` does not begin with this prefix, or None if it does."""
        if len(self) > len(path):
            return f"the prefix has {len(self)} elements, the path {len(path)}"
        for at, (mine, theirs) in enumerate(zip(self, path, strict=False)):
            if mine is not None and mine != theirs:
                return f"element {at + 1} is {show_element(theirs)}, not {show_element(mine)}"
        return None

    def show(self) -> str:
        """The canonical text."""
        return "/" + "/".join(["*" if element is None else show_element(element) for element in self])

    def __str__(self) -> str:
        return self.show()

    def __repr__(self) -> str:
        return f"Prefix({self.show()})"
