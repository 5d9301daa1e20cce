"""What can go wrong with dtabs."""

from __future__ import annotations


class DtabError(Exception):
    """Base of everything that this package raises for bad input."""


class DtabSyntaxError(DtabError):
    """Text that cannot be read.

    ``offset`` counts characters from 0, ``line`` and ``column`` from 1; all three point at the character that does not
    fit, or behind the last one. ``expected`` and ``found`` are words for people, single characters in quotes.
    """

    def __init__(self, text: str, offset: int, expected: str, found: str) -> None:
        self.text = text
        self.offset = offset
        self.expected = expected
        self.found = found
        self.line = text.count("\n", 0, offset) + 1
        self.column = offset - (text.rfind("\n", 0, offset) + 1) + 1
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """One line, with the whole text and brackets around the place, as Finagle words it."""
        at, text = self.offset, self.text
        return f"{self.expected} expected but {self.found} found at '{text[:at]}[{text[at : at + 1]}]{text[at + 1 :]}'"

    @property
    def told(self) -> str:
        """What is wrong without the text around it, and what to do about the mistakes that are made most."""
        said = f"{self.expected} expected but {self.found} found"
        before, ended = self.text[: self.offset].rstrip(), self.expected == "end of input"
        if ended and self.found == "'/'" and before and "=>" in before:
            return f"{said}: is a ';' missing before this rule?"
        if ended and self.found == "','":
            return f"{said}: rules are separated by ';'"
        if self.expected == "label char" and before.endswith("/"):
            return f"{said}: a path has no empty elements, and no '/' at its end"
        if self.expected == "'/'" and self.found == "';'":
            return f"{said}: one ';' between rules is enough"
        return f"{said}: paths begin with '/'" if self.expected == "'/'" and self.found != "end of input" else said

    def caret(self) -> str:
        """The line of the error and a caret under the place, for terminals."""
        line = (self.text.split("\n")[self.line - 1 :] or [""])[0]
        before = "".join("\t" if char == "\t" else " " for char in line[: self.column - 1])
        return f"{line}\n{before}^ {self.told}"


class DelegationError(DtabError):
    """A look-up that failed: too deep, too large, an unknown namer, a rewrite to something that is no path.

    ``code`` is ``max_depth``, ``too_large``, ``unknown_namer``, ``rewrite_error`` or ``namer``.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)
