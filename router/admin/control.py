"""Endpoints that change something, and those that say how it is."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from router.admin.answers import as_json, error, text
from router.admin.requests import Endpoint, body_of
from router.logs.setup import LEVELS, level_of, set_level
from router.serve.supervisor import ReloadError, Supervisor

LOGGERS = (
    "waypost", "waypost.access", "waypost.admin", "waypost.certificate", "waypost.client", "waypost.config",
    "waypost.connecting", "waypost.deadline", "waypost.draining", "waypost.endpoint", "waypost.exchange", "waypost.http2",
    "waypost.listener", "waypost.loop", "waypost.namer", "waypost.proxy", "waypost.ready", "waypost.reload", "waypost.reloaded",
    "waypost.session", "waypost.shedding", "waypost.telemeter", "waypost.trace", "waypost.worker",
)  # fmt: skip
"""An event is logged by the first word of its name; those of plugins are below ``waypost``."""
MAX_FORM = 4096


def endpoints(supervisor: Supervisor) -> dict[str, Endpoint]:
    """By path."""

    async def ping(request: Request) -> Response:
        return text("pong")

    async def ready(request: Request) -> Response:
        if supervisor.ready:
            return text("ready\n")
        return text("not ready: no worker serves, or it is to stop\n", 503)

    async def shutdown(request: Request) -> Response:
        supervisor.stopping.set()
        return text("draining\n")

    async def reload(request: Request) -> Response:
        try:
            return as_json({"reloaded": await supervisor.reload()})
        except ReloadError as problem:
            return error(409, str(problem))

    async def loggers(request: Request) -> Response:
        if request.method == "POST":
            given = parse_qs((await body_of(request, MAX_FORM) or b"").decode("utf-8", "replace"))
            name, level = (given.get(key, [""])[0] for key in ("logger", "level"))
            if name not in LOGGERS or level not in LEVELS:
                return error(400, f"expected logger={'|'.join(LOGGERS)} and level={'|'.join(LEVELS)}")
            set_level(name, level)
            supervisor.log_levels[name] = level
            await supervisor.ask("log_level", logger=name, level=level)
        return as_json([{"logger": name, "level": level_of(name)} for name in LOGGERS])

    return {
        "/admin/ping": ping,
        "/ready": ready,
        "/admin/ready": ready,
        "/admin/shutdown": shutdown,
        "/admin/reload": reload,
        "/logging.json": loggers,
    }
