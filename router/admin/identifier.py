"""``httpIdentifierPort``: any request that is sent there is told how each ``http`` router would name it; it goes nowhere.

The answer is ``{label: {"path": name, "dtab": table}}``, where the table is the router's with the request's own behind it, or
``{label: {"error": why}}``. Bounds: ``MAX_REQUESTS`` under way; bodies are not read.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.routing import Mount

from router.admin.answers import as_json, error
from router.admin.kept import Pace
from router.admin.server import serve_on
from router.config.tls import ServerTls
from router.serve.channel import ChannelClosedError, RefusedError
from router.serve.supervisor import Supervisor

MAX_REQUESTS = 100


async def serve(supervisor: Supervisor, sock: socket.socket, tls: ServerTls | None = None) -> None:
    """Serve on ``sock`` until cancelled. The socket stays the caller's."""
    everything = Mount("/", partial(_respond, supervisor, trio.CapacityLimiter(MAX_REQUESTS), Pace()))
    await serve_on(sock, Starlette(routes=[everything]), tls, supervisor)


async def _respond(supervisor: Supervisor, room: trio.CapacityLimiter, pace: Pace, scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    answer = await _answer(supervisor, room, pace, scope)
    await answer(scope, receive, send)


async def _answer(supervisor: Supervisor, room: trio.CapacityLimiter, pace: Pace, scope: Any) -> Any:
    try:
        room.acquire_nowait()
    except trio.WouldBlock:
        return error(503, f"more than {MAX_REQUESTS} requests under way")
    try:
        await pace.turn()
        generation = supervisor.generation
        if generation is None:
            return error(503, "not started yet")
        routers = [router.label for router in generation.config.routers if router.base.protocol == "http"]
        return as_json(await supervisor.ask_any("identify", routers=routers, **_request(scope)))
    except RefusedError as problem:
        return error(400, str(problem))
    except (ChannelClosedError, trio.TooSlowError):
        return error(503, "no worker has answered in time")
    finally:
        room.release()


def _request(scope: Any) -> dict[str, Any]:
    """Its head as JSON has it: bytes as the characters of their numbers."""
    fields = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    host = next((value for name, value in fields if name in ("host", ":authority")), "")
    query = scope["query_string"].decode("latin-1")
    path = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    others = [(name, value) for name, value in fields if name != "host" and not name.startswith(":")]
    return {"method": scope["method"], "authority": host, "path": path, "fields": others, "version": scope["http_version"]}
