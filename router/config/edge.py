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


def origins(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """A validator: origins as browsers write them, or ``*``."""
    for origin in value:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s,*]+", origin):
            raise ValueError(f"{origin!r} is no origin, such as https://app.example.com, nor '*'")


def field_names(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """A validator: names of headers."""
    for name in value:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError(f"{name!r} is no name of a header")


def _seconds(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 0 <= value <= 86400:
        raise ValueError(f"must be between 0 and 86400, not {value}")


@attrs.frozen
class GrpcWeb:
    """``grpcWeb``, waypost's own: clients of gRPC-Web are served, from browsers of these origins too."""

    allow_origins: tuple[str, ...] = attrs.field(default=(), validator=origins)
    allow_headers: tuple[str, ...] = attrs.field(default=(), validator=field_names)
    expose_headers: tuple[str, ...] = attrs.field(default=(), validator=field_names)
    allow_credentials: bool = False
    max_age_secs: int = attrs.field(default=600, validator=_seconds)

    def __attrs_post_init__(self) -> None:
        if self.allow_credentials and "*" in self.allow_origins:
            raise ValueError("allowCredentials needs origins by name: with '*' any page could act in its visitors' name")
