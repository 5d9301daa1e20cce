"""From exchanges and attempts that are over to spans.

Tags are OpenTelemetry's semantic conventions of HTTP and gRPC, and Linkerd's names for what only a router knows:
``service``, ``client``, ``residual``, ``router.label``, ``l5d.success``. Values are cut to ``MAX_VALUE`` characters; a
query is left out, since it may hold secrets.
"""

from __future__ import annotations

import attrs

from dtab import Path
from router.model.exchange import Exchange
from router.model.failure import Blame
from router.model.told import grpc_status_of, status_of
from router.model.trace import CLIENT, SERVER, Span, Tag, Trace, TraceContext
from router.model.verdict import RETRYABLE, SUCCESS
from router.tracing.exporter import Exporter

MAX_VALUE = 1024
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY"))


@attrs.frozen
class Way:
    """How an attempt is named: logical name, bound id and residual, as text, ready for tags."""

    tags: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, service: Path, client: Path, residual: Path) -> Way:
        """The way from ``service`` to ``client``."""
        tags = [("service", service.show()), ("client", client.show())]
        if residual:
            tags.append(("residual", residual.show()))
        return cls(tuple([(name, value[:MAX_VALUE]) for name, value in tags]))


class Spans:
    """Makes the spans of a router's traces, for some of its exporters."""

    __slots__ = ("_exporters", "_label")

    def __init__(self, label: str, exporters: tuple[Exporter, ...]) -> None:
        self._label = label
        self._exporters = exporters

    def server(self, exchange: Exchange, trace: Trace) -> None:
        """The exchange is over."""
        head = exchange.request
        tags = self._common(exchange)
        if exchange.path is not None:
            tags["service"] = exchange.path.show()[:MAX_VALUE]
        tags["url.scheme"] = _text(head.scheme)
        tags["url.path"] = _text(head.path.partition(b"?")[0])
        tags["server.address"] = _text(head.authority)
        tags["network.protocol.version"] = "2" if head.version >= (2, 0) else f"{head.version[0]}.{head.version[1]}"
        agent = head.get(b"user-agent")
        if agent is not None:
            tags["user_agent.original"] = _text(agent)
        tags["http.request.body.size"] = 0 if exchange.body is None else exchange.body.pushed
        tags["http.response.body.size"] = exchange.reply.sent
        self._answered(tags, exchange, status_of(exchange), grpc_status_of(exchange))
        self._give(SERVER, exchange, trace, trace.context, exchange.received_at, exchange.reply.ends.client, tags)

    def attempt(self, exchange: Exchange, trace: Trace, context: TraceContext, way: Way, began: float, number: int) -> None:
        """The attempt is over. ``number``: how many there were before it."""
        tags = self._common(exchange)
        tags.update(way.tags)
        if number:
            tags["http.request.resend_count"] = number
        if trace.owner != id(exchange):
            tags["hedge"] = True
        endpoint = exchange.endpoint
        peer = None
        if endpoint is not None:
            peer = (endpoint.host, endpoint.port)
            tags["server.address"], tags["server.port"] = peer
        status = exchange.grpc_status if exchange.request.grpc else None
        of_grpc = int(status) if status is not None and status.isdigit() else None
        self._answered(tags, exchange, None if exchange.response is None else exchange.response.status, of_grpc)
        verdict = exchange.verdict
        tags["l5d.success"] = 1.0 if verdict is SUCCESS else 0.0
        if verdict is RETRYABLE:
            tags["l5d.retryable"] = True
        self._give(CLIENT, exchange, trace, context, began, peer, tags)

    def _common(self, exchange: Exchange) -> dict[str, Tag]:
        method = exchange.request.method
        tags: dict[str, Tag] = {"router.label": self._label, "http.request.method": _text(method)}
        if exchange.request.grpc:
            tags["rpc.system"] = "grpc"
        return tags

    def _answered(self, tags: dict[str, Tag], exchange: Exchange, status: int | None, of_grpc: int | None) -> None:
        """What came of it."""
        if status is not None:
            tags["http.response.status_code"] = status
        if of_grpc is not None:
            tags["rpc.grpc.status_code"] = of_grpc
        if exchange.failure is not None:
            tags["failure"] = exchange.failure.why[:MAX_VALUE]

    def _give(
        self,
        kind: str,
        exchange: Exchange,
        trace: Trace,
        context: TraceContext,
        began: float,
        peer: tuple[str, int] | None,
        tags: dict[str, Tag],
    ) -> None:
        received, wall = exchange.received_at, trace.wall
        start, end = wall + _ns(began - received), wall + _ns(exchange.now() - received)
        heard = wall + _ns(exchange.responded_at - received) if exchange.responded_at else 0
        error = _error_of(exchange, tags)
        span = Span(context, kind, self._label, _name(exchange), start, end, heard, peer, error, tags)
        for exporter in self._exporters:
            exporter.add(span)


def _name(exchange: Exchange) -> str:
    """``package.Service/Method`` of gRPC; else the method, which is all that has few values."""
    head = exchange.request
    if head.grpc:
        return _text(head.path.partition(b"?")[0].removeprefix(b"/"))
    return head.method.decode() if head.method in _METHODS else "HTTP"


def _error_of(exchange: Exchange, tags: dict[str, Tag]) -> str:
    """The kind of an error (``error.type``); none in what the client brought about."""
    if exchange.verdict is SUCCESS:
        return ""
    failure = exchange.failure
    if failure is not None:
        return "" if failure.blame is Blame.CLIENT else failure.kind.value
    status = tags.get("rpc.grpc.status_code") or tags.get("http.response.status_code")
    return "incomplete" if status is None else str(status)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _text(value: bytes) -> str:
    return value[:MAX_VALUE].decode("utf-8", "backslashreplace")[:MAX_VALUE]
