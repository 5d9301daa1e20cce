"""Problems of a configuration, with their place in the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import attrs


@attrs.frozen
class Problem:
    """One thing to mend. ``line`` and ``column`` count from 1; ``where`` is the dotted path of the value.

    ``severity``: ``error``; ``unsupported`` for what Linkerd knows and this version does not do yet, which is refused as
    well; ``warning``, which is not.
    """

    message: str
    line: int = 0
    column: int = 0
    where: str = ""
    severity: str = "error"

    @property
    def fatal(self) -> bool:
        """Whether the configuration must not be used."""
        return self.severity != "warning"

    def render(self, name: str, source: str) -> str:
        """``name:line:column: severity: message`` with the line and a caret."""
        where = f"   [{self.where}]" if self.where else ""
        place = f"{name}:{self.line}:{self.column}" if self.line else name
        head = f"{place}: {self.severity}: {self.message}{where}"
        lines = source.splitlines()
        if not 0 < self.line <= len(lines):
            return head
        text = "".join([char if char.isprintable() else " " for char in lines[self.line - 1]])  # a tab is one column
        return f"{head}\n{self.line:6} | {text}\n       | {' ' * (self.column - 1)}^"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` — did you mean 'x'?`` or nothing."""
    close = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f" — did you mean {close[0]!r}?" if close else ""
