"""Dentries and dtabs."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from dtab.path import Path, Prefix
from dtab.tree import NEG, Alt, NameTree, equivalent, map_leaves, show, simplify


@attrs.frozen
class Dentry:
    """One rule, ``prefix => destination``. ``line`` and ``column`` tell where it was read, and do not count in equality."""

    prefix: Prefix
    destination: NameTree[Path]
    line: int = attrs.field(default=0, eq=False)
    column: int = attrs.field(default=0, eq=False)

    def show(self) -> str:
        """The canonical text."""
        return f"{self.prefix.show()}=>{show(self.destination)}"


@attrs.frozen
class Dtab:
    """An ordered list of dentries; later ones are preferred."""

    dentries: tuple[Dentry, ...] = ()

    def matching(self, path: Path) -> list[Dentry]:
        """The dentries that match ``path``, the preferred one first."""
        return [dentry for dentry in reversed(self.dentries) if dentry.prefix.matches(path)]

    def lookup(self, path: Path) -> NameTree[Path]:
        """The alternatives that the matching dentries give, with the rest of the path appended to their leaves."""
        trees = [rewrite(dentry, path) for dentry in self.matching(path)]
        if not trees:
            return NEG
        return trees[0] if len(trees) == 1 else Alt(tuple(trees))

    def __add__(self, other: Dtab) -> Dtab:
        """Both tables' dentries; those of ``other`` are preferred."""
        if not other.dentries:
            return self
        return Dtab(self.dentries + other.dentries) if self.dentries else other

    def __len__(self) -> int:
        return len(self.dentries)

    def __iter__(self) -> Iterator[Dentry]:
        return iter(self.dentries)

    def strip_prefix(self, prefix: Dtab) -> Dtab:
        """This table without its first dentries, if those are ``prefix``; else unchanged."""
        size = len(prefix.dentries)
        return Dtab(self.dentries[size:]) if self.dentries[:size] == prefix.dentries else self

    def simplified(self) -> Dtab:
        """Destinations simplified, dentries that came to nothing dropped."""
        simple = [attrs.evolve(dentry, destination=simplify(dentry.destination)) for dentry in self.dentries]
        return Dtab(tuple([dentry for dentry in simple if dentry.destination != NEG]))

    def equivalent(self, other: Dtab) -> bool:
        """Whether both say the same, entry by entry."""
        if len(self) != len(other):
            return False
        return all(
            mine.prefix == theirs.prefix and equivalent(mine.destination, theirs.destination)
            for mine, theirs in zip(self, other, strict=True)
        )

    def show(self) -> str:
        """The canonical text."""
        return ";".join([dentry.show() for dentry in self.dentries])

    def to_json(self) -> list[dict[str, str]]:
        """The form of namerd's HTTP interface."""
        return [{"prefix": dentry.prefix.show(), "dst": show(dentry.destination)} for dentry in self.dentries]

    def __str__(self) -> str:
        return self.show()


def rewrite(dentry: Dentry, path: Path) -> NameTree[Path]:
    """What a matching dentry makes of a path."""
    residual = path.drop(len(dentry.prefix))
    return map_leaves(dentry.destination, lambda leaf: leaf.join(residual)) if residual else dentry.destination
