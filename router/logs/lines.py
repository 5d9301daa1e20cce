"""A record as a line: JSON for collectors, text for people.

Bounds: ``MAX_TEXT`` characters a value, of a traceback the last ones.
"""

from __future__ import annotations

import json
import logging
import math
import os
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

MAX_TEXT = 8192
LIBRARY, WARNING = "log", "python_warning"  # events of records that are none of ours


def event_of(record: logging.LogRecord) -> str:
    """Its stable name."""
    name: str = getattr(record, "event", None) or (WARNING if record.name == "py.warnings" else LIBRARY)
    return name


def as_json(record: logging.LogRecord, worker: int | None, left_out: int) -> str:
    """An object: ``time`` (RFC 3339), ``level``, ``event``, ``process``, ``pid``, ``fields``, and what else there is."""
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "event": event_of(record),
        "process": "supervisor" if worker is None else "worker",
    }
    if worker is not None:
        line["worker"] = worker
    line |= {"pid": os.getpid(), "logger": record.name}
    fields = getattr(record, "fields", None)
    if fields is None:
        line["message"] = _text(record.getMessage())
    line["fields"] = _plain(fields or {})
    if left_out:
        line["suppressed"] = left_out
    if (trace := _traceback(record)) is not None:
        line["traceback"] = trace
    return json.dumps(line)


def as_text(record: logging.LogRecord, worker: int | None, left_out: int) -> str:
    """Time, level, process, and the event; what is meant for people as it is."""
    shown: str | None = getattr(record, "shown", None)
    if shown is not None:
        return shown
    at = datetime.fromtimestamp(record.created).astimezone()
    who = "" if worker is None else f"worker {worker}: "
    what = record.getMessage() if hasattr(record, "event") else f"{event_of(record)} {record.name}: {record.getMessage()}"
    more = f" (and {left_out} that were not shown)" if left_out else ""
    trace = _traceback(record)
    return f"{at:%Y-%m-%d %H:%M:%S} {record.levelname:<7} {who}{_text(what)}{more}" + (f"\n{trace}" if trace else "")


def _traceback(record: logging.LogRecord) -> str | None:
    if not record.exc_info or record.exc_info[0] is None:
        return None
    return "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")[-MAX_TEXT:]


def _plain(value: Any, depth: int = 4) -> Any:
    """What JSON can say, and every parser reads."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth and isinstance(value, Mapping):
        return {str(key): _plain(one, depth - 1) for key, one in value.items()}
    if depth and isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(one, depth - 1) for one in value]
    return _text(str(value))


def _text(text: str) -> str:
    """Bounded, and without halves of surrogate pairs, which file names may hold and JSON must not."""
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()
