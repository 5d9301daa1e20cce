"""Records as text: Linkerd's line, JSON, or a template of one's own (``{method} {path} {status}``)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _string
from math import inf
from typing import Any

from router.access_log.record import Route, text, trace_of, values
from router.config.access_log import JSON, LINKERD, read_template
from router.model.exchange import Attempt, Exchange, Routed
from router.model.told import grpc_status_of, status_of

Render = Callable[[Exchange], str]

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


class Clock:
    """The time of day as text, made once a second."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._second = 0
        self._text = ""

    def second(self, seconds: float) -> str:
        """That second."""
        if int(seconds) != self._second:
            self._second = int(seconds)
            self._text = time.strftime(self._form, time.localtime(seconds))
        return self._text


def renderer(form: str, router: str, server: str, route: Route) -> Render:
    """``form`` is ``linkerd``, ``json`` or a template."""
    if form == LINKERD:
        return linkerd_line()
    clock = Clock("%Y-%m-%dT%H:%M:%S")
    zone = Clock("%z")

    def all_values(exchange: Exchange) -> dict[str, Any]:
        now = exchange.host.wall_ns() / 1e9
        moment = f"{clock.second(now)}.{int(now % 1 * 1e6):06d}{zone.second(now)}"
        return values(exchange, router, server, route, moment)

    if form == JSON:
        return JsonLine(router, server, route)
    parts = read_template(form)

    def by_template(exchange: Exchange) -> str:
        known = all_values(exchange)
        return "".join([part + ("" if name is None else _shown(known[name])) for part, name in parts]) + "\n"

    return by_template


class JsonLine:
    """What ``json.dumps`` would write of :func:`~router.access_log.record.values`, in less than half of the time: what all
    exchanges of a server or with a name have in common is written once."""

    def __init__(self, router: str, server: str, route: Route) -> None:
        self._route = route
        self._of_server = f'"router":{_string(router)},"server":{_string(server)},"peer":'
        self._clock, self._zone = Clock("%Y-%m-%dT%H:%M:%S"), Clock("%z")

    def __call__(self, exchange: Exchange) -> str:
        head, reply, failure = exchange.request, exchange.reply, exchange.failure
        received, now = exchange.received_at, exchange.now()
        wall = exchange.host.wall_ns()
        seconds = wall // 1_000_000_000
        routed = self._route(exchange)
        of_route = routed.text or self._written(routed)
        attempts, endpoint, response, body = exchange.attempts or (), exchange.endpoint, exchange.response, exchange.body
        left = exchange.deadline - now
        limits = "null" if left == inf else f"{(exchange.deadline - received) * 1e3:.3f}"
        http = 2 if head.version >= (2, 0) else f"{head.version[0]}.{head.version[1]}"
        status, of_grpc = status_of(exchange), grpc_status_of(exchange)
        return (
            f'{{"time":"{self._clock.second(seconds)}.{wall // 1000 % 1_000_000:06d}{self._zone.second(seconds)}",'
            f"{self._of_server}{_string(reply.peer)},"
            f'"method":{_bytes(head.method)},"authority":{_bytes(head.authority)},"path":{_bytes(head.path)},'
            f'"protocol":"HTTP/{http}","grpc":{"true" if head.grpc else "false"},{of_route},'
            f'"endpoint":{"null" if endpoint is None else _string(endpoint.show())},'
            f'"attempts":[{",".join([_attempt(attempt, received) for attempt in attempts])}],"retries":{exchange.retries},'
            f'"status":{_number(status)},"grpc_status":{_number(of_grpc)},'
            f'"upstream_status":{"null" if response is None else response.status},'
            f'"request_bytes":{0 if body is None else body.pushed},"response_bytes":{reply.sent},'
            f'"deadline_ms":{limits},"left_ms":{"null" if left == inf else f"{left * 1e3:.3f}"},'
            f'"sent_ms":{f"{(attempts[0].began - received) * 1e3:.3f}" if attempts else "null"},'
            f'"first_byte_ms":{_since(exchange.responded_at, received)},"total_ms":{(now - received) * 1e3:.3f},'
            f'"failure":{"null" if failure is None else _string(failure.why)},'
            f'"blame":{"null" if failure is None else _string(failure.blame.value)},'
            f'"trace":{_maybe(trace_of(exchange))},"user_agent":{_bytes(head.get(b"user-agent"))},'
            f'"referer":{_bytes(head.get(b"referer"))}}}\n'
        )

    def _written(self, routed: Routed) -> str:
        routed.text = _encode(routed.values())[1:-1]
        return routed.text


def _bytes(value: bytes | None) -> str:
    return "null" if value is None else _string(value.decode("utf-8", "backslashreplace"))


def _maybe(value: str | None) -> str:
    return "null" if value is None else _string(value)


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _since(moment: float, received: float) -> str:
    return f"{(moment - received) * 1e3:.3f}" if moment else "null"


def _attempt(attempt: Attempt, received: float) -> str:
    return (
        f'{{"endpoint":{_string(attempt.endpoint)},"outcome":{_string(attempt.outcome)},'
        f'"began_ms":{(attempt.began - received) * 1e3:.3f},"first_byte_ms":{_since(attempt.heard, received)},'
        f'"ended_ms":{(attempt.ended - received) * 1e3:.3f}}}'
    )


def _shown(value: Any) -> str:
    """A value within a line: what is missing is ``-``, and nothing in it can end the line."""
    if value is None or value == []:
        return "-"
    shown = value if isinstance(value, str) else _encode(value)
    return shown if shown.isprintable() else "".join([char if char.isprintable() else repr(char)[1:-1] for char in shown])


def linkerd_line() -> Render:
    """Linkerd's: host, remote address, time, request line, status, bytes, referer, user agent."""
    clock = Clock("[%d/%m/%Y:%H:%M:%S %Z]")

    def line(exchange: Exchange) -> str:
        head = exchange.request
        peer = exchange.reply.peer.rpartition(":")[0].strip("[]") or "-"
        status = status_of(exchange)
        version = "HTTP/2" if head.version >= (2, 0) else f"HTTP/{head.version[0]}.{head.version[1]}"
        request = f"{_quoted(head.method)} {_quoted(head.path or head.authority)} {version}"
        size = "-" if head.version >= (2, 0) else _length(exchange)
        agent, referer = _quoted(head.get(b"user-agent")), _quoted(head.get(b"referer"))
        when = clock.second(exchange.host.wall_ns() / 1e9)
        host = _quoted(head.authority or None)
        return f'{host} {peer} - - {when} "{request}" {"-" if status is None else status} {size} "{referer}" "{agent}"\n'

    return line


def _quoted(value: bytes | None) -> str:
    return "-" if value is None else _shown(text(value)).replace("\\", "\\\\").replace('"', '\\"')


def _length(exchange: Exchange) -> str:
    response = exchange.response
    return "-" if response is None or response.length is None else str(response.length)
