"""The kind ``http``."""

from __future__ import annotations

from typing import Any

import attrs

from protocols.http1.client import connector
from protocols.http1.core import Limits
from protocols.http1.rules import MAX_FIELDS
from protocols.http1.server import Http1Server
from router.model.abuse import AbuseLimits, between
from router.model.answers import render_http
from router.spi import ClientContext, Connect, Plugin, ProtocolPlugin, Server, ServerContext


@attrs.frozen
class Config:
    """Protocols have no configuration of their own; their keys belong to routers, servers and clients."""


def _kilobytes(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 1 <= value <= 1024:
        raise ValueError(f"must be between 1 and 1024 (KB), not {value}")


@attrs.frozen
class Http1Limits(AbuseLimits):
    """The keys of ``abuse`` of an ``http`` server: :class:`AbuseLimits`', and how many headers a request may have."""

    max_header_fields: int = attrs.field(default=MAX_FIELDS, validator=between(10, 10_000))


@attrs.frozen
class ServerConfig:
    """Keys of an ``http`` server. Bytes in KB: of the request line, of all headers together. ``abuse`` is waypost's own."""

    max_initial_line_kb: int = attrs.field(default=4, validator=_kilobytes)
    max_headers_kb: int = attrs.field(default=8, validator=_kilobytes)
    abuse: Http1Limits = attrs.field(factory=Http1Limits)


@attrs.frozen
class RouterConfig:
    """Keys that ``http`` adds to a router; those of :class:`ServerConfig`, for all its servers."""

    max_initial_line_kb: int = attrs.field(default=4, validator=_kilobytes)
    max_headers_kb: int = attrs.field(default=8, validator=_kilobytes)


@attrs.frozen
class ClientConfig:
    """Keys of an ``http`` client: none yet."""


def _limits(config: ServerConfig) -> Limits:
    most = config.abuse.max_header_fields
    return Limits(line=config.max_initial_line_kb * 1024, headers=config.max_headers_kb * 1024, fields=most)


def _serve(config: ServerConfig, context: ServerContext) -> Server:
    return Http1Server(_limits(config), context, config.abuse)


def _connect(config: ClientConfig, context: ClientContext) -> Connect:
    return connector(Limits(line=8192, headers=65536, trailers=65536), context)


def _make(config: Any, context: Any) -> ProtocolPlugin:
    return ProtocolPlugin(
        name="http",
        also=("h2",),
        alpn="http/1.1",
        port=4140,
        identifier="io.l5d.header.token",
        classifier="io.l5d.http.nonRetryable5XX",
        router_config=RouterConfig,
        server_config=ServerConfig,
        client_config=ClientConfig,
        serve=_serve,
        connect=_connect,
        render=render_http,
        per_connection=1,
        max_connections=4096,
    )


HTTP = Plugin("http", Config, _make)
