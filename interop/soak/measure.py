"""What the router's worker has in its hands, by its admin interface and by the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from dataclasses import dataclass

# Sums of gauges by the end of their names; with nothing under way each is 0.
IDLE = (
    "pending", "load", "request_concurrency", "request_queue_size", "connections", "open_streams", "uncredited_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class Held:
    """``idle``: what must be 0 without traffic; ``kept``: what must be as before (tasks, timers, file descriptors by kind);
    ``resident``: bytes; ``crashes``: bugs that the worker has caught."""

    idle: dict[str, int]
    kept: dict[str, int]
    resident: int
    crashes: int

    def left(self, before: Held | None) -> list[str]:
        """What is still there, though nobody asks for anything, compared with an earlier time."""
        found = [f"{name} {value}" for name, value in self.idle.items() if value]
        if before is not None:
            found += [
                f"{name} {value}, was {before.kept[name]}" for name, value in self.kept.items() if value > before.kept[name]
            ]
        return found


class Probe:
    """Looks at the only worker of the supervisor ``pid``, whose admin interface is at ``port``."""

    def __init__(self, pid: int, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/admin/metrics.json"
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
        (self.worker,) = [int(line) for line in listed.stdout.split()]

    def look(self) -> Held:
        """What there is now; the supervisor's answer may be a second old. Raises OSError when the worker is gone."""
        metrics = self._metrics()
        idle = {end: int(sum(value for name, value in metrics.items() if name.endswith("/" + end))) for end in IDLE}
        kept = {name: int(metrics[f"process/{name}"]) for name in ("tasks", "timers")} | self._descriptors()
        return Held(idle, kept, int(metrics["process/resident_bytes"]), int(metrics["process/crashes"]))

    def _metrics(self) -> dict[str, float]:
        """A worker that is too busy to answer in time is left out of the supervisor's answer: ask again."""
        for _ in range(30):
            with urllib.request.urlopen(self._url, timeout=20) as answer:
                metrics: dict[str, float] = json.load(answer)
            if "process/tasks" in metrics:
                return metrics
            time.sleep(1.1)
        raise TimeoutError("the worker does not tell its metrics")

    def resident(self) -> int:
        """The worker's memory in bytes, by the kernel: that answers under load too. Raises OSError when the worker is gone."""
        with open(f"/proc/{self.worker}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def settled(self, before: Held | None, limit: float) -> Held:
        """Look until nothing is left, or ``limit`` seconds have passed."""
        deadline = time.monotonic() + limit
        while True:
            time.sleep(1.1)
            held = self.look()
            if not held.left(before) or time.monotonic() > deadline:
                return held

    def _descriptors(self) -> dict[str, int]:
        folder = f"/proc/{self.worker}/fd"
        kinds = {"sockets": 0, "other files": 0}
        for number in os.listdir(folder):
            try:
                target = os.readlink(f"{folder}/{number}")
            except FileNotFoundError:
                continue
            kinds["sockets" if target.startswith("socket:") else "other files"] += 1
        return kinds
