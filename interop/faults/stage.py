"""Three backends of one kind, four routers in front of them in one `waypost run`, and load.

`guarded` retries, ejects and times attempts out; `by latency` does too, and balances by `ewma`; `bare` does nothing of that;
`limited` has a total timeout only. All four find the backends through a file, as `io.l5d.fs` reads it.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from interop import _support as support
from interop.faults.peers import Command, Peer

NAMES = ("a", "b", "c")
FRONTS = ("guarded", "by latency", "bare", "limited")
RATE = 120.0  # calls per second
CALL_LIMIT = 2.5  # seconds after which a load client gives up
PROBE = 0.4  # seconds that an ejected backend is left alone
ATTEMPT = 0.3  # seconds that an attempt may take until its response head
TOTAL = 0.5  # seconds of `limited`


@dataclass(frozen=True)
class Call:
    """One line of a load client. Seconds of the monotonic clock."""

    began: float
    took: float
    outcome: str
    served_by: str


class Backend:
    """A process on a port of its own, through several lives."""

    def __init__(self, name: str, kind: str, command: Command) -> None:
        self.name = name
        self.port = support.free_ports(1)[0]
        self._log = f"faults-{kind.replace('/', '-')}-{name}"
        self._argv = [*command, f"--port={self.port}", f"--name={name}"]
        self._life = ExitStack()
        self.process: support.Process | None = None

    def start(self) -> None:
        """Return when it accepts; raises `StartError`."""
        self.process = self._life.enter_context(support.serving(self._log, self._argv, ports=[self.port]))

    def tell(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.popen.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.tell(signal.SIGKILL)
        self.stop()

    def wait(self) -> None:
        """Wait for its own end, for at most ten seconds."""
        assert self.process is not None
        self.process.popen.wait(10)
        self.stop()

    def stop(self) -> None:
        """End what is left of it."""
        if self.process is not None and self.process.exit_code() is None:
            os.kill(self.process.popen.pid, signal.SIGCONT)
        self._life.close()
        self.process = None

    @property
    def running(self) -> bool:
        """Whether it has a process."""
        return self.process is not None and self.process.exit_code() is None


class Load:
    """A load client that runs: its calls so far, and in the end all of them, except those that were over before `began`, when
    router, backends and client had all come to speed."""

    def __init__(self, process: support.Process) -> None:
        self._log: Path = process.log
        self.began = 0.0

    def calls(self) -> list[Call]:
        """Those that are over, in the order in which they began."""
        lines = [line for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        calls = sorted((Call(**json.loads(line)) for line in lines), key=lambda call: call.began)
        return [call for call in calls if call.began + call.took >= self.began]

    def until(self, found: Callable[[list[Call]], bool], limit: float) -> bool:
        """Wait for calls among which `found` finds what it looks for; whether that came within `limit` seconds."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if found(self.calls()):
                return True
            time.sleep(0.05)
        return False


class Stage:
    """See the top of this file."""

    def __init__(self, peer: Peer, backends: Sequence[Backend], load: Command, fronts: dict[str, int]) -> None:
        self.peer = peer
        self.backends = backends
        self._load = load
        self._fronts = fronts

    @contextmanager
    def loaded(self, front: str) -> Iterator[Load]:
        """Load on one of the routers for the length of the block, which begins when all three backends serve, at speed."""
        argv = [*self._load, f"--port={self._fronts[front]}", f"--rate={RATE}", f"--limit={CALL_LIMIT}"]
        name = f"faults-{self.peer.name.replace('/', '-')}-load"
        with support.serving(name, argv, ports=()) as process:
            load = Load(process)
            if not load.until(_at_speed, 10.0):
                raise support.StartError(f"not all backends serve, or not in time: {process.tail(3)}")
            load.began = time.monotonic()
            yield load

    def heal(self) -> None:
        """Have three backends that run at their usual speed."""
        for backend in self.backends:
            if not backend.running:
                backend.stop()
                backend.start()
            backend.tell(signal.SIGCONT)
            backend.tell(signal.SIGUSR2)


def _at_speed(calls: list[Call]) -> bool:
    last = calls[-30:]
    return len(last) == 30 and {call.served_by for call in last} == set(NAMES) and max(call.took for call in last) < ATTEMPT


def _routers(peer: Peer, ports: dict[str, int]) -> list[dict[str, object]]:
    common = {"protocol": peer.protocol, "dtab": "/svc => /#/io.l5d.fs/backends;"}
    if peer.protocol == "grpc":
        common |= {"identifier": {"kind": "io.l5d.header.path", "segments": 1}}
    accrual = {"kind": "io.l5d.consecutiveFailures", "failures": 3, "backoff": {"kind": "constant", "ms": int(PROBE * 1000)}}
    retries = {"budget": {"minRetriesPerSec": 20}, "backoff": {"kind": "jittered", "minMs": 5, "maxMs": 50}}
    guarded = {"totalTimeoutMs": 2000, "responseClassifier": dict(peer.retried), "retries": retries}
    client = {"requestAttemptTimeoutMs": int(ATTEMPT * 1000), "failureAccrual": accrual}
    sides: dict[str, tuple[dict[str, object], dict[str, object]]] = {
        "guarded": (guarded, client),
        "by latency": (guarded, {**client, "loadBalancer": {"kind": "ewma"}}),
        "bare": (
            {"responseClassifier": dict(peer.never_retried)},
            {"loadBalancer": {"kind": "roundRobin"}, "failureAccrual": {"kind": "none"}},
        ),
        "limited": (
            {"totalTimeoutMs": int(TOTAL * 1000), "responseClassifier": dict(peer.never_retried)},
            {"failureAccrual": {"kind": "none"}},
        ),
    }
    return [
        {
            **common,
            "label": label,
            "timeoutStatus": 504,
            "service": service,
            "client": side,
            "servers": [{"ip": support.LOOPBACK, "port": ports[label]}],
        }
        for label, (service, side) in sides.items()
    ]


@contextmanager
def stage(peer: Peer) -> Iterator[Stage]:
    """Everything up; raises `Unavailable`, `BuildError` or `StartError`."""
    command, load = peer.build()
    fronts = dict(zip(FRONTS, support.free_ports(len(FRONTS)), strict=True))
    backends = [Backend(name, peer.name, command) for name in NAMES]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        (folder / "backends").write_text("".join(f"{support.LOOPBACK} {backend.port}\n" for backend in backends))
        for backend in backends:
            stack.callback(backend.stop)
            backend.start()
        namers = [{"kind": "io.l5d.fs", "rootDir": str(folder)}]
        stack.enter_context(support.router(f"faults-{peer.name.replace('/', '-')}-router", _routers(peer, fronts), namers))
        yield Stage(peer, backends, load, fronts)
