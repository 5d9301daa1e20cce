"""The kinds ``h2`` and ``grpc``. An ``h2`` router treats gRPC streams as such too; ``grpc`` differs in its defaults."""

from __future__ import annotations

from typing import Any

import attrs

from protocols.grpc import deadline, web
from protocols.http2.client import connector
from protocols.http2.config import ClientConfig, RouterConfig, ServerConfig
from protocols.http2.keepalive import KeepAlive, Times
from protocols.http2.server import Http2Server
from router.model.answers import render_h2
from router.spi import ClientContext, Connect, Plugin, ProtocolPlugin, Server, ServerContext


@attrs.frozen
class Config:
    """Protocols have no configuration of their own; their keys belong to routers, servers and clients."""


def _serve(config: ServerConfig, context: ServerContext) -> Server:
    return Http2Server(config.settings(), context)


def _connect(config: ClientConfig, context: ClientContext) -> Connect:
    given = config.keepalive
    if given is None:
        return connector(config.settings(), context)
    times = Times(given.time_ms / 1000, given.timeout_ms / 1000, given.without_calls)
    return connector(config.settings(), context, KeepAlive(times, context.host, context.metrics).watch)


def _protocol(name: str, identifier: str, classifier: str) -> ProtocolPlugin:
    return ProtocolPlugin(
        name=name,
        also=("http",),
        alpn="h2",
        port=4142,
        identifier=identifier,
        classifier=classifier,
        router_config=RouterConfig,
        server_config=ServerConfig,
        client_config=ClientConfig,
        serve=_serve,
        connect=_connect,
        render=render_h2,
        edge_modules=(web.IN,),
        server_modules=(deadline.IN,),
        client_modules=(deadline.OUT,),
        per_connection=100,
        max_connections=10,
        surplus_idle=60.0,
    )


def _make_h2(config: Any, context: Any) -> ProtocolPlugin:
    return _protocol("h2", "io.l5d.header.token", "io.l5d.h2.nonRetryable5XX")


def _make_grpc(config: Any, context: Any) -> ProtocolPlugin:
    return _protocol("grpc", "io.l5d.header.path", "io.l5d.h2.grpc.default")


H2 = Plugin("h2", Config, _make_h2)
GRPC = Plugin("grpc", Config, _make_grpc)
