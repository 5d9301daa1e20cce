"""Who may call from a browser: Cross-Origin Resource Sharing (Fetch Standard §3.2) for gRPC-Web, and for nothing else.

A preflight is ours when it announces a POST with ``x-grpc-web``, which clients of gRPC-Web always send; others, of other things
that the same server routes, go to their endpoints.
"""

from __future__ import annotations

from typing import Protocol

from router.model.headers import Fields, RequestHead, ResponseHead

REQUESTED = ("content-type", "grpc-timeout", "x-grpc-web", "x-user-agent")
EXPOSED = ("grpc-message", "grpc-status", "grpc-status-details-bin")
_VARY = (b"vary", b"origin")


class Allowed(Protocol):
    """What is allowed: origins (``*``: all), request headers and response headers beyond gRPC-Web's own, cookies; and how long
    browsers may remember that, in seconds."""

    allow_origins: tuple[str, ...]
    allow_headers: tuple[str, ...]
    expose_headers: tuple[str, ...]
    allow_credentials: bool
    max_age_secs: int


class Cors:
    """The rules of one server."""

    __slots__ = ("_any", "_exposed", "_given", "_origins")

    def __init__(self, allowed: Allowed) -> None:
        self._any = "*" in allowed.allow_origins
        self._origins = frozenset([origin.encode() for origin in allowed.allow_origins])
        credentials: Fields = ((b"access-control-allow-credentials", b"true"),) if allowed.allow_credentials else ()
        self._given: Fields = (
            (b"access-control-allow-methods", b"POST"),
            (b"access-control-allow-headers", _list(REQUESTED, allowed.allow_headers)),
            (b"access-control-max-age", b"%d" % allowed.max_age_secs),
            *credentials,
        )
        self._exposed: Fields = (
            (b"access-control-expose-headers", _list(EXPOSED, allowed.expose_headers)),
            *credentials,
        )

    def preflight(self, head: RequestHead) -> ResponseHead | None:
        """The answer to a preflight of gRPC-Web; None where the request is none. Who is not allowed gets 403."""
        if head.method != b"OPTIONS" or head.get(b"access-control-request-method") != b"POST":
            return None
        announced = b",".join(head.get_all(b"access-control-request-headers")).lower().split(b",")
        origin = head.get(b"origin")
        if origin is None or b"x-grpc-web" not in [name.strip() for name in announced]:
            return None
        if not self._allows(origin):
            return ResponseHead(403, (_VARY,))
        return ResponseHead(204, (*self._allow(origin), *self._given))

    def answer(self, origin: bytes | None) -> Fields:
        """What a response to ``origin`` says."""
        if origin is None or not self._allows(origin):
            return () if self._any else (_VARY,)
        return (*self._allow(origin), *self._exposed)

    def _allows(self, origin: bytes) -> bool:
        return self._any or origin in self._origins

    def _allow(self, origin: bytes) -> Fields:
        if self._any:
            return ((b"access-control-allow-origin", b"*"),)
        return ((b"access-control-allow-origin", origin), _VARY)


def _list(own: tuple[str, ...], more: tuple[str, ...]) -> bytes:
    return ", ".join(sorted({*own, *[name.lower() for name in more]})).encode()
