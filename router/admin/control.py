"""Endpoints that change something, and those that say how it is."""

from __future__ import annotations

import logging
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from router.admin.answers import as_json, error, text
from router.admin.requests import Endpoint, body_of
from router.serve.supervisor import ReloadError, Supervisor

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOGGERS = (
    "waypost", "waypost.admin", "waypost.connection", "waypost.events", "waypost.listener", "waypost.namer",
    "waypost.supervisor", "waypost.worker",
)  # fmt: skip
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
            logging.getLogger(name).setLevel(level)
            await supervisor.ask("log_level", logger=name, level=level)
        return as_json([{"logger": name, "level": _level(name)} for name in LOGGERS])

    return {
        "/admin/ping": ping,
        "/ready": ready,
        "/admin/ready": ready,
        "/admin/shutdown": shutdown,
        "/admin/reload": reload,
        "/logging.json": loggers,
    }


def _level(name: str) -> str:
    return logging.getLevelName(logging.getLogger(name).getEffectiveLevel())
