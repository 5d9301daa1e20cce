"""Talking to the admin interface of a router that runs: ``waypost reload`` and ``waypost healthcheck``.

Over TLS it must show the very certificate that its configuration names, whatever names are in that; behind an ``https`` URL
one that the system's roots vouch for.
"""

from __future__ import annotations

import http.client
import json
import ssl
from urllib.parse import urlsplit

import attrs

from router.config.schema import Admin
from router.config.tls import ServerTls
from router.serve.door import DEFAULT_PORT

TIMEOUT = 90.0  # seconds: a reload starts workers
QUICK = 3.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class UnreachableError(Exception):
    """Nobody answers there; the text says where, and why."""


@attrs.frozen
class Remote:
    """An admin interface. ``tls``: how its configuration says that it is reached, where that is known."""

    url: str
    tls: ServerTls | None = None

    def context(self) -> ssl.SSLContext:
        """Whom to believe. Raises OSError."""
        context = ssl.create_default_context()
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.load_verify_locations(self.tls.cert_path.text)
        return context


def remote_of(admin: Admin) -> Remote:
    """Where the admin interface of a configuration is reached from this machine."""
    host = _ANY.get(admin.ip, admin.ip)
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if admin.tls is None else "https"
    return Remote(f"{scheme}://{shown}:{DEFAULT_PORT if admin.port is None else admin.port}", admin.tls)


def reload(remote: Remote) -> tuple[bool, str]:
    """Have a router reload; whether it did, and what it says. Raises :class:`UnreachableError`."""
    status, body = _ask(remote, "POST", "/admin/reload", TIMEOUT)
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    return status == 200, str(answer.get("reloaded") or answer.get("error") or f"status {status}")


def is_ready(remote: Remote) -> tuple[bool, str]:
    """Whether a router serves, and what it says. Raises :class:`UnreachableError`."""
    status, body = _ask(remote, "GET", "/ready", QUICK)
    return status == 200, body.strip()


def _ask(remote: Remote, method: str, path: str, timeout: float) -> tuple[int, str]:
    url = remote.url
    connection: http.client.HTTPConnection | None = None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORT
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=remote.context())
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read(1 << 20).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f"nobody answers at {url}: {error}") from None
    finally:
        if connection is not None:
            connection.close()
