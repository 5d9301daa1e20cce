"""The keys of servers that strangers reach."""

from __future__ import annotations

import re
from typing import Any

import attrs

LABELS = ("ip", "ip:port", "connectionRandom", "requestRandom", "router", "static")


def label_kind(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    """A validator: a kind of label."""
    if value not in LABELS:
        raise ValueError(f"{value!r} is not one of {', '.join(LABELS)}")


def obfuscated(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    """A validator: what an obfuscated identifier can be made of (RFC 7239 §6.3)."""
    if value is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", value):
        raise ValueError(f"letters, digits, '.', '_' and '-' only, not {value!r}")


def field_name(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    """A validator: a header that can be set to anything without harm to the message."""
    if value is not None and (not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value) or value.lower() in FRAMING):
        raise ValueError(f"{value!r} is no name for a header that says something of its own")


FRAMING = frozenset(
    (
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "via",
    )
)  # fmt: skip


@attrs.frozen
class Label:
    """``by`` and ``for`` of ``addForwardedHeader``: how one side is told."""

    kind: str = attrs.field(default="requestRandom", validator=label_kind)
    label: str | None = attrs.field(default=None, validator=obfuscated)

    def __attrs_post_init__(self) -> None:
        if (self.kind == "static") is not (self.label is not None):
            raise ValueError("'label' belongs to kind static, and to no other")


@attrs.frozen
class AddForwardedHeader:
    """``addForwardedHeader``."""

    by: Label = attrs.field(factory=Label)
    for_: Label = attrs.field(factory=Label)
