"""Starts two versions of a gRPC greeter, a web service and the router with greeter.yaml; then moves traffic between them.

    python docs/examples/demo.py

Everything listens on 127.0.0.1, on ports that are free, and is stopped at the end. Needs waypost and grpcio.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc

HERE = Path(__file__).resolve().parent
METHOD = "/demo.Greeter/Hello"
ROUTE = ("l5d-dst-service", "l5d-dst-client")


def same(data: bytes) -> bytes:
    """Messages are plain text; gRPC only needs to know that they are bytes already."""
    return data


def say(text: str) -> None:
    print(text, flush=True)


# -- the services, each a process of its own ------------------------------------------------------------------


def serve_greeter(version: str, port: int) -> None:
    """A gRPC server whose answer names its version and the way that the call took."""

    def hello(request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        way = " -> ".join(str(metadata.get(name, "?")) for name in ROUTE)
        return f"hello {request.decode()} from {version}  [{way}]".encode()

    handler = grpc.unary_unary_rpc_method_handler(hello, request_deserializer=same, response_serializer=same)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("demo.Greeter", {"Hello": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


class Web(BaseHTTPRequestHandler):
    """A web service whose answer tells the way that the request took."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        way = " -> ".join(self.headers.get(name, "?") for name in ROUTE)
        body = f"hello from the web service  [{way}]".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def serve_web(port: int) -> None:
    ThreadingHTTPServer(("127.0.0.1", port), Web).serve_forever()


# -- the demonstration ----------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"a process ended early with code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"nothing listens on port {port}")


def prepare(folder: Path, v1: int, v2: int, web: int, grpc_port: int, http_port: int) -> Path:
    """A copy of the example with the ports of this run."""
    disco = folder / "disco"
    disco.mkdir()
    for name, port in (("greeter-v1", v1), ("greeter-v2", v2), ("web", web)):
        (disco / name).write_text(f"127.0.0.1 {port}\n")
    text = (HERE / "greeter.yaml").read_text()
    text = text.replace("docs/examples/disco", str(disco)).replace("4142", str(grpc_port)).replace("4140", str(http_port))
    config = folder / "greeter.yaml"
    config.write_text(text)
    return config


def tell(calls: int, call: Callable[[int], str]) -> None:
    """Make some calls; print each, and how many went where."""
    went: Counter[str] = Counter()
    for at in range(calls):
        answer = call(at)
        say(f"   {answer}")
        version = re.search(r"from (v\d|the web)", answer)
        went[version[1] if version else "?"] += 1
    say("   " + ", ".join(f"{count} of {calls} by {version}" for version, count in sorted(went.items())))


def demonstrate(folder: Path, grpc_port: int, http_port: int, v2: int) -> None:
    channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}")
    hello = channel.unary_unary(METHOD, request_serializer=same, response_deserializer=same)

    def call(at: int, *, dtab: str | None = None) -> str:
        metadata = () if dtab is None else (("l5d-dtab", dtab),)
        answer: bytes = hello(f"#{at}".encode(), metadata=metadata, timeout=5)
        return answer.decode()

    say("\n1. The dtab of greeter.yaml: 9 * /v1 & 1 * /v2")
    tell(20, call)
    say("\n2. Half of the traffic moved, by the callers' own dtab: /svc/demo.Greeter => 1 * /v1 & 1 * /v2")
    tell(20, lambda at: call(at, dtab="/svc/demo.Greeter => 1 * /v1 & 1 * /v2"))
    say("\n3. One call overridden with l5d-dtab: /svc/demo.Greeter => /v2")
    tell(1, lambda at: call(at, dtab="/svc/demo.Greeter => /v2"))
    say("\n4. The file of greeter-v1 edited while calls run: it names the endpoint of v2 from call 10 on")

    def edit(at: int) -> str:
        if at == 10:
            (folder / "disco" / "greeter-v1").write_text(f"127.0.0.1 {v2}\n")
            time.sleep(0.15)
        return call(at)

    tell(20, edit)
    say("\n5. An HTTP/1.1 request to the host 'web'")
    connection = http.client.HTTPConnection("127.0.0.1", http_port, timeout=5)

    def get(at: int) -> str:
        connection.request("GET", "/", headers={"Host": "web"})
        return connection.getresponse().read().decode()

    tell(3, get)
    connection.close()
    say("\n6. A name that is bound to nothing")
    missing = channel.unary_unary("/demo.Missing/Hello", request_serializer=same, response_deserializer=same)
    try:
        missing(b"", timeout=5)
    except grpc.RpcError as error:
        say(f"   {error.code().name}: {error.details().splitlines()[0]}")
    channel.close()


def main() -> None:
    v1, v2, web, grpc_port, http_port = free_ports(5)
    me = [sys.executable, str(Path(__file__).resolve())]
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = prepare(folder, v1, v2, web, grpc_port, http_port)
        commands = [
            ([*me, "greeter", "v1", str(v1)], v1),
            ([*me, "greeter", "v2", str(v2)], v2),
            ([*me, "web", str(web)], web),
            ([sys.executable, "-m", "router.cli", "run", str(config), "--log-level", "warning"], grpc_port),
        ]
        try:
            for command, _ in commands:
                processes.append(subprocess.Popen(command, env={**os.environ, "GRPC_VERBOSITY": "ERROR"}))
            for process, (_, port) in zip(processes, commands, strict=True):
                wait_for(port, process)
            demonstrate(folder, grpc_port, http_port, v2)
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait(10)
    say("\nThat was docs/examples/greeter.yaml. Explain a name: waypost explain docs/examples/greeter.yaml /svc/demo.Greeter")


if __name__ == "__main__":
    if sys.argv[1:2] == ["greeter"]:
        serve_greeter(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["web"]:
        serve_web(int(sys.argv[2]))
    else:
        main()
