"""Which names the admin interface answers to: what keeps other people's web pages from it.

Theory of operation

1. A page may read what is of its own origin, which is a name. Whoever owns the name can have it lead to this machine once the
   page is there (DNS rebinding); ``Origin`` and ``Host`` then agree. ``Host`` is that name, and the page cannot choose another.
2. IP addresses, localhost, this machine's name, ``admin.ip`` and ``admin.security.hosts`` are names that no stranger can
   lead here. Others are answered with 421 (RFC 9110 §15.5.20): the request is not for us, by whatever it is allowed.
3. At a loopback address nobody needs another name. Elsewhere scrapers and probes come by names that their network gives us:
   there, other names are refused to browsers alone. ``Sec-Fetch-Site`` does not tell those, since it is sent to https and to
   loopback only, nor does ``Origin``, which a GET to the page's own origin lacks. ``Accept-Language`` does: browsers
   send it with everything, a page can change but not remove it, and programs have no use for it.
4. Browsers always send a Host: without one (HTTP/1.0) a request is answered unless it looks like one of theirs.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from ipaddress import ip_address

from router.config.schema import Admin

OF_BROWSERS = ("accept-language", "origin", "referer", "sec-fetch-mode", "sec-fetch-site")
ADVICE = "if this name leads here, and nobody else can lead it elsewhere, list it in the configuration: admin.security.hosts"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]*)?", re.ASCII)


def welcome(admin: Admin, headers: Mapping[str, str]) -> bool:
    """Whether a request with these headers, whose names are in lower case, is answered."""
    host = headers.get("host")
    if host and _ours(admin, host):
        return True
    return not (is_browser(headers) or (host and _is_loopback(admin.ip)))


def is_browser(headers: Mapping[str, str]) -> bool:
    """Whether they have anything that browsers send; see the theory of operation."""
    return any(name in headers for name in OF_BROWSERS) or headers.get("user-agent", "").startswith("Mozilla/")


def _ours(admin: Admin, host: str) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = _plain(match[1].strip("[]"))
    names = {_plain(known) for known in (admin.ip, socket.gethostname(), *admin.security.hosts)}
    return _is_address(name) or name == "localhost" or name.endswith(".localhost") or name in names


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(ip: str) -> bool:
    return ip == "localhost" or (_is_address(ip) and ip_address(ip).is_loopback)
