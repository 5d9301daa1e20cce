"""Path patterns with ``{captures}``: the prefixes of static configurations and the patterns of ``io.l5d.rewrite``.

Linkerd's PathMatcher: a pattern matches a path's first elements, piece by piece, against their printed form. ``*`` matches
any element; ``{name}`` captures; captures are greedy, and searched for within the element rather than anchored.
"""

from __future__ import annotations

import re

from dtab.path import Path, show_element

_capture = re.compile(r"\{([a-zA-Z0-9.:-_]+)\}")


def java_split(value: bytes, separator: bytes) -> list[bytes]:
    """Split as Java does: trailing empty pieces vanish."""
    parts = value.split(separator)
    while parts and not parts[-1]:
        parts.pop()
    return parts


class PathPattern:
    """A parsed pattern."""

    def __init__(self, text: str) -> None:
        self.text = text
        pieces = [piece.decode() for piece in java_split(text.encode(), b"/")]
        while pieces and not pieces[0]:
            pieces.pop(0)
        self._pieces: list[str | tuple[re.Pattern[str] | None, list[str]]] = [_piece(piece) for piece in pieces]

    def match(self, path: Path) -> dict[str, str] | None:
        """The captures, or None where ``path`` does not begin as the pattern says."""
        if len(path) < len(self._pieces):
            return None
        found: dict[str, str] = {}
        for piece, element in zip(self._pieces, path, strict=False):
            shown = show_element(element)
            if isinstance(piece, str):
                if piece not in ("*", shown):
                    return None
                continue
            regex, names = piece
            hit = regex.search(shown) if regex is not None else None
            if hit is None:
                return None
            found.update(zip(names, hit.groups(), strict=True))
        return found

    def substitute(self, captures: dict[str, str], text: str) -> str:
        """``text`` with each ``{name}`` that was captured replaced."""
        for name, value in captures.items():
            text = text.replace("{" + name + "}", value)
        return text

    def __repr__(self) -> str:
        return f"PathPattern({self.text!r})"


def _piece(piece: str) -> str | tuple[re.Pattern[str] | None, list[str]]:
    names = _capture.findall(piece)
    if not names:
        return piece
    if any("." in name for name in names):
        return None, names  # Linkerd makes dots literal before it looks for names: such a pattern matches nothing
    parts = _capture.split(piece)
    regex = "".join("(.*)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile(regex, re.DOTALL), names
