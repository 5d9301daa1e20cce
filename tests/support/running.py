"""`waypost run` as a process, and what it says: one JSON object a line."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Router:
    """`lines`: what it has said so far; `ports`: of its listeners, in the order of the configuration."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[Line] = []
        self._ready: Line | None = None

    def until(self, event: str, wanted: Callable[[Line], bool] = lambda line: True) -> Line:
        """Read on to the next line with this event, of which `wanted` is true."""
        for line in self.read():
            if line["event"] == event and wanted(line):
                return line
        raise AssertionError(f"it ended, with {self.process.wait()}, and never said {event}: {self.lines}")

    def read(self) -> Iterator[Line]:
        """What comes. Every line must be an object."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            line = json.loads(text)
            assert {"time", "level", "event", "process", "pid", "fields"} <= line.keys(), line
            self.lines.append(line)
            yield line

    @property
    def ready(self) -> Line:
        """The fields of the event `ready`, waited for."""
        if self._ready is None:
            self._ready = self.until("ready")["fields"]
        return self._ready

    @property
    def ports(self) -> list[int]:
        return [listener["port"] for listener in self.ready["listeners"]]

    @property
    def workers(self) -> list[int]:
        """Process ids, as they were in the beginning."""
        return list(self.ready["workers"])

    def admin(self, path: str, body: bytes | None = None) -> Any:
        """What the admin interface answers, a JSON value; POSTed where there is a body."""
        with urllib.request.urlopen(f"http://{self.ready['admin']}{path}", body, timeout=10) as answer:
            return json.load(answer)

    def stop(self) -> int:
        """SIGTERM, and the rest of what it says; its exit code."""
        self.process.terminate()
        list(self.read())
        return self.process.wait(timeout=10)


@contextmanager
def running(config: Path | str, *arguments: str, wrapper: tuple[str, ...] = (), **options: Any) -> Iterator[Router]:
    """Killed at the end, if it has not been stopped."""
    command = [*wrapper, sys.executable, "-m", "router.cli", "run", str(config), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            yield Router(process)
        finally:
            process.kill()
