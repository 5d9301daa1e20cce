"""The admin interface as an ASGI application. Bounds: 1 MiB of body, 100 requests under way, and those of the server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router import __version__
from router.admin import control, metrics, names, recent, state
from router.admin.answers import as_json, error, text
from router.admin.openapi import POSTED, document
from router.admin.page import overview
from router.admin.requests import Endpoint
from router.admin.security import Gate, from_elsewhere
from router.admin.server import serve_on
from router.config.tls import ServerTls
from router.serve.supervisor import Supervisor

MAX_REQUESTS = 100
ONLY_POSTED = ("/admin/shutdown", "/admin/reload")


def application(supervisor: Supervisor) -> Starlette:
    """All endpoints, behind the rules of the present configuration."""
    found: dict[str, Endpoint] = {
        **control.endpoints(supervisor),
        **metrics.endpoints(supervisor),
        **state.endpoints(supervisor),
        **names.endpoints(supervisor),
        **recent.endpoints(supervisor),
        "/": partial(overview, supervisor),
        "/openapi.json": _openapi,
    }
    room = trio.CapacityLimiter(MAX_REQUESTS)
    routes = [
        Route(path.replace("}", ":path}"), _guarded(supervisor, room, endpoint), methods=_methods(path))
        for path, endpoint in found.items()
    ]
    not_routed = partial(_http_error, _guarded(supervisor, room, partial(_telemeters, supervisor)), supervisor)
    return Starlette(routes=routes, exception_handlers={HTTPException: not_routed, Exception: partial(_bug, supervisor)})


def _methods(path: str) -> list[str]:
    if path in ONLY_POSTED:
        return ["POST"]
    return ["GET", "POST"] if path in POSTED else ["GET"]


def _guarded(supervisor: Supervisor, room: trio.CapacityLimiter, endpoint: Endpoint) -> Callable[[Request], Any]:
    async def guarded(request: Request) -> Response:
        generation = supervisor.generation
        if generation is None:
            return error(503, "not started yet")
        if not Gate(generation.config.admin.security).allows(request.scope["path"]):
            return error(404, "Not Found")
        if request.method == "POST" and from_elsewhere(request.headers.get("origin"), request.headers.get("host")):
            return error(403, "a page of another origin must not change anything here")
        try:
            room.acquire_nowait()
        except trio.WouldBlock:
            return error(503, f"more than {MAX_REQUESTS} requests under way")
        try:
            return await endpoint(request)
        finally:
            room.release()

    return guarded


async def _telemeters(supervisor: Supervisor, request: Request) -> Response:
    """What the configured telemeters serve, where they were told to."""
    return text(await supervisor.telemetry.endpoints[request.scope["path"]](request.headers.get("host", "localhost")))


async def _openapi(request: Request) -> Response:
    return as_json(document(__version__))


async def _http_error(telemeters: Endpoint, supervisor: Supervisor, request: Request, problem: Exception) -> Response:
    """An error, unless a telemeter was told to serve where nothing else is."""
    assert isinstance(problem, HTTPException)
    if problem.status_code == 404 and request.method == "GET" and request.scope["path"] in supervisor.telemetry.endpoints:
        return await telemeters(request)
    answer = error(problem.status_code, str(problem.detail))
    answer.headers.update(problem.headers or {})
    return answer


async def _bug(supervisor: Supervisor, request: Request, problem: Exception) -> Response:
    supervisor.events.fail("admin_crashed", path=request.scope["path"], error=problem)
    return error(500, f"internal error: {type(problem).__name__}")


async def serve(supervisor: Supervisor, sock: socket.socket, tls: ServerTls | None = None) -> None:
    """Serve the admin interface on ``sock`` until cancelled. The socket stays the caller's."""
    await serve_on(sock, application(supervisor), tls, supervisor)
