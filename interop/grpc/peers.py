"""The four gRPC implementations: how each is built, and the commands of its interop client and server.

Go and Java are the published interop programs; Python and Node have none, so theirs are beside this file.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from interop import _support as support

HERE = Path(__file__).parent
PROTOS = sorted((HERE / "proto").glob("*.proto"))
Command = Sequence[str | Path]


@dataclass(frozen=True)
class Peer:
    """One implementation. `build()` returns the folder that the commands need; it raises `Unavailable` or `BuildError`."""

    name: str
    version: str
    build: Callable[[], Path]
    client: Callable[[Path, int, str], Command]
    server: Callable[[Path, int], Command]
    env: Callable[[Path], Mapping[str, str]] = field(default=lambda folder: {})


def _pinned(file: str, pattern: str) -> str:
    """The version that a manifest pins."""
    found = re.search(pattern, (HERE / file).read_text())
    if found is None:
        raise LookupError(f"{file} does not match {pattern}")
    return found[1]


# --- Go -----------------------------------------------------------------------------------------------------------------------


def _build_go() -> Path:
    go = support.tool("go")
    sources = HERE / "go"

    def make(folder: Path) -> None:
        programs = ("google.golang.org/grpc/interop/client", "google.golang.org/grpc/interop/server")
        support.step([go, "build", "-mod=readonly", "-trimpath", "-o", f"{folder}/", *programs], cwd=sources)

    return support.built("grpc-go", [sources / "go.mod", sources / "go.sum"], make)


GO = Peer(
    name="go",
    version="grpc-go " + _pinned("go/go.mod", r"google.golang.org/grpc v(\S+)"),
    build=_build_go,
    client=lambda folder, port, case: [
        folder / "client",
        f"--server_host={support.LOOPBACK}",
        f"--server_port={port}",
        f"--test_case={case}",
    ],
    server=lambda folder, port: [folder / "server", f"--port={port}"],
)


# --- Java ---------------------------------------------------------------------------------------------------------------------


def _build_java() -> Path:
    support.tool("java")
    maven = support.tool("mvn")
    pom = HERE / "java" / "pom.xml"

    def make(folder: Path) -> None:
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        support.step([maven, "--quiet", "--batch-mode", "--file", pom, *copy])

    return support.built("grpc-java", [pom], make)


# The full cases first probe whether the server refuses a request that is not compressed though it says so; none does.
NO_PROBE = {case: f"{case}_noprobe" for case in ("client_compressed_unary", "client_compressed_streaming")}


def _java(folder: Path, main: str, *options: str) -> Command:
    # A client lives for a second: no optimising compiler, no collector threads.
    machine = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{folder}/*"]
    return [*machine, f"io.grpc.testing.integration.{main}", "--use_tls=false", *options]


JAVA = Peer(
    name="java",
    version="grpc-java " + _pinned("java/pom.xml", r"<grpc.version>(.+)</"),
    build=_build_java,
    client=lambda folder, port, case: _java(
        folder,
        "TestServiceClient",
        f"--server_host={support.LOOPBACK}",
        f"--server_port={port}",
        f"--test_case={NO_PROBE.get(case, case)}",
    ),
    server=lambda folder, port: _java(folder, "TestServiceServer", f"--port={port}", "--address_type=IPV4"),
)


# --- Python -------------------------------------------------------------------------------------------------------------------


def _build_python() -> Path:
    requirements = HERE / "python" / "requirements.txt"

    def make(folder: Path) -> None:
        python = folder / "bin" / "python"
        support.step([sys.executable, "-m", "venv", folder])
        support.step([python, "-m", "pip", "install", "--quiet", "--requirement", requirements])
        stubs = folder / "stubs"
        stubs.mkdir()
        outputs = [f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
        support.step([python, "-m", "grpc_tools.protoc", f"--proto_path={HERE / 'proto'}", *outputs, *PROTOS])

    return support.built("grpc-python", [requirements, *PROTOS], make, made_by=sys.version)


PYTHON = Peer(
    name="python",
    version="grpcio " + _pinned("python/requirements.txt", r"grpcio==(\S+)"),
    build=_build_python,
    client=lambda folder, port, case: [
        folder / "bin" / "python",
        HERE / "python" / "client.py",
        f"--server_host={support.LOOPBACK}",
        f"--server_port={port}",
        f"--test_case={case}",
    ],
    server=lambda folder, port: [folder / "bin" / "python", HERE / "python" / "server.py", f"--port={port}"],
    env=lambda folder: {"PYTHONPATH": str(folder / "stubs")},
)


# --- Node ---------------------------------------------------------------------------------------------------------------------


def _build_node() -> Path:
    support.tool("node")
    npm = support.tool("npm")
    manifests = [HERE / "node" / "package.json", HERE / "node" / "package-lock.json"]

    def make(folder: Path) -> None:
        for manifest in manifests:
            shutil.copy(manifest, folder)
        support.step([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)

    return support.built("grpc-node", manifests, make)


NODE = Peer(
    name="node",
    version="grpc-js " + _pinned("node/package.json", r'"@grpc/grpc-js": "(.+?)"'),
    build=_build_node,
    client=lambda folder, port, case: ["node", HERE / "node" / "client.js", support.LOOPBACK, str(port), case],
    server=lambda folder, port: ["node", HERE / "node" / "server.js", str(port)],
    env=lambda folder: {"NODE_PATH": str(folder / "node_modules")},
)


PEERS = {peer.name: peer for peer in (GO, JAVA, PYTHON, NODE)}
