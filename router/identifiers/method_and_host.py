"""``io.l5d.methodAndHost``: HTTP version, method and host are the name: ``/svc/1.1/GET/example.com``.

The host is lower-cased (it is case-insensitive, RFC 9110 §4.2.3). HTTP/1.0 has none: ``/svc/1.0/GET``. With
``httpUriInDst`` the path follows, without its query.
"""

from __future__ import annotations

import attrs

from dtab import Path
from router.identifiers.names import Names
from router.model.headers import RequestHead
from router.spi import Identifier, IdentifierContext, Plugin


@attrs.frozen
class Config:
    """``http_uri_in_dst``: whether the path is part of the name."""

    http_uri_in_dst: bool = False


def make(config: Config, context: IdentifierContext) -> Identifier:
    """Identify; an HTTP/1.1 request without Host, or with an empty segment in a path that counts, is unidentified."""
    prefix, with_uri = context.prefix, config.http_uri_in_dst

    def name(key: tuple[bytes, bytes, bytes, bytes]) -> Path | str:
        version, method, host, uri = key
        elements = uri.strip(b"/").split(b"/") if uri not in (b"", b"/") else []
        if b"" in elements or uri.startswith(b"//"):
            return "the request's path has an empty segment"
        if version == b"1.0":
            return Path((*prefix, version, method, *elements))
        if not host:
            return f"HTTP/{version.decode()} request without a Host"
        return Path((*prefix, version, method, host.lower(), *elements))

    names = Names(name)

    def identify(head: RequestHead) -> Path | str:
        uri = head.path.partition(b"?")[0] if with_uri else b""
        return names[b"%d.%d" % head.version, head.method, head.authority, uri]

    return identify


PLUGIN = Plugin("io.l5d.methodAndHost", Config, make, frozenset({"http"}))
