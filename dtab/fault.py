"""Where a text that the grammar refuses goes wrong, to the character.

lark's tokens are coarser than the characters that people mistype: a path is one token, and where it ends early the parser
complains about what follows. This recognizer walks the same grammar by characters, makes no values, and is asked only
about texts that lark has refused. ``tests/dtab/test_faults.py`` holds the two to the same verdicts.

Its nesting is that of the text's parentheses, which the reader has bounded before (``tree.MAX_NESTING``).
"""

from __future__ import annotations

import re
from typing import NoReturn

from dtab.errors import DtabSyntaxError

_blank = re.compile(r"(?:[\t\n\x0b-\r\x1c-\x20\u1680\u2000-\u2006\u2008-\u200a\u2028\u2029\u205f\u3000]|#[^\n]*)*")
_label = re.compile(r"(?:[0-9A-Za-z_:.#$%\-]|\\x[0-9A-Fa-f]{2})*")
_starts = re.compile(r"[0-9A-Za-z_:.#$%\-\\]").match
_digits = re.compile(r"[0-9]*\.?[0-9]*")
_HEX = frozenset("0123456789abcdefABCDEF")  # not a string, in which the empty string of the end would be found


def locate(text: str, kind: str) -> DtabSyntaxError:
    """The first fault of ``text`` as a ``kind``: path, prefix, tree, dentry or dtab."""
    walk = _Walk(text)
    try:
        {"path": walk.path, "prefix": walk.prefix, "tree": walk.tree, "dentry": walk.dentry, "dtab": walk.dtab}[kind]()
        walk.skip()
        walk.fault("end of input")
    except DtabSyntaxError as error:
        return error


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    @property
    def next(self) -> str:
        """The character here; empty at the end."""
        return self.text[self.at : self.at + 1]

    def fault(self, expected: str, found: str = "") -> NoReturn:
        here = f"'{self.next}'" if self.next else "end of input"
        raise DtabSyntaxError(self.text, self.at, expected, found or here)

    def skip(self) -> None:
        """White space and comments."""
        self._pass(_blank)

    def _pass(self, pattern: re.Pattern[str]) -> int:
        """Over what matches here; how long that was."""
        found = pattern.match(self.text, self.at)
        before, self.at = self.at, found.end() if found else self.at
        return self.at - before

    def accept(self, char: str) -> bool:
        """Over ``char``, if it is here."""
        here = self.next == char
        self.at += here
        return here

    def expect(self, char: str) -> None:
        if not self.accept(char):
            self.fault(f"'{char}'")

    def element(self) -> None:
        """One label, at least one character long."""
        passed = self._pass(_label)
        if self.next == "\\":
            self._escape()
        if not passed:
            self.fault("label char")

    def _escape(self) -> NoReturn:
        """An escape that is none."""
        self.at += 1
        self.expect("x")
        self.at += self.next in _HEX
        self.fault("hex char")

    def path(self, *, stars: bool = False) -> None:
        self.skip()
        self.expect("/")
        more = bool(_starts(self.next)) or (stars and self.next == "*")
        while more:
            if not (stars and self.accept("*")):
                self.element()
            more = self.accept("/")

    def prefix(self) -> None:
        self.path(stars=True)

    def tree(self) -> None:
        """Alternatives of unions of branches."""
        while True:
            self.branch()
            self.skip()
            if not (self.accept("&") or self.accept("|")):
                return

    def branch(self) -> None:
        self.skip()
        if self._weight():
            self.skip()
            self.expect("*")
            self.skip()
        self.simple()

    def _weight(self) -> bool:
        passed = self._pass(_digits)
        if passed and self.next == ".":
            self.fault("number char")
        if passed == 1 and self.text[self.at - 1] == ".":
            self.fault("weight", "'.'")
        return passed > 0

    def simple(self) -> None:
        if self.accept("("):
            self.tree()
            self.expect(")")
        elif self.next == "/":
            self.path()
        elif not (self.accept("!") or self.accept("~") or self.accept("$")):
            self.fault("simple")

    def dentry(self) -> None:
        self.prefix()
        self.skip()
        self.expect("=")
        self.expect(">")
        self.tree()

    def dtab(self) -> None:
        more = True
        while more:
            self.skip()
            if self.next:
                self.dentry()
            more = self.accept(";")
