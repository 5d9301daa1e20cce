"""The handler, and what leads to it: the levels, Python's warnings, errors that nobody caught, and what is printed."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from router.logs.limit import Limiter
from router.logs.lines import as_json, as_text, event_of
from router.logs.sinks import Sink
from router.model.events import log_event

JSON, TEXT, AUTO = "json", "text", "auto"
LEVELS = {
    "ALL": 1, "TRACE": 5, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50, "OFF": 100,
}  # fmt: skip
"""Linkerd's names."""


@attrs.frozen
class LogSettings:
    """``form``: ``json`` or ``text``; ``level``: one of ``LEVELS``."""

    form: str
    level: str


def chosen(form: str, level: str, stream: Any) -> LogSettings:
    """With ``auto`` resolved: text where ``stream`` is a terminal."""
    return LogSettings((TEXT if stream.isatty() else JSON) if form == AUTO else form, level.upper())


class LineHandler(logging.Handler):
    """Makes lines of records. A record with a ``line`` is one already, of a worker, and passed on. One that is
    ``unlimited`` is asked for by itself, however many there are."""

    def __init__(self, settings: LogSettings, sink: Sink, worker: int | None) -> None:
        super().__init__()
        self._show = as_json if settings.form == JSON else as_text
        self._sink = sink
        self._worker = worker
        self._limiter = Limiter()
        self._told_dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called by :mod:`logging`, which holds the handler's lock."""
        try:
            line: bytes | None = getattr(record, "line", None)
            if line is not None:
                self._sink.write(line)
                return
            left_out = 0 if hasattr(record, "unlimited") else self._take(record)
            if left_out is not None:
                self._write(record, left_out)
        except Exception:  # noqa: BLE001 - who logs must not fail because of what it logs
            self._say("log_failed", logger=record.name, place=f"{record.pathname}:{record.lineno}")

    def _take(self, record: logging.LogRecord) -> int | None:
        name = event_of(record) if hasattr(record, "event") else record.name
        return self._limiter.take(name, time.monotonic())

    def _write(self, record: logging.LogRecord, left_out: int = 0) -> None:
        self._sink.write((self._show(record, self._worker, left_out) + "\n").encode("utf-8", "backslashreplace"))

    def _say(self, event: str, **fields: Any) -> None:
        """A line of its own, whatever the levels and limits."""
        record = logging.LogRecord("waypost.log", logging.WARNING, "", 0, event, None, None)
        vars(record).update(event=event, fields=fields)
        if self._show is as_text:
            record.msg = " ".join([event, *[f"{key}={value}" for key, value in fields.items()]])
        self._write(record)

    def sweep(self) -> None:
        """From time to time: say what was left out and not said yet."""
        with self.lock:  # type: ignore[union-attr]
            self._sink.sweep()
            for name, left_out in self._limiter.overdue(time.monotonic()):
                self._say("log_suppressed", of=name, lines=left_out)
            dropped = self._sink.dropped - self._told_dropped
            if dropped:
                self._told_dropped += dropped
                self._say("log_dropped", lines=dropped)


def sweep() -> None:
    """See :meth:`LineHandler.sweep`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.sweep()


class _Printed(io.TextIOBase):
    """In place of ``sys.stderr``: whole lines become events, so that nothing comes between those that collectors read."""

    def __init__(self) -> None:
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        said = "\n".join(lines)
        if said.strip():
            log_event(logging.WARNING, "process_printed", {"text": said})
        self._rest = self._rest[-65536:]
        return len(text)


@contextmanager
def installed(settings: LogSettings, sink: Sink, worker: int | None = None) -> Iterator[None]:
    """Log by ``settings`` while the block runs; an error that leaves it is logged as well, and raises SystemExit(1)."""
    root, ours = logging.getLogger(), logging.getLogger("waypost")
    before = (root.handlers[:], root.level, ours.level, threading.excepthook, sys.unraisablehook, sys.stderr)
    root.handlers[:] = [LineHandler(settings, sink, worker)]
    root.setLevel(logging.DEBUG if LEVELS[settings.level] <= logging.DEBUG else logging.WARNING)
    ours.setLevel(LEVELS[settings.level])
    logging.getLogger("hpack").setLevel(logging.WARNING)  # whose debugging costs, shown or not
    logging.captureWarnings(True)
    threading.excepthook, sys.unraisablehook = _uncaught("thread_crashed"), _uncaught("object_crashed")
    if settings.form == JSON:
        sys.stderr = _Printed()
    try:
        yield
    except Exception as error:  # a bug, told where the operator looks
        log_event(logging.CRITICAL, "process_crashed", {"cause": repr(error)}, error=error)
        raise SystemExit(1) from error
    finally:
        logging.captureWarnings(False)
        sweep()
        sink.close()
        root.handlers[:], level, our_level, threading.excepthook, sys.unraisablehook, sys.stderr = before
        root.setLevel(level)
        ours.setLevel(our_level)


def _uncaught(event: str) -> Callable[[Any], None]:
    def hook(what: Any) -> None:
        log_event(logging.ERROR, event, {"cause": repr(what.exc_value)}, error=what.exc_value)

    return hook


def level_of(logger: str) -> str:
    """The level by which ``logger`` logs, its own or that of what it is below."""
    level = logging.getLogger(logger).getEffectiveLevel()
    return next(name for name, number in LEVELS.items() if number >= level)


def set_level(logger: str, level: str) -> None:
    """From now on ``logger`` logs what is at least so grave."""
    logging.getLogger(logger).setLevel(LEVELS[level])
