"""`python -m interop.reload`: reloads and killed workers under load; nothing is refused, a reload loses nothing.

A killed worker may lose what it had sent upstream: at most the calls that were under way when it died.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from interop import _support as support
from interop.reload.load import Load

WINDOW = 1.0  # seconds after a kill in which its losses show
GAP = 3.0  # seconds between two events


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m interop.reload", description=__doc__)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=4, help="of each kind (default: 4)")
    parser.add_argument("--quick", action="store_true", help="three reloads and two kills")
    options = parser.parse_args()
    if options.quick:
        options.reloads, options.kills, options.clients = 3, 2, 2
    return options


class Router:
    """The router, its file and its workers."""

    def __init__(self, workers: int) -> None:
        self.grpc, self.http, self.admin, self._to_grpc, self._to_http = support.free_ports(5)
        self._workers = workers
        self.file = support.log_file("reload").with_suffix(".yaml")
        self.process: support.Process
        self.write(1000)

    def write(self, depth: int) -> None:
        """A file that differs from others in more than a dtab."""
        routers = [
            self._router("grpc", self.grpc, self._to_grpc, depth),
            self._router("http", self.http, self._to_http, depth),
        ]
        admin = {"port": self.admin}
        self.file.write_text(yaml.safe_dump({"admin": admin, "workers": self._workers, "routers": routers}))

    def _router(self, protocol: str, port: int, to: int, depth: int) -> dict[str, object]:
        server = {"port": port, "maxCallDepth": depth}
        return {"protocol": protocol, "dtab": f"/svc => /$/inet/127.0.0.1/{to}", "servers": [server]}

    def backend(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("backend.py")), str(self._to_grpc), str(self._to_http)]

    @property
    def backend_ports(self) -> list[int]:
        return [self._to_grpc, self._to_http]

    def workers(self) -> list[int]:
        """Pids of the children, the oldest first."""
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.popen.pid)], capture_output=True, text=True)
        return sorted(int(line) for line in listed.stdout.split())

    def reload(self, number: int) -> bool:
        """Reload, and wait until other workers are all that is left."""
        before = set(self.workers())
        self.write(1001 + number)
        self.process.popen.send_signal(signal.SIGHUP)
        return self._until(lambda: not before & set(self.workers()) and len(self.workers()) == self._workers)

    def kill(self) -> bool:
        """Kill a worker that serves, and wait until there is another one in its place."""
        victim = self.workers()[-1]
        os.kill(victim, signal.SIGKILL)
        return self._until(lambda: victim not in self.workers() and len(self.workers()) >= self._workers)

    def _until(self, done: Callable[[], bool], limit: float = 20.0) -> bool:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            if done():
                return True
            time.sleep(0.05)
        return False


def main() -> int:
    options = arguments()
    router = Router(options.workers)
    checks: list[tuple[str, bool, str]] = []
    kills: list[float] = []
    with support.serving("reload-backend", router.backend(), ports=router.backend_ports):
        argv = [sys.executable, "-m", "router.cli", "run", router.file]
        with support.serving("reload", argv, ports=[router.grpc, router.http], admin=router.admin) as router.process:
            load = Load(router.grpc, router.http, options.clients)
            with load.running():
                time.sleep(1.0)
                for number in range(options.reloads):
                    checks.append((f"reload {number + 1}", router.reload(number), "new workers, and no old ones, within 20 s"))
                    time.sleep(GAP)
                for number in range(options.kills):
                    kills.append(time.monotonic())
                    checks.append((f"kill {number + 1}", router.kill(), "another worker within 20 s"))
                    time.sleep(GAP)
    checks += judge(load, kills, options.clients)
    print(support.table([["", "keep-alive", "one-shot", "unary", "stream"], *counts(load)]))
    for name, good, what in checks:
        if not good:
            print(f"FAIL {name}: {what}")
    failed = sum(not good for _, good, _ in checks)
    tally = support.Tally(len(checks) - failed, failed, 0)
    print(f"\n{tally}")
    return tally.exit_code


def judge(load: Load, kills: list[float], clients: int) -> list[tuple[str, bool, str]]:
    """What there was in all, and what was lost when."""
    stray = [fault for at, fault in load.faults if not any(kill <= at <= kill + WINDOW for kill in kills)]
    most = 4 * clients * len(kills)
    lost = sum(load.lost.values())
    return [
        ("calls", all(load.done[kind] > 10 for kind in ("keep-alive", "one-shot", "unary")), "too few calls to judge"),
        ("streams", load.done["stream"] > 0, "no stream came to its end"),
        ("refused", not load.refused, f"connections refused: {dict(load.refused)}"),
        ("lost by reloads", not stray, "; ".join(stray[:5])),
        ("lost by kills", lost - len(stray) <= most, f"{lost - len(stray)} calls lost, at most {most} were under way"),
    ]


def counts(load: Load) -> list[list[str]]:
    kinds = ("keep-alive", "one-shot", "unary", "stream")
    named = (("done", load.done), ("lost", load.lost), ("refused", load.refused))
    return [[name, *[str(counter[kind]) for kind in kinds]] for name, counter in named]


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
