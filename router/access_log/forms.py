"""Records as text: Linkerd's line, JSON, or a template of one's own (``{method} {path} {status}``)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _string
from math import inf
from typing import Any

from router.access_log.record import Route, text, values
from router.config.access_log import JSON, LINKERD, read_template
from router.model.exchange import Attempt, Exchange, Routed
from router.model.failure import Failure
from router.model.headers import RequestHead
from router.model.told import grpc_status_of, status_of
from router.model.trace import Trace
from router.tracing.forms import trace_id_of

Render = Callable[[Exchange], str]
KEPT = 1000  # peers and heads whose texts are kept; then all are forgotten

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
    """What ``json.dumps`` would write of :func:`~router.access_log.record.values`, in a fraction of the time: what the
    exchanges of a server, with a name or with a repeated head have in common is written once."""

    def __init__(self, router: str, server: str, route: Route) -> None:
        self._route = route
        self._of_server = f'"router":{_string(router)},"server":{_string(server)},"peer":'
        self._clock, self._zone = Clock("%Y-%m-%dT%H:%M:%S"), Clock("%z")
        self._second = -1
        self._moment, self._offset = "", ""
        self._heads: dict[int, tuple[RequestHead, str, str]] = {}
        self._texts: dict[str, str] = {}

    def __call__(self, exchange: Exchange) -> str:
        """The line. Written out, as every call that it makes is paid for each record."""
        head, reply, failure = exchange.request, exchange.reply, exchange.failure
        received, now = exchange.received_at, exchange.host.timers.now()
        second, rest = divmod(exchange.host.wall_ns(), 1_000_000_000)
        if second != self._second:
            self._tick(second)
        known = self._heads.get(id(head))
        _, first, last = known if known is not None and known[0] is head else self._of_head(head)
        routed = self._route(exchange)
        attempts, endpoint, response, body = exchange.attempts or (), exchange.endpoint, exchange.response, exchange.body
        deadline = exchange.deadline
        status, grpc_status = _statuses(exchange)
        peer = self._texts.get(reply.peer) or self._of_peer(reply.peer)
        there = "null" if response is None else response.status
        shown = "null" if endpoint is None else _string(endpoint.show())
        tried, sent, heard = "", "null", "null"
        if attempts:
            tried, sent, heard = _attempt(attempts[0], received)
            if len(attempts) > 1:
                rest_of_them = [_attempt(attempt, received) for attempt in attempts[1:]]
                tried, heard = ",".join([tried, *[one[0] for one in rest_of_them]]), rest_of_them[-1][2]
            if exchange.responded_at != attempts[-1].heard:  # of two attempts at once the other one's
                heard = _milliseconds(exchange.responded_at - received) if exchange.responded_at else "null"
        elif exchange.responded_at:
            heard = _milliseconds(exchange.responded_at - received)
        took = int((now - received) * 1e6 + 0.5)
        return (
            f'{{"time":"{self._moment}{rest // 1000:06d}{self._offset}{peer}'
            f'{first},{routed.text or self._written(routed)},"endpoint":{shown},'
            f'"attempts":[{tried}],"retries":{exchange.retries},'
            f'"status":{status},"grpc_status":{grpc_status},"upstream_status":{there},'
            f'"request_bytes":{0 if body is None else body.pushed},"response_bytes":{reply.sent},'
            f"{_UNLIMITED if deadline == inf else _limits(deadline - received, deadline - now)}"
            f'"sent_ms":{sent},"first_byte_ms":{heard},"total_ms":{took // 1000}{_THOUSANDTHS[took % 1000]},'
            f"{_UNFAILED if failure is None else _failed(failure)}"
            f'"trace":{last if exchange.trace is None else self._of_trace(exchange.trace, head)}'
        )

    def _tick(self, second: int) -> None:
        self._second = second
        self._moment, self._offset = f"{self._clock.second(second)}.", f'{self._zone.second(second)}",{self._of_server}'

    def _of_peer(self, peer: str) -> str:
        if len(self._texts) >= KEPT:
            self._texts.clear()
        text = self._texts[peer] = _string(peer)
        return text

    def _of_head(self, head: RequestHead) -> tuple[RequestHead, str, str]:
        """What only depends on the head: the fields before the route, and the last ones."""
        http = 2 if head.version >= (2, 0) else f"{head.version[0]}.{head.version[1]}"
        first = (
            f',"method":{_bytes(head.method)},"authority":{_bytes(head.authority)},"path":{_bytes(head.path)},'
            f'"protocol":"HTTP/{http}","grpc":{"true" if head.grpc else "false"}'
        )
        made = head, first, self._last(trace_id_of(head), head)
        if head.shared:
            if len(self._heads) >= KEPT:
                self._heads.clear()
            self._heads[id(head)] = made
        return made

    def _of_trace(self, trace: Trace, head: RequestHead) -> str:
        return self._last(trace.context.trace_id, head)

    def _last(self, trace: str | None, head: RequestHead) -> str:
        agent, referer = _bytes(head.get(b"user-agent")), _bytes(head.get(b"referer"))
        return f'{"null" if trace is None else _string(trace)},"user_agent":{agent},"referer":{referer}}}\n'

    def _written(self, routed: Routed) -> str:
        routed.text = _encode(routed.values())[1:-1]
        return routed.text


_UNLIMITED = '"deadline_ms":null,"left_ms":null,'
_UNFAILED = '"failure":null,"blame":null,'


_THOUSANDTHS = [f".{at:03d}" for at in range(1000)]  # half the price of formatting a float


def _milliseconds(seconds: float) -> str:
    if seconds < 0:
        return f"{seconds * 1e3:.3f}"
    micros = int(seconds * 1e6 + 0.5)
    return f"{micros // 1000}{_THOUSANDTHS[micros % 1000]}"


def _limits(whole: float, left: float) -> str:
    return f'"deadline_ms":{_milliseconds(whole)},"left_ms":{_milliseconds(left)},'


def _failed(failure: Failure) -> str:
    return f'"failure":{_string(failure.why)},"blame":{_string(failure.blame.value)},'


def _statuses(exchange: Exchange) -> tuple[str | int, str | int]:
    """Of HTTP and of gRPC."""
    if exchange.failure is None and exchange.trailers and exchange.response is not None and exchange.request.grpc:
        name, value = exchange.trailers[0]
        if name == b"grpc-status" and value == b"0":  # nearly always so
            return exchange.response.status, 0
    status, grpc_status = status_of(exchange), grpc_status_of(exchange)
    return "null" if status is None else status, "null" if grpc_status is None else grpc_status


def _bytes(value: bytes | None) -> str:
    return "null" if value is None else _string(value.decode("utf-8", "backslashreplace"))


def _attempt(attempt: Attempt, received: float) -> tuple[str, str, str]:
    """It, when it began, and when its head came. Nothing of it was before the request."""
    micros = int((attempt.began - received) * 1e6 + 0.5)
    began = f"{micros // 1000}{_THOUSANDTHS[micros % 1000]}"
    heard = "null"
    if attempt.heard:
        micros = int((attempt.heard - received) * 1e6 + 0.5)
        heard = f"{micros // 1000}{_THOUSANDTHS[micros % 1000]}"
    micros = int((attempt.ended - received) * 1e6 + 0.5)
    outcome = OK if attempt.outcome == "ok" else _string(attempt.outcome)
    text = (
        f'{{"endpoint":{_string(attempt.endpoint)},"outcome":{outcome},"began_ms":{began},"first_byte_ms":{heard},'
        f'"ended_ms":{micros // 1000}{_THOUSANDTHS[micros % 1000]}}}'
    )
    return text, began, heard


OK = '"ok"'


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
