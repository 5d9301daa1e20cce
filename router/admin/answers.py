"""JSON in one style, and errors as JSON with the same member."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

_HEADERS = {"cache-control": "no-store"}


def as_json(value: Any, status: int = 200, *, pretty: bool = True) -> Response:
    """A JSON answer, which ends with a newline."""
    text = json.dumps(value, indent=2 if pretty else None, separators=None if pretty else (",", ":"), default=str)
    return Response(text + "\n", status, _HEADERS, "application/json")


def error(status: int, why: str) -> Response:
    """What went wrong, for people and programs."""
    return as_json({"error": why}, status)


def text(value: str, status: int = 200) -> Response:
    """Plain text."""
    return Response(value, status, _HEADERS, "text/plain; charset=utf-8")
