"""Records as JSON: what ``json.dumps`` would write of :func:`~router.access_log.record.values`, in a tenth of the time.

Theory of operation

1. What the exchanges of a server, with a name, or with a repeated head have in common is written once (:class:`_Shape`).
2. Nearly all exchanges are of a kind: one attempt, which was answered, no failure, no span. Where one with the same head and
   endpoint has gone the same way before (:class:`_Way`), only figures are new: they are all that is formatted.
3. Everything else is put together piece by piece. Either way gives the same line; a test compares them.
4. When an exchange is closed nothing is looked at, only taken (:meth:`JsonLine.keeper`). Looking is for later, when many of
   them have their turn, and code and texts are in the processor's caches.

Bounds: ``KEPT`` heads and peers, ``WAYS`` endpoints of each head; then all are forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _string
from math import inf
from typing import Any

from router.access_log.record import Clock, Room, Routing
from router.model.exchange import GRPC_OK, Attempt, Exchange, Routed
from router.model.failure import Failure
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.told import grpc_status_of, status_of, told_of
from router.model.trace import Trace
from router.tracing.forms import trace_id_of

KEPT = 1000
WAYS = 64
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
_UNLIMITED = '"deadline_ms":null,"left_ms":null,'
_UNFAILED = '"failure":null,"blame":null,'


class _Shape:
    """What records of exchanges with ``head`` have in common. ``first`` and ``last``: the fields before the route, and those
    behind ``blame``. ``ways``: by endpoint."""

    __slots__ = ("first", "head", "last", "ways")

    def __init__(self, head: RequestHead, first: str, last: str) -> None:
        self.head = head
        self.first, self.last = first, last
        self.ways: dict[str, _Way] = {}


class _Way:
    """What exchanges of the usual kind with a head and an endpoint have in common besides: where they come from and go to, what
    they were answered, and the text of that: ``first`` ends with an attempt's beginning, ``statuses`` is behind it."""

    __slots__ = ("bound", "dtab", "endpoint", "first", "last", "local", "outcome", "path", "status", "statuses")

    def __init__(self, way: tuple[Any, Any, Any, Any], dtab: object, outcome: str, status: int) -> None:
        self.endpoint, self.bound, self.path, self.local = way
        self.dtab = dtab
        self.outcome, self.status = outcome, status
        self.first = self.statuses = self.last = ""


Taken = tuple[
    RequestHead, list[Attempt], int, ResponseHead | None, Fields, Any, Any, Any, Any, str, float, float, int, int, float,
    Trace | None, Failure | None, tuple[int | None, int | None] | None,
]  # fmt: skip
"""Of an exchange: request, attempts, retries, response, trailers, endpoint, bound, path, local dtab, peer, when it was received
and answered (0: never), bytes there and back, deadline, trace, failure, and what the client was told in case of that."""


class JsonLine:
    """The lines of one server."""

    def __init__(self, router: str, server: str, routes: Routing) -> None:
        self._routes = routes
        self._interpreter = routes.interpreter
        self._of_server = f'"router":{_string(router)},"server":{_string(server)},"peer":'
        self._clock, self._zone = Clock("%Y-%m-%dT%H:%M:%S"), Clock("%z")
        self._second = -1
        self._moment, self._offset = "", ""
        self._shapes: dict[int, _Shape] = {}
        self._texts: dict[str, str] = {}

    def keeper(self, room: Room) -> Callable[[Exchange], None]:
        """See :class:`~router.access_log.record.Form`. What the line needs is taken, and not a look more: here all is cold."""
        over, now, full, line = room.over, room.now, room.full, self.line

        def keep(exchange: Exchange) -> None:
            failure, body, reply = exchange.failure, exchange.body, exchange.reply
            taken = (
                exchange.request, exchange.attempts or [], exchange.retries, exchange.response, exchange.trailers,
                exchange.endpoint, exchange.bound, exchange.path, exchange.local_dtab,
                reply.ends.text or reply.peer, exchange.received_at, exchange.responded_at,
                0 if body is None else body.pushed, reply.sent, exchange.deadline, exchange.trace, failure,
                None if failure is None else (status_of(exchange), grpc_status_of(exchange)),
            )  # fmt: skip
            over.append((line, taken, now()))
            if len(over) == 1 or len(over) >= full:
                room.look()

        return keep

    def line(self, taken: Taken, now: float, wall: int) -> str:
        """Of what was taken at ``now``, in the host's clock; ``wall`` is the time of day then, in nanoseconds of the epoch."""
        second, rest = divmod(wall, 1_000_000_000)
        if second != self._second:
            self._tick(second)
        (head, attempts, retries, response, trailers, endpoint, bound, path, local, peer, received, heard, there, back,
         deadline, trace, failure, _) = taken  # fmt: skip
        head = head.stem or head
        shape = self._shapes.get(id(head))
        if shape is None or shape.head is not head:
            shape = self._of_head(head)
        moment = f'{{"time":"{self._moment}{rest // 1000:06d}{self._offset}'
        if len(attempts) != 1 or retries or response is None or failure is not None or trace is not None or not heard:
            return moment + self._whole(taken, shape, now)
        shown, outcome, began, answered, ended = attempts[0]
        way = shape.ways.get(shown)
        if (
            way is None
            or endpoint is not way.endpoint
            or outcome != way.outcome
            or answered != heard
            or bound is not way.bound
            or path is not way.path
            or local is not way.local
            or self._interpreter.dtab is not way.dtab
            or response.status != way.status
            or (trailers[0] != GRPC_OK if trailers else head.grpc)
        ):
            return moment + self._whole(taken, shape, now)
        sent, first = f"{(began - received) * 1e3:.3f}", f"{(heard - received) * 1e3:.3f}"
        return (
            f"{moment}{self._texts.get(peer) or self._of_peer(peer)}"
            f'{way.first}{sent},"first_byte_ms":{first},"ended_ms":{(ended - received) * 1e3:.3f}}}],"retries":0,'
            f'{way.statuses}"request_bytes":{there},"response_bytes":{back},'
            f"{_UNLIMITED if deadline == inf else _limits(deadline - received, deadline - now)}"
            f'"sent_ms":{sent},"first_byte_ms":{first},"total_ms":{(now - received) * 1e3:.3f},{way.last}'
        )

    def _whole(self, taken: Taken, shape: _Shape, now: float) -> str:
        """All but the time of any exchange."""
        (head, attempts, retries, response, trailers, endpoint, bound, path, local, peer, received, heard, there, back,
         deadline, trace, failure, told) = taken  # fmt: skip
        routed = self._routes.of(path, local, bound)
        told = told or told_of(head, response, trailers)
        statuses = _statuses(told, response)
        if len(attempts) == 1 and endpoint is not None and response is not None and failure is None and not told[1]:
            way = (endpoint, bound, path, local)
            self._learn(shape, routed, _Way(way, self._interpreter.dtab, attempts[0].outcome, response.status), statuses)
        shown = "null" if endpoint is None else _string(endpoint.show())
        return (
            f'{self._of_peer(peer)}{shape.first},{routed.text or _written(routed)},"endpoint":{shown},'
            f'"attempts":[{",".join([_attempt(attempt, received) for attempt in attempts])}],"retries":{retries},'
            f'{statuses}"request_bytes":{there},"response_bytes":{back},'
            f"{_UNLIMITED if deadline == inf else _limits(deadline - received, deadline - now)}"
            f'"sent_ms":{_milliseconds(attempts[0].began - received) if attempts else "null"},'
            f'"first_byte_ms":{_milliseconds(heard - received) if heard else "null"},'
            f'"total_ms":{_milliseconds(now - received)},'
            f"{_UNFAILED if failure is None else _failed(failure)}"
            f'"trace":{shape.last if trace is None else _of_trace(trace, head)}'
        )

    def _learn(self, shape: _Shape, routed: Routed, way: _Way, statuses: str) -> None:
        """The next exchanges with this head and endpoint are compared with this one, which was of the usual kind."""
        if len(shape.ways) >= WAYS:
            shape.ways.clear()
        shown = way.endpoint.show()
        shape.ways[shown] = way
        endpoint = _string(shown)
        way.statuses = statuses
        way.first = (
            f'{shape.first},{routed.text or _written(routed)},"endpoint":{endpoint},'
            f'"attempts":[{{"endpoint":{endpoint},"outcome":{_string(way.outcome)},"began_ms":'
        )
        way.last = f'{_UNFAILED}"trace":{shape.last}'

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


def _statuses(told: tuple[int | None, int | None], response: ResponseHead | None) -> str:
    """Of HTTP and of gRPC as the client was told them, and the endpoint's."""
    there = None if response is None else response.status
    status, grpc_status, upstream = ["null" if one is None else one for one in (*told, there)]
    return f'"status":{status},"grpc_status":{grpc_status},"upstream_status":{upstream},'


def _bytes(value: bytes | None) -> str:
    return "null" if value is None else _string(value.decode("utf-8", "backslashreplace"))


def _attempt(attempt: Attempt, received: float) -> str:
    heard = _milliseconds(attempt.heard - received) if attempt.heard else "null"
    return (
        f'{{"endpoint":{_string(attempt.endpoint)},"outcome":{_string(attempt.outcome)},'
        f'"began_ms":{_milliseconds(attempt.began - received)},"first_byte_ms":{heard},'
        f'"ended_ms":{_milliseconds(attempt.ended - received)}}}'
    )
