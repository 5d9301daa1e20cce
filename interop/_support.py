"""What the suites share: processes, free ports, builds with a cache, tables, verdicts.

1. Everything that is built or logged lives in `.interop/` below the current directory. A build is named after the content of
   its inputs, made in a scratch folder and renamed when it is complete; builds from other inputs are then removed.
2. Each process leads its own process group and writes to a log file. It is stopped by pid: SIGTERM to the leader, which knows
   its children best, then SIGKILL to whatever is left of the group.
3. `Unavailable` means that this machine lacks a program: what needs it is skipped, with the reason. Whatever else goes wrong
   (a build, a start) is a failure.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import yaml

LOOPBACK = "127.0.0.1"


class Unavailable(Exception):
    """This machine lacks a program. The text is the reason that stands beside `skip`."""


class BuildError(Exception):
    """A build ended with an error. The text has the command and the end of its output."""


class StartError(Exception):
    """A process ended, or did not listen in time. The text has the end of its log."""


# --- folders, tools, builds ---------------------------------------------------------------------------------------------------


def cache() -> Path:
    """`.interop/` below the current directory, made if absent."""
    folder = Path.cwd() / ".interop"
    folder.mkdir(exist_ok=True)
    return folder


def log_file(name: str) -> Path:
    """Where a process called `name` logs; one file a name, overwritten by the next run."""
    folder = cache() / "logs"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}.log"


def tool(name: str) -> str:
    """The path of a program on PATH; raises `Unavailable`."""
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} not found")
    return path


def built(name: str, inputs: Iterable[Path], make: Callable[[Path], None], *, made_by: str = "") -> Path:
    """The folder that `make(folder)` fills, made once for each content of `inputs` and `made_by`; raises what `make` does."""
    digest = hashlib.sha256(made_by.encode())
    for path in inputs:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    target = cache() / f"{name}-{digest.hexdigest()[:12]}"
    with open(cache() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _make(name, target, make)
    return target


def _make(name: str, target: Path, make: Callable[[Path], None]) -> None:
    print(f"building {target.name} ...", flush=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"scratch-{name}-", dir=cache()))
    try:
        make(scratch)
        for stale in cache().glob(f"{name}-????????????"):
            shutil.rmtree(stale)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def step(argv: Sequence[str | Path], *, cwd: Path | None = None, limit: float = 600.0) -> None:
    """Run one command of a build, for at most `limit` seconds; raises `BuildError`."""
    done = run("build", argv, cwd=cwd, limit=limit)
    if done.code != 0:
        raise BuildError(f"{' '.join(map(str, argv))}: {done.verdict}\n{done.tail}")


# --- processes ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """How a command ended: its exit code (None: killed at the time limit), its duration in seconds, the end of its output."""

    code: int | None
    seconds: float
    tail: str

    @property
    def verdict(self) -> str:
        return f"time limit after {self.seconds:.0f} s" if self.code is None else f"exit code {self.code}"


@dataclass(frozen=True)
class Process:
    """A running process and its log."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def tail(self, lines: int = 12) -> str:
        return tail(self.log, lines)

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.popen.poll()


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log of any size."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        text = file.read().decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-lines:])


def run(
    name: str, argv: Sequence[str | Path], *, limit: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Finished:
    """Run a command to its end, for at most `limit` seconds."""
    began = time.monotonic()
    with _process(name, argv, cwd=cwd, env=env, grace=0.0) as process:
        try:
            code = process.popen.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        return Finished(code, time.monotonic() - began, process.tail())


@contextmanager
def serving(
    name: str,
    argv: Sequence[str | Path],
    *,
    ports: Iterable[int],
    env: Mapping[str, str] | None = None,
    limit: float = 30.0,
    admin: int | None = None,
) -> Iterator[Process]:
    """Run a server for the length of the block, entered when all `ports` of 127.0.0.1 accept, and, of a router, when it says at
    its `admin` port that workers serve; raises `StartError`."""
    with _process(name, argv, cwd=None, env=env, grace=5.0) as process:
        deadline = time.monotonic() + limit
        for port in ports:
            _wait_for_accept(process, port, deadline)
        if admin is not None:
            _wait_until_ready(process, admin, deadline)
        yield process


@contextmanager
def _process(
    name: str, argv: Sequence[str | Path], *, cwd: Path | None, env: Mapping[str, str] | None, grace: float
) -> Iterator[Process]:
    log = log_file(name)
    with open(log, "wb") as output:
        popen = subprocess.Popen(
            [str(word) for word in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Process(name, popen, log)
    finally:
        _stop(popen, grace)


def _stop(popen: subprocess.Popen[bytes], grace: float) -> None:
    if popen.poll() is None and grace:
        popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            popen.wait(grace)
    with suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()


def _wait_for_accept(process: Process, port: int, deadline: float) -> None:
    while True:
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1.0):
            return
        if process.exit_code() is not None:
            raise StartError(f"{process.name} ended with code {process.exit_code()} before it listened\n{process.tail()}")
        if time.monotonic() > deadline:
            raise StartError(f"{process.name} does not listen on {LOOPBACK}:{port}\n{process.tail()}")
        time.sleep(0.02)


def _wait_until_ready(process: Process, port: int, deadline: float) -> None:
    """The supervisor has the sockets before its workers serve: who asks earlier waits for them."""
    while True:
        with suppress(OSError), urlopen(f"http://{LOOPBACK}:{port}/ready", timeout=1.0):
            return
        if process.exit_code() is not None or time.monotonic() > deadline:
            raise StartError(f"{process.name} does not become ready\n{process.tail()}")
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def router(
    name: str, routers: Sequence[Mapping[str, object]], namers: Sequence[Mapping[str, object]] = ()
) -> Iterator[Process]:
    """Run waypost with these routers and namers (as in the configuration) until the block ends; raises `StartError`."""
    (port,) = free_ports(1)
    admin = {"ip": LOOPBACK, "port": port}
    config = log_file(name).with_suffix(".yaml")
    whole = {"admin": admin, "namers": [dict(each) for each in namers], "routers": [dict(each) for each in routers]}
    config.write_text(yaml.safe_dump(whole, sort_keys=False))
    ports = [server["port"] for each in routers for server in each["servers"]]  # type: ignore[attr-defined]
    with serving(name, [sys.executable, "-m", "router.cli", "run", config], ports=ports, admin=port) as process:
        yield process


def certificate(name: str) -> dict[str, str]:
    """A new certificate for 127.0.0.1 beside the logs, as a server's `tls`; raises `Unavailable`."""
    try:
        import trustme
    except ImportError:
        raise Unavailable("trustme not found (pip install -e '.[dev]')") from None
    made = trustme.CA().issue_cert(LOOPBACK)
    cert, key = log_file(name).with_suffix(".crt"), log_file(name).with_suffix(".key")
    made.cert_chain_pems[0].write_to_path(str(cert))
    made.private_key_pem.write_to_path(str(key))
    return {"certPath": str(cert), "keyPath": str(key)}


# --- verdicts -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """The last line of every suite, and its exit code."""

    passed: int
    failed: int
    skipped: int

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    @property
    def exit_code(self) -> int:
        """1 on any failure, and if nothing passed: a suite that could run nothing has shown nothing."""
        return 1 if self.failed or not self.passed else 0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def indented(text: str, by: int = 4) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())


def end_on_sigterm() -> None:
    """Make SIGTERM unwind the stack, so that the processes of the suite end with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
