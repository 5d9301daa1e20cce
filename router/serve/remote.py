"""Talking to the admin interface of a router that runs: ``waypost reload`` and ``waypost healthcheck``."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from router.config.schema import Admin
from router.serve.door import DEFAULT_PORT

TIMEOUT = 90.0  # seconds: a reload starts workers
QUICK = 3.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class UnreachableError(Exception):
    """Nobody answers there; the text says where, and why."""


def url_of(admin: Admin) -> str:
    """Where the admin interface of a configuration is reached from this machine."""
    host = _ANY.get(admin.ip, admin.ip)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{DEFAULT_PORT if admin.port is None else admin.port}"


def reload(url: str) -> tuple[bool, str]:
    """Have the router at ``url`` reload; whether it did, and what it says. Raises :class:`UnreachableError`."""
    status, body = _ask(url, "POST", "/admin/reload", TIMEOUT)
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    return status == 200, str(answer.get("reloaded") or answer.get("error") or f"status {status}")


def is_ready(url: str) -> tuple[bool, str]:
    """Whether the router at ``url`` serves, and what it says. Raises :class:`UnreachableError`."""
    status, body = _ask(url, "GET", "/ready", QUICK)
    return status == 200, body.strip()


def _ask(url: str, method: str, path: str, timeout: float) -> tuple[int, str]:
    parts = urlsplit(url if "//" in url else f"//{url}")
    try:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or DEFAULT_PORT, timeout=timeout)
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read(1 << 20).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f"nobody answers at {url}: {error}") from None
