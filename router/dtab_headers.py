"""Dtabs in headers: Linkerd's ``l5d-ctx-dtab`` and ``l5d-dtab``, and Finagle's ``Dtab-Local`` and ``X-Dtab-*``.

The order of merging is context first, then the user's override, which is therefore preferred. All readers raise
:class:`dtab.DtabError` with the reason.
"""

from __future__ import annotations

import base64
import binascii

from dtab import Dentry, Dtab, DtabError, DtabSyntaxError, read_dtab, read_prefix, read_tree
from router.model.headers import Field

CTX_DTAB = b"l5d-ctx-dtab"
USER_DTAB = b"l5d-dtab"
FINAGLE_LIMIT = 100


def read_linkerd(fields: list[Field]) -> Dtab:
    """All ``l5d-ctx-dtab`` values, then all ``l5d-dtab`` values, each one dtab."""
    texts = [value for name, value in fields if name.lower() == CTX_DTAB]
    texts += [value for name, value in fields if name.lower() == USER_DTAB]
    table = Dtab()
    for text in texts:
        table += read_dtab(text.decode("latin-1"))
    return table


def write_linkerd(table: Dtab) -> Field | None:
    """The header to forward, or None for an empty dtab."""
    return (CTX_DTAB, table.show().encode()) if table else None


def read_finagle(fields: list[Field]) -> Dtab:
    """The legacy pairs, then ``Dtab-Local``, whose values are split at commas first."""
    table = _legacy([(name.decode("latin-1").lower(), value) for name, value in fields])
    for name, value in fields:
        if name.lower() == b"dtab-local":
            for piece in value.decode("latin-1").split(","):
                if piece:
                    table += read_dtab(piece)
    return table


def write_finagle(table: Dtab) -> Field | None:
    """The ``dtab-local`` header, or None for an empty dtab. Raises for 100 dentries or more."""
    if len(table) >= FINAGLE_LIMIT:
        raise DtabError(f"Dtabs with length greater than {FINAGLE_LIMIT} are not serializable with HTTP")
    return (b"dtab-local", table.show().encode()) if table else None


def _legacy(fields: list[tuple[str, bytes]]) -> Dtab:
    pairs = sorted([(name, value) for name, value in fields if name.startswith("x-dtab-")], key=lambda field: field[0])
    if len(pairs) % 2:
        raise DtabError("Unmatched X-Dtab headers")
    dentries = []
    for (name_a, a), (name_b, b) in zip(pairs[::2], pairs[1::2], strict=True):
        if name_a[:-1] != name_b[:-1] or name_a[-1] != "a" or name_b[-1] != "b":
            raise DtabError("Unmatched X-Dtab headers")
        dentries.append(_dentry(_base64(a), _base64(b)))
    return Dtab(tuple(dentries))


def _dentry(prefix: str, tree: str) -> Dentry:
    try:
        left = read_prefix(prefix)
    except DtabSyntaxError:
        raise DtabError(f"Invalid prefix: {prefix}") from None
    try:
        return Dentry(left, read_tree(tree))
    except DtabSyntaxError:
        raise DtabError(f"Invalid name: {tree}") from None


def _base64(value: bytes) -> str:
    """Java's basic decoder: padding may be left out, but not be wrong."""
    padded = value if b"=" in value else value + b"=" * (-len(value) % 4)
    try:
        if len(padded) % 4:
            raise binascii.Error("padding that is not needed")  # which Python would pass over
        return base64.b64decode(padded, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        raise DtabError(f"Value not b64-encoded: {value.decode('latin-1')}") from None
