"""How the clients are built, started and asked.

The gRPC clients are programs that take a job a line; one of each runs for the whole suite and makes a channel of its own for
every job. curl and nghttp are run once a job and once a call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio

from interop import _support as support
from interop.negative.probing import Answer, Call

HERE = Path(__file__).parent
GRACE = 5.0  # seconds above the deadlines of a job


class Stuck(Exception):
    """The client did not come back."""


Ask = Callable[[int, Sequence[Call], bool], Any]
"""`await ask(port, calls, parallel)` returns the answers; raises `Stuck`."""


def patience(calls: Sequence[Call], parallel: bool) -> float:
    limits = [call.deadline for call in calls]
    return (max(limits) if parallel else sum(limits)) + GRACE


# --- gRPC ---------------------------------------------------------------------------------------------------------------------


class Driver:
    """A gRPC client that runs."""

    def __init__(self, argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
        self._argv = [str(word) for word in argv]
        self._env = {**os.environ, "GRPC_VERBOSITY": "NONE", **env}
        self._process: trio.Process | None = None
        self._buffer = bytearray()

    async def start(self) -> None:
        self._buffer.clear()
        self._process = await trio.lowlevel.open_process(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._env
        )

    async def ask(self, port: int, calls: Sequence[Call], parallel: bool) -> list[Answer]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        job = {"port": port, "parallel": parallel, "calls": [asdict(call) for call in calls]}
        line = None
        try:
            with trio.move_on_after(patience(calls, parallel)):
                await process.stdin.send_all(json.dumps(job).encode() + b"\n")
                line = await self._line()
        finally:
            if not line:  # a later answer would be taken for the next job's
                with trio.CancelScope(shield=True):
                    await self.stop()
                    await self.start()
        if not line:
            raise Stuck("the client hangs" if line is None else "the client died")
        return [Answer(**answer) for answer in json.loads(line)]

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        while (end := self._buffer.find(b"\n")) < 0:
            data = await self._process.stdout.receive_some()
            if not data:
                return b""
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def _python() -> Path:
    requirements = HERE / "requirements.txt"

    def make(folder: Path) -> None:
        support.step([sys.executable, "-m", "venv", folder])
        support.step([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--requirement", requirements])

    return support.built("negative-python", [requirements], make, made_by=sys.version)


def _go() -> Path:
    go, sources = support.tool("go"), HERE / "go"

    def make(folder: Path) -> None:
        support.step([go, "build", "-mod=readonly", "-trimpath", "-o", folder / "client", "."], cwd=sources)

    return support.built("negative-go", [sources / name for name in ("main.go", "go.mod", "go.sum")], make)


def _node() -> Path:
    support.tool("node")
    npm, sources = support.tool("npm"), HERE / "node"
    manifests = [sources / "package.json", sources / "package-lock.json"]

    def make(folder: Path) -> None:
        for manifest in manifests:
            shutil.copy(manifest, folder)
        support.step([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)

    return support.built("negative-node", manifests, make)


@asynccontextmanager
async def _driven(argv: Sequence[str | Path], env: Mapping[str, str]) -> Any:
    driver = Driver(argv, env)
    await driver.start()
    try:
        yield driver.ask
    finally:
        await driver.stop()


def _grpcio(scratch: Path) -> AbstractAsyncContextManager[Ask]:
    return _driven([_python() / "bin" / "python", HERE / "grpcio_client.py"], {})


def _grpclib(scratch: Path) -> AbstractAsyncContextManager[Ask]:
    return _driven([_python() / "bin" / "python", HERE / "grpclib_client.py"], {})


def _grpc_go(scratch: Path) -> AbstractAsyncContextManager[Ask]:
    return _driven([_go() / "client"], {})


def _grpc_js(scratch: Path) -> AbstractAsyncContextManager[Ask]:
    return _driven(["node", HERE / "node" / "client.js"], {"NODE_PATH": str(_node() / "node_modules")})


# --- curl ---------------------------------------------------------------------------------------------------------------------


async def _output(argv: Sequence[str], limit: float) -> tuple[int, str, str]:
    """Exit code, output and errors of a command that is killed at its time limit; raises `Stuck`."""
    done = None
    with trio.move_on_after(limit):
        done = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    if done is None:
        raise Stuck("the client hangs")
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def _body(scratch: Path, size: int) -> Path:
    path = scratch / f"body-{size}"
    if not path.exists():
        path.write_bytes(bytes(size))
    return path


def _pads(call: Call) -> list[tuple[str, str]]:
    return [(f"x-pad-{at}", "p" * min(4000, call.pad - at)) for at in range(0, call.pad, 4000)]


@asynccontextmanager
async def _curl(scratch: Path, version: str) -> Any:
    curl = support.tool("curl")

    async def ask(port: int, calls: Sequence[Call], parallel: bool) -> list[Answer]:
        answers = []
        out, head = scratch / "out", scratch / "head"
        for call in calls:
            out.unlink(missing_ok=True)
            head.unlink(missing_ok=True)
            argv = [curl, "-sS", "--noproxy", "*", version, "-m", str(call.deadline), "-w", "%{json}\n"]
            argv += ["-o", str(out), "-D", str(head)]
            argv += ["--limit-rate", str(call.slow or call.up)] if call.slow or call.up else []
            for name, value in [*call.headers, *_pads(call)]:
                argv += ["-H", f"{name}: {value}"]
            argv += ["-T", str(_body(scratch, call.size)), "-X", "POST"] if call.size and call.send > 1 else []
            argv += [*call.options, f"http://127.0.0.1:{port}{call.path}"]
            await trio.sleep(call.before)
            _, output, errors = await _output(argv, patience([call], False))
            answers.append(_curl_answer(out, head, json.loads(output.splitlines()[-1]), errors))
        return answers

    yield ask


def _curl_answer(out: Path, head: Path, done: dict[str, Any], errors: str) -> Answer:
    body = out.read_bytes() if out.exists() else b""
    lines = head.read_text("latin-1").splitlines() if head.exists() else []
    statuses = [int(line.split()[1]) for line in lines if line.startswith("HTTP/")]
    code = int(done["exitcode"])
    return Answer(
        http=statuses[-1] if statuses and statuses[-1] >= 200 else None,
        broken=_curl_broken(code, done.get("errormsg") or errors),
        text=done.get("errormsg") or "",
        size=len(body),
        crc=zlib.crc32(body),
        informational=tuple(status for status in statuses if status < 200),
        fields=tuple((k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines) if v),
        pad=sum(len(line.partition(":")[2].strip()) for line in lines if line.lower().startswith("x-pad")),
        seconds=float(done["time_total"]),
    )


def _curl_broken(code: int, text: str) -> str:
    if code == 0:
        return ""
    found = re.search(r"\(err (\d+)\)", text)
    if found is not None:
        return f"RST {found[1]}"
    return {18: "closed", 52: "closed", 55: "closed", 56: "closed", 28: "timeout"}.get(code, f"curl {code}: {text}")


# --- nghttp -------------------------------------------------------------------------------------------------------------------

_FRAME = re.compile(r"recv (HEADERS|DATA|RST_STREAM) frame <length=(\d+), flags=0x([0-9a-f]+), stream_id=(\d+)>")
_FIELD = re.compile(r"recv \(stream_id=(\d+)(?:, \w+)*\) ([^ ]+): ?(.*)$")
_CODE = re.compile(r"\(error_code=\w+\(0x([0-9a-f]+)\)\)")


@asynccontextmanager
async def _nghttp(scratch: Path) -> Any:
    nghttp = support.tool("nghttp")

    async def ask(port: int, calls: Sequence[Call], parallel: bool) -> list[Answer]:
        answers = []
        for call in calls:
            argv = [nghttp, "-v", "-n", "--no-dep", "-t", f"{call.deadline:g}"]
            for name, value in [*call.headers, *_pads(call)]:
                argv += ["-H", f"{name}: {value}"] if value else []  # an empty value takes curl's own field away
            argv += ["-d", str(_body(scratch, call.size))] if call.size and call.send > 1 else []
            argv += [*call.options, f"http://127.0.0.1:{port}{call.path}"]
            await trio.sleep(call.before)
            began = trio.current_time()
            _, output, _ = await _output(argv, patience([call], False))
            answers.append(read_nghttp(output, trio.current_time() - began))
        return answers

    yield ask


def read_nghttp(log: str, seconds: float) -> Answer:
    """What the frames of one request say."""
    log = re.sub(r"\x1b\[[0-9;]*m", "", log)
    statuses: list[int] = []
    fields: list[tuple[str, str]] = []
    size, ended, code, awaited = 0, False, None, False
    for line in log.splitlines():
        frame, value = _FRAME.search(line), _FIELD.search(line)
        if value is not None:
            fields.append((value[2], value[3]))
            if value[2] == ":status":
                statuses.append(int(value[3]))
        elif frame is not None:
            kind, length, flags = frame[1], int(frame[2]), int(frame[3], 16)
            size += length if kind == "DATA" else 0
            ended = ended or (kind != "RST_STREAM" and bool(flags & 1))
            awaited = kind == "RST_STREAM"
        elif awaited and code is None and (found := _CODE.search(line)):
            code = int(found[1], 16)
    broken = "" if ended else "closed" if code is None else f"RST {code}"
    return Answer(
        http=statuses[-1] if statuses and statuses[-1] >= 200 else None,
        broken=broken,
        size=size,
        informational=tuple(status for status in statuses if status < 200),
        fields=tuple(fields),
        pad=sum(len(value) for name, value in fields if name.startswith("x-pad")),
        seconds=seconds,
    )


STARTERS: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Ask]]] = {
    "grpcio": _grpcio,
    "grpc-go": _grpc_go,
    "grpc-js": _grpc_js,
    "grpclib": _grpclib,
    "curl-h2": lambda scratch: _curl(scratch, "--http2-prior-knowledge"),
    "nghttp": _nghttp,
    "curl": lambda scratch: _curl(scratch, "--http1.1"),
}
