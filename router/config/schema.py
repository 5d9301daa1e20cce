"""The configuration as values. Times are as written (milliseconds or seconds by the key's name)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import attrs

from dtab import Dtab, Path, PathPattern
from router.config.access_log import AccessLogKeys
from router.config.edge import AddForwardedHeader, GrpcWeb, field_name
from router.config.tls import ClientTls, ServerTls
from router.spi import Plugin, ProtocolPlugin


def at_least(low: float) -> Callable[[Any, Any, Any], None]:
    """A validator: the value is absent or not below ``low``."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
        if value is not None and value < low:
            raise ValueError(f"must be {low:g} or more, not {value}")

    return check


def between(low: float, high: float) -> Callable[[Any, Any, Any], None]:
    """A validator: the value is absent, or ``low`` to ``high``."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
        if value is not None and not low <= value <= high:
            raise ValueError(f"must be between {low:g} and {high:g}, not {value}")

    return check


def ordered(instance: object, attribute: attrs.Attribute[Any], value: AdaptiveConcurrency | None) -> None:
    """A validator: the least limit is not above the largest."""
    if value is not None and value.min_limit > value.max_limit:
        raise ValueError(f"minLimit must not be above maxLimit, but {value.min_limit} is above {value.max_limit}")


def port_number(instance: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
    """A validator: a port."""
    if value is not None and not 0 <= value <= 65535:
        raise ValueError(f"a port is between 0 and 65535, not {value}")


def tunnel_kinds(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """A validator: kinds of tunnels."""
    for kind in value:
        if kind not in ("websocket", "connect"):
            raise ValueError(f"{kind!r} is no kind of tunnel: there are websocket and connect")


def timeout_status(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    """A validator: one of the two statuses of a timeout."""
    if value not in (503, 504):
        raise ValueError(f"must be 503 (Linkerd's) or 504, not {value}")


@attrs.frozen
class Chosen:
    """A plugin and its configuration."""

    plugin: Plugin
    config: Any


HELD = "each name holds what it needs, for as long as it is in the cache of paths"


def patterns(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """A validator: regular expressions."""
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


def host_names(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """A validator: names of hosts."""
    for name in value:
        if not re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", name, re.ASCII):
            raise ValueError(f"{name!r} is no host name: there must be no scheme, port or wildcard")


@attrs.frozen
class Security:
    """``admin.security``: what is answered. ``hosts``, waypost's own: further names of the admin interface."""

    ui_enabled: bool = True
    control_enabled: bool = True
    diagnostics_enabled: bool = True
    path_whitelist: tuple[str, ...] = attrs.field(default=(), validator=patterns)
    path_blacklist: tuple[str, ...] = attrs.field(default=(), validator=patterns)
    hosts: tuple[str, ...] = attrs.field(default=(), validator=host_names)


@attrs.frozen
class Admin:
    """``admin``. ``port``: None, where it is not given, is 9990 if that can be had. ``http_identifier_port``: where requests
    are told how they would be named. ``tls``: of both."""

    ip: str = "127.0.0.1"
    port: int | None = attrs.field(default=None, validator=port_number)
    shutdown_grace_ms: int = attrs.field(default=10000, validator=at_least(0))
    http_identifier_port: int | None = attrs.field(default=None, validator=port_number)
    tls: ServerTls | None = None
    worker_threads: int = attrs.field(default=2, metadata={"idle": "the admin interface has a process of its own"})
    security: Security = attrs.field(factory=Security)


@attrs.frozen
class Usage:
    """``usage``: accepted. Nothing is ever reported to anybody."""

    org_id: str | None = None
    enabled: bool = True


@attrs.frozen
class BindingCache:
    """``bindingCache``. ``trees`` and ``bounds`` are accepted; entries hold theirs."""

    paths: int = attrs.field(default=1000, validator=at_least(1))
    trees: int = attrs.field(default=1000, validator=at_least(1), metadata={"idle": HELD})
    bounds: int = attrs.field(default=1000, validator=at_least(1), metadata={"idle": HELD})
    clients: int = attrs.field(default=1000, validator=at_least(1), metadata={"idle": HELD})
    idle_ttl_secs: float = attrs.field(default=600, validator=at_least(0))


@attrs.frozen
class SessionConfig:
    """``serverSession`` and ``clientSession``: how long a connection may be idle, and live."""

    idle_time_ms: int | None = attrs.field(default=None, validator=at_least(1))
    life_time_ms: int | None = attrs.field(default=None, validator=at_least(1))


@attrs.frozen
class HostConnectionPool:
    """``hostConnectionPool``: the connections to one endpoint. ``min_size``: how many idleness does not close. None: the
    protocol's own."""

    min_size: int = attrs.field(default=0, validator=at_least(0))
    max_size: int | None = attrs.field(default=None, validator=at_least(1))
    idle_time_ms: int | None = attrs.field(default=None, validator=at_least(1))
    max_waiters: int = attrs.field(default=10_000, validator=at_least(0))


@attrs.frozen
class ServerBase:
    """Keys of ``servers`` in every protocol. waypost's own: ``proxy_protocol``, ``grpc_web``, ``tunnels`` (what is allowed)."""

    port: int | None = attrs.field(default=None, validator=port_number)
    ip: str = "127.0.0.1"
    tls: ServerTls | None = None
    max_call_depth: int = attrs.field(default=1000, validator=at_least(1))
    tunnels: tuple[str, ...] = attrs.field(default=("websocket",), validator=tunnel_kinds)
    max_concurrent_requests: int | None = attrs.field(default=None, validator=at_least(1))
    server_session: SessionConfig = attrs.field(factory=SessionConfig)
    clear_context: bool = False
    add_forwarded_header: AddForwardedHeader | None = None
    timestamp_header: str | None = attrs.field(default=None, validator=field_name)
    proxy_protocol: bool = False
    grpc_web: GrpcWeb | None = None


@attrs.frozen
class Server:
    """One listener."""

    base: ServerBase
    protocol: Any
    line: int

    @property
    def port(self) -> int:
        """The port; set when the file was read."""
        assert self.base.port is not None
        return self.base.port


@attrs.frozen
class Budget:
    """``retries.budget`` and ``requeueBudget``."""

    min_retries_per_sec: int = attrs.field(default=10, validator=at_least(0))
    percent_can_retry: float = attrs.field(default=0.2, validator=between(0, 1000))
    ttl_secs: float = attrs.field(default=10, validator=between(1, 60))


@attrs.frozen
class Retries:
    """``retries``. ``max_retries`` is waypost's own: of one request, whatever the budget."""

    budget: Budget = attrs.field(factory=Budget)
    backoff: Any = attrs.field(default=None, metadata={"plugin": "backoff"})
    max_retries: int = attrs.field(default=24, validator=between(0, 1000))


@attrs.frozen
class RetryBufferSize:
    """``retryBufferSize``, in bytes."""

    request_bytes: int = attrs.field(default=16383, validator=between(0, 1 << 20))
    response_bytes: int = attrs.field(default=16383, validator=between(0, 1 << 20))


@attrs.frozen
class Hedging:
    """``hedging``, waypost's own: a second attempt after ``delayMs``, or else when ``percentile`` of calls have an answer."""

    delay_ms: int | None = attrs.field(default=None, validator=between(1, 60_000))
    percentile: float = attrs.field(default=95.0, validator=between(50, 99.9))


@attrs.frozen
class ServiceBase:
    """Keys of ``service``."""

    total_timeout_ms: int | None = attrs.field(default=None, validator=at_least(1))
    retries: Retries = attrs.field(factory=Retries)
    hedging: Hedging | None = None
    classification_timeout_ms: int = attrs.field(default=100, validator=between(0, 10_000))
    retry_buffer_size: RetryBufferSize = attrs.field(factory=RetryBufferSize)
    response_classifier: Any = attrs.field(default=None, metadata={"plugin": "classifier"})


@attrs.frozen
class AdaptiveConcurrency:
    """``adaptiveConcurrency``, waypost's own: between which bounds latency moves the limit of a client."""

    min_limit: int = attrs.field(default=3, validator=between(1, 1_000_000))
    max_limit: int = attrs.field(default=1000, validator=between(1, 1_000_000))


@attrs.frozen
class ClientBase:
    """Keys of ``client``. waypost's own are ``protocol``, what is spoken to the endpoints (by default the router's), the limits
    (of requests under way, of those that wait: ``max_pending_requests``, and the adaptive one), and ``connect_timeout_ms``;
    its default is Finagle's."""

    load_balancer: Any = attrs.field(default=None, metadata={"plugin": "balancer"})
    failure_accrual: Any = attrs.field(default=None, metadata={"plugin": "accrual"})
    fail_fast: bool = False
    requeue_budget: Budget = attrs.field(factory=Budget)
    request_attempt_timeout_ms: int | None = attrs.field(default=None, validator=at_least(1))
    max_concurrent_requests: int | None = attrs.field(default=None, validator=at_least(1))
    max_pending_requests: int = attrs.field(default=0, validator=between(0, 100_000))
    adaptive_concurrency: AdaptiveConcurrency | None = attrs.field(default=None, validator=ordered)
    connect_timeout_ms: int = attrs.field(default=1000, validator=between(1, 600_000))
    host_connection_pool: HostConnectionPool = attrs.field(factory=HostConnectionPool)
    client_session: SessionConfig = attrs.field(factory=SessionConfig)
    protocol: str | None = attrs.field(default=None, metadata={"names": "protocol"})
    tls: ClientTls | None = None
    forward_client_cert: bool = False


@attrs.frozen
class Scoped:
    """``service`` or ``client``: what applies to names by prefix, in order."""

    configs: tuple[tuple[PathPattern, dict[str, Any]], ...] = ()


@attrs.frozen
class RouterBase:
    """Keys of ``routers`` in every protocol. ``max_timeout_ms``, of every request whatever the client wants, and
    ``timeout_status``, 503 or 504, are waypost's own."""

    protocol: str
    label: str | None = None
    dtab: Dtab = attrs.field(factory=Dtab)
    dst_prefix: Path = attrs.field(factory=lambda: Path.of("svc"))
    originator: bool = attrs.field(default=False, metadata={"idle": "its gauge is not supported yet"})
    experimental: bool = False
    binding_timeout_ms: int = attrs.field(default=10000, validator=at_least(1))
    max_timeout_ms: int | None = attrs.field(default=None, validator=at_least(1))
    timeout_status: int = attrs.field(default=503, validator=timeout_status)
    binding_cache: BindingCache = attrs.field(factory=BindingCache)
    identifier: Any = attrs.field(default=None, metadata={"plugin": "identifier", "list": True})
    interpreter: Any = attrs.field(default=None, metadata={"plugin": "interpreter"})
    trace_propagator: Any = attrs.field(default=None, metadata={"plugin": "propagator"})
    access_log: AccessLogKeys | None = None
    servers: Any = attrs.field(default=(), metadata={"own": "servers"})
    service: Any = attrs.field(default=Scoped(), metadata={"own": "service"})
    client: Any = attrs.field(default=Scoped(), metadata={"own": "client"})


@attrs.frozen
class Router:
    """One router, complete."""

    base: RouterBase
    protocol: ProtocolPlugin
    own: Any
    servers: tuple[Server, ...]
    line: int
    column: int

    @property
    def label(self) -> str:
        """The label, by default the protocol's name."""
        return self.base.label or self.base.protocol


def worker_count(instance: object, attribute: attrs.Attribute[Any], value: int | str) -> None:
    """A validator: a number of processes, or ``auto``."""
    if value != "auto" and not (type(value) is int and 1 <= value <= MAX_WORKERS):
        raise ValueError(f"must be 1 to {MAX_WORKERS}, or auto (one for each processor), not {value}")


MAX_WORKERS = 256


@attrs.frozen
class Config:
    """The whole file. ``workers``, waypost's own: processes that serve, or ``auto``, one for each processor."""

    routers: tuple[Router, ...]
    namers: tuple[Chosen, ...]
    admin: Admin
    workers: int | str = 1
    telemeters: tuple[Chosen, ...] = ()

    @property
    def worker_processes(self) -> int:
        """How many processes are to serve."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else int(self.workers)
