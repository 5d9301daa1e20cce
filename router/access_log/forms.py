"""Records as text: Linkerd's line, JSON, or a template of one's own (``{method} {path} {status}``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from router.access_log.json_line import JsonLine
from router.access_log.record import Clock, Form, Render, Room, Routing, text, values
from router.config.access_log import JSON, LINKERD, read_template
from router.model.exchange import Exchange
from router.model.told import status_of

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def read_form(form: str, router: str, server: str, routes: Routing) -> Form:
    """``form`` is ``linkerd``, ``json`` or a template."""
    if form == LINKERD:
        return Whole(linkerd_line())
    if form == JSON:
        return JsonLine(router, server, routes)
    return Whole(by_template(form, router, server, routes))


class Whole:
    """A form that is made of the exchange itself."""

    def __init__(self, line: Render) -> None:
        self.line = line

    def keeper(self, room: Room) -> Callable[[Exchange], None]:
        """See :class:`~router.access_log.record.Form`."""
        over, now, full, line = room.over, room.now, room.full, self.line

        def keep(exchange: Exchange) -> None:
            over.append((line, exchange, now()))
            if len(over) == 1 or len(over) >= full:
                room.look()

        return keep


def by_template(form: str, router: str, server: str, routes: Routing) -> Render:
    """A line of one's own. Raises ValueError for what is no template."""
    clock = Clock("%Y-%m-%dT%H:%M:%S")
    zone = Clock("%z")

    def all_values(exchange: Exchange, now: float, wall: int) -> dict[str, Any]:
        second, rest = divmod(wall, 1_000_000_000)
        moment = f"{clock.second(second)}.{rest // 1000:06d}{zone.second(second)}"
        return values(exchange, router, server, routes, moment, now)

    parts = read_template(form)

    def line(exchange: Exchange, now: float, wall: int) -> str:
        known = all_values(exchange, now, wall)
        return "".join([part + ("" if name is None else _shown(known[name])) for part, name in parts]) + "\n"

    return line


def _shown(value: Any) -> str:
    """A value within a line: what is missing is ``-``, and nothing in it can end the line."""
    if value is None or value == []:
        return "-"
    shown = value if isinstance(value, str) else _encode(value)
    return shown if shown.isprintable() else "".join([char if char.isprintable() else repr(char)[1:-1] for char in shown])


def linkerd_line() -> Render:
    """Linkerd's: host, remote address, time, request line, status, bytes, referer, user agent."""
    clock = Clock("[%d/%m/%Y:%H:%M:%S %Z]")

    def line(exchange: Exchange, now: float, wall: int) -> str:
        head = exchange.request
        peer = exchange.reply.peer.rpartition(":")[0].strip("[]") or "-"
        status = status_of(exchange)
        version = "HTTP/2" if head.version >= (2, 0) else f"HTTP/{head.version[0]}.{head.version[1]}"
        request = f"{_quoted(head.method)} {_quoted(head.path or head.authority)} {version}"
        size = "-" if head.version >= (2, 0) else _length(exchange)
        agent, referer = _quoted(head.get(b"user-agent")), _quoted(head.get(b"referer"))
        when = clock.second(wall // 1_000_000_000)
        host = _quoted(head.authority or None)
        return f'{host} {peer} - - {when} "{request}" {"-" if status is None else status} {size} "{referer}" "{agent}"\n'

    return line


def _quoted(value: bytes | None) -> str:
    return "-" if value is None else _shown(text(value)).replace("\\", "\\\\").replace('"', '\\"')


def _length(exchange: Exchange) -> str:
    response = exchange.response
    return "-" if response is None or response.length is None else str(response.length)
