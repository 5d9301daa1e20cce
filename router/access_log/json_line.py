"""Records as JSON: what ``json.dumps`` would write of :func:`~router.access_log.record.values`, in a tenth of the time.

Theory of operation

1. What the exchanges of a server, with a name, or with a repeated head have in common is written once (:class:`_Shape`).
2. Nearly all exchanges are of a kind: one attempt, which was answered, no failure, no span. Where the last one with the same
   head was of that kind, went the same way and had the same outcome, only figures are new: they are all that is formatted.
3. Everything else is put together piece by piece. Either way gives the same line; a test compares them.

Bound: ``KEPT`` heads and peers; then all are forgotten.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as _string
from math import inf

from router.access_log.record import Clock, Route
from router.model.exchange import GRPC_OK, Attempt, Exchange, Routed
from router.model.failure import Failure
from router.model.headers import RequestHead
from router.model.told import grpc_status_of, status_of
from router.model.trace import Trace
from router.tracing.forms import trace_id_of

KEPT = 1000
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
_UNLIMITED = '"deadline_ms":null,"left_ms":null,'
_UNFAILED = '"failure":null,"blame":null,'


class _Shape:
    """What records of exchanges with ``head`` have in common. ``first`` and ``last``: the fields before the route, and those
    behind ``blame``. The rest is of the last exchange that was of the usual kind."""

    __slots__ = ("begin", "endpoint", "first", "head", "last", "outcome", "peer", "routed", "status", "statuses")

    def __init__(self, head: RequestHead, first: str, last: str) -> None:
        self.head = head
        self.first, self.last = first, last
        self.routed: Routed | None = None
        self.endpoint: object = None
        self.peer = self.outcome = self.begin = self.statuses = ""
        self.status = 0


class JsonLine:
    """The lines of one server."""

    def __init__(self, router: str, server: str, route: Route) -> None:
        self._route = route
        self._of_server = f'"router":{_string(router)},"server":{_string(server)},"peer":'
        self._clock, self._zone = Clock("%Y-%m-%dT%H:%M:%S"), Clock("%z")
        self._second = -1
        self._moment, self._offset = "", ""
        self._shapes: dict[int, _Shape] = {}
        self._texts: dict[str, str] = {}

    def __call__(self, exchange: Exchange, now: float, wall: int) -> str:
        """See :data:`~router.access_log.record.Render`. Written out: every call that it makes is paid for each record."""
        received = exchange.received_at
        second, rest = divmod(wall, 1_000_000_000)
        if second != self._second:
            self._tick(second)
        head, attempts = exchange.request.stem or exchange.request, exchange.attempts
        shape = self._shapes.get(id(head))
        if shape is None or shape.head is not head:
            shape = self._of_head(head)
        routed = self._route(exchange)
        if not attempts or len(attempts) > 1 or exchange.failure is not None or exchange.trace is not None:
            return self._whole(exchange, shape, routed, rest, now)
        attempt, trailers, reply, response = attempts[0], exchange.trailers, exchange.reply, exchange.response
        if (
            routed is not shape.routed
            or exchange.endpoint is not shape.endpoint
            or attempt.outcome != shape.outcome
            or (trailers[0] != GRPC_OK if trailers else head.grpc)
            or reply.peer != shape.peer
            or response is None
            or response.status != shape.status
            or not attempt.heard
            or exchange.responded_at != attempt.heard
            or exchange.retries
        ):
            self._learn(exchange, shape, routed)
            return self._whole(exchange, shape, routed, rest, now)
        sent = f"{(attempt.began - received) * 1e3:.3f}"
        first = f"{(attempt.heard - received) * 1e3:.3f}"
        body, deadline = exchange.body, exchange.deadline
        return (
            f'{{"time":"{self._moment}{rest // 1000:06d}{self._offset}{shape.begin}{sent},"first_byte_ms":{first},'
            f'"ended_ms":{(attempt.ended - received) * 1e3:.3f}}}],"retries":0,{shape.statuses}'
            f'"request_bytes":{0 if body is None else body.pushed},"response_bytes":{reply.sent},'
            f"{_UNLIMITED if deadline == inf else _limits(deadline - received, deadline - now)}"
            f'"sent_ms":{sent},"first_byte_ms":{first},"total_ms":{(now - received) * 1e3:.3f},'
            f'{_UNFAILED}"trace":{shape.last}'
        )

    def _whole(self, exchange: Exchange, shape: _Shape, routed: Routed, rest: int, now: float) -> str:
        reply, failure, received = exchange.reply, exchange.failure, exchange.received_at
        attempts, endpoint, body = exchange.attempts or (), exchange.endpoint, exchange.body
        deadline, heard = exchange.deadline, exchange.responded_at
        shown = "null" if endpoint is None else _string(endpoint.show())
        return (
            f'{{"time":"{self._moment}{rest // 1000:06d}{self._offset}{self._of_peer(reply.peer)}'
            f'{shape.first},{routed.text or _written(routed)},"endpoint":{shown},'
            f'"attempts":[{",".join([_attempt(attempt, received) for attempt in attempts])}],"retries":{exchange.retries},'
            f'{_statuses(exchange)}"request_bytes":{0 if body is None else body.pushed},"response_bytes":{reply.sent},'
            f"{_UNLIMITED if deadline == inf else _limits(deadline - received, deadline - now)}"
            f'"sent_ms":{_milliseconds(attempts[0].began - received) if attempts else "null"},'
            f'"first_byte_ms":{_milliseconds(heard - received) if heard else "null"},'
            f'"total_ms":{_milliseconds(now - received)},'
            f"{_UNFAILED if failure is None else _failed(failure)}"
            f'"trace":{shape.last if exchange.trace is None else _of_trace(exchange.trace, exchange.request)}'
        )

    def _learn(self, exchange: Exchange, shape: _Shape, routed: Routed) -> None:
        """If this exchange is of the usual kind the next ones of its head are taken to be like it."""
        attempt, response, trailers = exchange.attempts[0], exchange.response, exchange.trailers  # type: ignore[index]
        grpc_ok = trailers[0] == GRPC_OK if trailers else not exchange.request.grpc
        if not grpc_ok or response is None or not attempt.heard or exchange.endpoint.show() != attempt.endpoint:
            return
        shape.routed, shape.endpoint, shape.outcome = routed, exchange.endpoint, attempt.outcome
        shape.peer, shape.status, shape.statuses = exchange.reply.peer, response.status, _statuses(exchange)
        endpoint = _string(attempt.endpoint)
        shape.begin = (
            f'{self._of_peer(shape.peer)}{shape.first},{routed.text or _written(routed)},"endpoint":{endpoint},'
            f'"attempts":[{{"endpoint":{endpoint},"outcome":{_string(attempt.outcome)},"began_ms":'
        )

    def _tick(self, second: int) -> None:
        self._second = second
        self._moment, self._offset = f"{self._clock.second(second)}.", f'{self._zone.second(second)}",{self._of_server}'

    def _of_peer(self, peer: str) -> str:
        text = self._texts.get(peer)
        if text is None:
            if len(self._texts) >= KEPT:
                self._texts.clear()
            text = self._texts[peer] = _string(peer)
        return text

    def _of_head(self, head: RequestHead) -> _Shape:
        """What only depends on the head."""
        http = 2 if head.version >= (2, 0) else f"{head.version[0]}.{head.version[1]}"
        first = (
            f',"method":{_bytes(head.method)},"authority":{_bytes(head.authority)},"path":{_bytes(head.path)},'
            f'"protocol":"HTTP/{http}","grpc":{"true" if head.grpc else "false"}'
        )
        made = _Shape(head, first, _last(trace_id_of(head), head))
        if head.shared:
            if len(self._shapes) >= KEPT:
                self._shapes.clear()
            self._shapes[id(head)] = made
        return made


def _of_trace(trace: Trace, head: RequestHead) -> str:
    return _last(trace.context.trace_id, head)


def _last(trace: str | None, head: RequestHead) -> str:
    agent, referer = _bytes(head.get(b"user-agent")), _bytes(head.get(b"referer"))
    return f'{"null" if trace is None else _string(trace)},"user_agent":{agent},"referer":{referer}}}\n'


def _written(routed: Routed) -> str:
    routed.text = _encode(routed.values())[1:-1]
    return routed.text


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _limits(whole: float, left: float) -> str:
    return f'"deadline_ms":{_milliseconds(whole)},"left_ms":{_milliseconds(left)},'


def _failed(failure: Failure) -> str:
    return f'"failure":{_string(failure.why)},"blame":{_string(failure.blame.value)},'


def _statuses(exchange: Exchange) -> str:
    """Of HTTP and of gRPC as the client was told them, and the endpoint's."""
    shown = status_of(exchange), grpc_status_of(exchange), None if exchange.response is None else exchange.response.status
    status, grpc_status, there = ["null" if one is None else one for one in shown]
    return f'"status":{status},"grpc_status":{grpc_status},"upstream_status":{there},'


def _bytes(value: bytes | None) -> str:
    return "null" if value is None else _string(value.decode("utf-8", "backslashreplace"))


def _attempt(attempt: Attempt, received: float) -> str:
    heard = _milliseconds(attempt.heard - received) if attempt.heard else "null"
    return (
        f'{{"endpoint":{_string(attempt.endpoint)},"outcome":{_string(attempt.outcome)},'
        f'"began_ms":{_milliseconds(attempt.began - received)},"first_byte_ms":{heard},'
        f'"ended_ms":{_milliseconds(attempt.ended - received)}}}'
    )
