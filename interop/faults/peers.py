"""The three kinds of backends and their load clients: how they are built, started and asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interop import _support as support
from interop.grpc import peers as grpc_peers

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
Command = Sequence[str | Path]


@dataclass(frozen=True)
class Peer:
    """One kind. `protocol` is the router's; `build()` returns the commands of a backend and of the load client, without
    options; it raises `Unavailable` or `BuildError`. `good` is the outcome of a call that went well, `late` of one that had
    no time."""

    name: str
    protocol: str
    build: Callable[[], tuple[Command, Command]]
    good: str
    late: str
    retried: Mapping[str, object]  # a classifier by which every failure of these idempotent calls may be sent again
    never_retried: Mapping[str, object]


def _http() -> tuple[Command, Command]:
    return [sys.executable, PROGRAMS / "http_server.py"], [sys.executable, PROGRAMS / "http_load.py"]


def _grpcio() -> tuple[Command, Command]:
    python = grpc_peers.PYTHON.build() / "bin" / "python"
    return [python, PROGRAMS / "grpc_server.py"], [python, PROGRAMS / "grpc_load.py"]


def _grpc_go() -> tuple[Command, Command]:
    go = support.tool("go")
    sources = HERE / "go"

    def make(folder: Path) -> None:
        support.step([go, "build", "-mod=readonly", "-trimpath", "-o", f"{folder}/backend", "."], cwd=sources)

    inputs = [sources / "go.mod", sources / "go.sum", sources / "main.go"]
    backend = support.built("faults-go", inputs, make) / "backend"
    return [backend], _grpcio()[1]


_HTTP = {"kind": "io.l5d.http.retryableIdempotent5XX"}, {"kind": "io.l5d.http.nonRetryable5XX"}
_GRPC = (
    {"kind": "io.l5d.h2.grpc.retryableStatusCodes", "retryableStatusCodes": [4, 14]},
    {"kind": "io.l5d.h2.grpc.neverRetryable"},
)
PEERS = {
    peer.name: peer
    for peer in (
        Peer("http/1.1", "http", _http, "200", "504", *_HTTP),
        Peer("grpcio", "grpc", _grpcio, "OK", "DEADLINE_EXCEEDED", *_GRPC),
        Peer("grpc-go", "grpc", _grpc_go, "OK", "DEADLINE_EXCEEDED", *_GRPC),
    )
}
