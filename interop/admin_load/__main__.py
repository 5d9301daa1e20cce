"""`python -m interop.admin_load`: whether the calls notice when the admin interface is hammered.

Calls come at a fixed rate, far below what a worker can do. In every second window the admin interface is asked for all that
it has, by eight connections, as fast as it answers. Told are the latencies of both kinds of windows, and what CPU time the
processes used. The windows alternate, and medians are compared, since machines drift. Exit code 1: the median p99 moved by
more than --tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from interop import _support as support

HERE = Path(__file__).parent
SERVER = HERE.parent / "faults" / "programs" / "http_server.py"


@dataclass(frozen=True)
class Window:
    """Latencies in milliseconds, the worker's CPU microseconds a call, what share of a CPU the supervisor used, and requests to
    the admin interface a second."""

    median: float
    p99: float
    worst: float
    cpu: float
    supervisor: float
    admin: float


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m interop.admin_load", description=__doc__)
    parser.add_argument("--rate", type=float, default=400.0, help="calls a second (default: 400)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a window (default: 4)")
    parser.add_argument("--pairs", type=int, default=10, help="of windows (default: 10)")
    parser.add_argument("--names", type=int, default=100, help="logical names, each with metrics of its own (default: 100)")
    parser.add_argument("--work-ms", type=int, default=5, help="what an answer takes (default: 5)")
    parser.add_argument("--tolerance", type=float, default=0.10)
    return parser.parse_args()


class Bench:
    """A router with one worker, and what is asked of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.port, self.admin, self.backend = support.free_ports(3)
        self.router: support.Process
        self.file = support.log_file("admin-load").with_suffix(".yaml")
        router = {
            "protocol": "http",
            "dtab": f"/svc => /$/inet/127.0.0.1/{self.backend}",
            "servers": [{"port": self.port}],
        }
        recent = {"kind": "io.l5d.recentRequests", "sampleRate": 0.1}
        self.file.write_text(yaml.safe_dump({"admin": {"port": self.admin}, "telemetry": [recent], "routers": [router]}))

    def worker(self) -> int:
        """Its pid."""
        with urllib.request.urlopen(f"http://{support.LOOPBACK}:{self.admin}/admin/workers.json", timeout=10) as response:
            return int(json.load(response)["workers"][0]["pid"])

    def window(self, *, hammered: bool) -> Window:
        """One window."""
        options, pid = self._options, self.worker()
        calls = [self.port, options.rate, options.seconds, options.names]
        before, above = cpu_seconds(pid), cpu_seconds(self.router.popen.pid)
        hammer = self._program("hammer.py", self.admin, options.seconds + 0.2) if hammered else None
        load = self._program("calls.py", *calls)
        told, _ = load.communicate(timeout=options.seconds + 60)
        asked = {} if hammer is None else json.loads(hammer.communicate(timeout=60)[0])
        spent = cpu_seconds(pid) - before
        share = (cpu_seconds(self.router.popen.pid) - above) / options.seconds
        latencies = sorted([1000 * seconds for seconds in json.loads(told)])
        count = len(latencies)
        rate = sum(asked.values()) / options.seconds
        return Window(latencies[count // 2], latencies[count * 99 // 100], latencies[-1], 1e6 * spent / count, share, rate)

    def _program(self, name: str, *words: object) -> subprocess.Popen[str]:
        argv = [sys.executable, str(HERE / name), *[str(word) for word in words]]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def cpu_seconds(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(options: argparse.Namespace) -> tuple[list[Window], list[Window]]:
    """Windows without and with the hammer, in alternation."""
    bench = Bench(options)
    calm, hammered = [], []
    backend = [sys.executable, SERVER, "--port", str(bench.backend), "--name", "a", "--work-ms", str(options.work_ms)]
    argv = [sys.executable, "-m", "router.cli", "run", bench.file]
    with (
        support.serving("admin-load-backend", backend, ports=[bench.backend]),
        support.serving("admin-load", argv, ports=[bench.port], admin=bench.admin) as bench.router,
    ):
        bench.window(hammered=True)  # to warm up
        for at in range(options.pairs):
            for hammer in (False, True) if at % 2 else (True, False):
                (hammered if hammer else calm).append(bench.window(hammered=hammer))
    return calm, hammered


def row(name: str, windows: list[Window]) -> list[str]:
    values = [
        statistics.median(getattr(window, field) for window in windows)
        for field in ("median", "p99", "worst", "cpu", "supervisor")
    ]
    spread = f"{min(window.p99 for window in windows):.2f}-{max(window.p99 for window in windows):.2f}"
    admin = statistics.median(window.admin for window in windows)
    return [name, *[f"{value:.2f}" for value in values[:3]], spread, f"{values[3]:.0f}", f"{values[4]:.0%}", f"{admin:.0f}"]


def main() -> int:
    options = arguments()
    calm, hammered = measure(options)
    heads = ["medians of windows", "p50 ms", "p99 ms", "worst ms", "p99 from-to", "worker us/call", "supervisor", "admin/s"]
    print(support.table([heads, row("calm", calm), row("hammered", hammered)]))
    moved = statistics.median(one.p99 for one in hammered) / statistics.median(one.p99 for one in calm) - 1
    pairs = statistics.median(b.p99 / a.p99 for a, b in zip(calm, hammered, strict=True)) - 1
    print(f"\np99 moved by {moved:+.1%}; from window to window by {pairs:+.1%} in the median")
    return 0 if moved <= options.tolerance else 1


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
