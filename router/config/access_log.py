"""Access logs as they are configured: the keys, what a template may name, and when a file gives way to a new one.

Linkerd's roll policies: ``never``, ``hourly``, ``daily``, ``weekly(n)`` (on day n of the week, 1 is Sunday), or a size such as
``3.megabytes``.
"""

from __future__ import annotations

import re
import time
from string import Formatter
from typing import Any

import attrs

_SIZE = re.compile(r"(\d+)\.(byte|kilobyte|megabyte|gigabyte)s?").fullmatch
_WEEKLY = re.compile(r"weekly\(([1-7])\)").fullmatch
_UNITS = {"byte": 1, "kilobyte": 1 << 10, "megabyte": 1 << 20, "gigabyte": 1 << 30}


@attrs.frozen
class RollPolicy:
    """``size``: bytes, or None. ``period``: ``hourly``, ``daily``, ``weekly`` or empty; ``day``: of the week, 0 is Sunday."""

    size: int | None = None
    period: str = ""
    day: int = 0

    def epoch(self, seconds: float) -> tuple[int, ...]:
        """What a moment (seconds of the epoch) has in common with others of its period, in local time."""
        at = time.localtime(seconds)
        if self.period == "hourly":
            return at.tm_year, at.tm_yday, at.tm_hour
        if self.period == "daily":
            return at.tm_year, at.tm_yday
        if self.period == "weekly":
            since = ((at.tm_wday + 1) % 7 - self.day) % 7
            begun = time.localtime(seconds - since * 86400)
            return begun.tm_year, begun.tm_yday
        return ()

    def due(self, size: int, opened: float, now: float) -> bool:
        """Whether a file of ``size`` bytes, whose first line is of ``opened``, is over ``now``."""
        if self.size is not None:
            return size >= self.size
        return size > 0 and self.epoch(opened) != self.epoch(now)


def read_policy(text: str) -> RollPolicy:
    """The policy of that name. Raises ValueError, which lists them."""
    lower = text.strip().lower()
    if lower == "never":
        return RollPolicy()
    if lower in ("hourly", "daily"):
        return RollPolicy(period=lower)
    weekly, size = _WEEKLY(lower), _SIZE(lower)
    if weekly is not None:
        return RollPolicy(period="weekly", day=int(weekly[1]) - 1)
    if size is not None and int(size[1]):
        return RollPolicy(size=int(size[1]) * _UNITS[size[2]])
    raise ValueError(f"must be never, hourly, daily, weekly(1) to weekly(7), or a size such as 3.megabytes, not {text!r}")


LINKERD, JSON = "linkerd", "json"
FIELDS = (
    "time", "router", "server", "peer", "method", "authority", "path", "protocol", "grpc", "name", "dtab", "table", "route",
    "client", "residual", "endpoint", "attempts", "retries", "status", "grpc_status", "upstream_status", "request_bytes",
    "response_bytes", "deadline_ms", "left_ms", "sent_ms", "first_byte_ms", "total_ms", "failure", "blame", "trace",
    "user_agent", "referer",
)  # fmt: skip


def read_template(form: str) -> list[tuple[str, str | None]]:
    """Texts, and the field behind each. Raises ValueError."""
    parts = []
    for literal, name, spec, conversion in Formatter().parse(form):
        if name is not None and (name not in FIELDS or spec or conversion):
            raise ValueError(f"{{{name}}} is no field of the access log; there are {', '.join(FIELDS)}")
        parts.append((literal, name))
    return parts


def _policy(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    read_policy(value)


def _form(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if value not in (LINKERD, JSON) and not any(name for _, name in read_template(value)):
        raise ValueError(f"must be {LINKERD}, {JSON}, or a template such as {{method}} {{path}} {{status}}, not {value!r}")


def _share(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"must be between 0 and 1, not {value}")


def _count(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if value < -1:
        raise ValueError(f"must be the number of old files to keep, or -1 for all, not {value}")


@attrs.frozen
class AccessLogKeys:
    """``accessLog`` of a router, waypost's own. ``file``: ``-`` is standard output."""

    file: str
    format: str = attrs.field(default=JSON, validator=_form)
    sample: float = attrs.field(default=1.0, validator=_share)
    roll_policy: str = attrs.field(default="never", validator=_policy)
    append: bool = True
    rotate_count: int = attrs.field(default=-1, validator=_count)


@attrs.frozen
class LinkerdAccessLog:
    """Linkerd's keys, of ``http`` routers and of others; they apply where ``accessLog`` is not given."""

    http_access_log: str | None = attrs.field(default=None, metadata={"of": "http"})
    http_access_log_roll_policy: str = attrs.field(default="never", validator=_policy, metadata={"of": "http"})
    http_access_log_append: bool = attrs.field(default=True, metadata={"of": "http"})
    http_access_log_rotate_count: int = attrs.field(default=-1, validator=_count, metadata={"of": "http"})
    h2_access_log: str | None = attrs.field(default=None, metadata={"of": "h2 grpc"})
    h2_access_log_roll_policy: str = attrs.field(default="never", validator=_policy, metadata={"of": "h2 grpc"})
    h2_access_log_append: bool = attrs.field(default=True, metadata={"of": "h2 grpc"})
    h2_access_log_rotate_count: int = attrs.field(default=-1, validator=_count, metadata={"of": "h2 grpc"})

    @property
    def linkerds(self) -> AccessLogKeys | None:
        """What they amount to."""
        if self.http_access_log is not None:
            return AccessLogKeys(
                self.http_access_log, LINKERD, 1.0, self.http_access_log_roll_policy, self.http_access_log_append,
                self.http_access_log_rotate_count,
            )  # fmt: skip
        if self.h2_access_log is not None:
            return AccessLogKeys(
                self.h2_access_log, LINKERD, 1.0, self.h2_access_log_roll_policy, self.h2_access_log_append,
                self.h2_access_log_rotate_count,
            )  # fmt: skip
        return None
