"""The admin interface as an ASGI application. Bounds: 1 MiB of body, 100 requests under way, and those of the server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router import __version__
from router.admin import control, metrics, names, recent, state
from router.admin.answers import as_json, error, text
from router.admin.hosts import ADVICE, welcome
from router.admin.kept import Kept, Pace
from router.admin.openapi import POSTED, document
from router.admin.page import overview
from router.admin.requests import Endpoint
from router.admin.security import Gate, from_elsewhere
from router.admin.server import serve_on
from router.config.tls import ServerTls
from router.serve.supervisor import Generation, Supervisor

MAX_REQUESTS = 100
PROBES = frozenset(("/admin/ping", "/ready", "/admin/ready"))
NOT_KEPT = frozenset(("/admin/workers.json",))
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
    ways = _Ways()
    routes = [
        Route(path.replace("}", ":path}"), _guarded(supervisor, ways, endpoint), methods=_methods(path))
        for path, endpoint in found.items()
    ]
    not_routed = partial(_http_error, _guarded(supervisor, ways, partial(_telemeters, supervisor)), supervisor)
    return Starlette(routes=routes, exception_handlers={HTTPException: not_routed, Exception: partial(_bug, supervisor)})


def _methods(path: str) -> list[str]:
    if path in ONLY_POSTED:
        return ["POST"]
    return ["GET", "POST"] if path in POSTED else ["GET"]


@attrs.frozen
class _Ways:
    """What all requests share."""

    room: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(MAX_REQUESTS))
    pace: Pace = attrs.field(factory=Pace)
    kept: Kept = attrs.field(factory=Kept)


def _guarded(supervisor: Supervisor, ways: _Ways, endpoint: Endpoint) -> Callable[[Request], Any]:
    refused = supervisor.metrics.scope("admin").counter("hosts_refused")

    async def guarded(request: Request) -> Response:
        generation = supervisor.generation
        if generation is None:
            return error(503, "not started yet")
        admin = generation.config.admin
        if not welcome(admin, request.headers):
            refused.value += 1
            return error(421, f"the admin interface does not answer to this Host; {ADVICE}")
        if not Gate(admin.security).allows(request.scope["path"]):
            return error(404, "Not Found")
        if request.method == "POST" and from_elsewhere(request.headers.get("origin"), request.headers.get("host")):
            return error(403, "a page of another origin must not change anything here")
        try:
            ways.room.acquire_nowait()
        except trio.WouldBlock:
            return error(503, f"more than {MAX_REQUESTS} requests under way")
        try:
            return await _answer(ways, request, generation, endpoint)
        finally:
            ways.room.release()

    return guarded


async def _answer(ways: _Ways, request: Request, generation: Generation, endpoint: Endpoint) -> Response:
    path = request.scope["path"]
    if path not in PROBES:
        await ways.pace.turn()
    if request.method == "POST":
        try:
            return await endpoint(request)
        finally:
            ways.kept.clear()
    if path in PROBES or path in NOT_KEPT:
        return await endpoint(request)
    return await ways.kept.answer(_depends_on(request, generation), partial(endpoint, request))


def _depends_on(request: Request, generation: Generation) -> tuple[Any, ...]:
    """What an answer can differ by: the telemeters' have the Host in them, and the Accept of a scraper chooses a form."""
    scope, headers = request.scope, request.headers
    return id(generation.loaded), scope["path"], scope["query_string"], headers.get("host"), headers.get("accept")


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
