"""Which paths are answered (Linkerd's ``admin.security``), and which requests are not to be trusted.

A path that is refused does not exist: 404. Requests that change something are refused when they come from a web page of another
origin, since a browser on this machine reaches loopback for anybody's page.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import attrs

from router.config.schema import Security

UI = frozenset(
    ("/", "/config.json", "/metrics.json", "/admin/metrics.json", "/admin/metrics", "/delegator", "/delegator.json", "/logging",
     "/help")
)  # fmt: skip
UI_BELOW = ("/files/", "/admin/files/")
CONTROL = frozenset(("/admin/shutdown", "/admin/reload", "/logging.json"))


@attrs.frozen
class Gate:
    """The rules of one configuration: a blacklisted path is refused, a whitelisted one allowed, others go by their category."""

    security: Security

    def allows(self, path: str) -> bool:
        """Whether ``path`` is answered at all."""
        security = self.security
        if any(re.search(pattern, path) for pattern in security.path_blacklist):
            return False
        if any(re.search(pattern, path) for pattern in security.path_whitelist):
            return True
        if path in CONTROL:
            return security.control_enabled
        if path in UI or path.startswith(UI_BELOW):
            return security.ui_enabled
        return security.diagnostics_enabled


def from_elsewhere(origin: str | None, host: str | None) -> bool:
    """Whether a request's ``Origin`` is another one than the server it was sent to; one that cannot be read is."""
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc != host
    except ValueError:
        return True
