"""What stands between client and server: the router, nothing, or nghttpx for comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from interop import _support as support


@contextmanager
def through_router(backends: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
    """One waypost with a gRPC router for each backend. Every service name leads to it: a service is the first path segment."""
    fronts = dict(zip(backends, support.free_ports(len(backends)), strict=True))
    routers = [
        {
            "protocol": "grpc",
            "label": f"to-{name}",
            "identifier": {"kind": "io.l5d.header.path", "segments": 1},
            "dtab": f"/svc => /$/inet/{support.LOOPBACK}/{port};",
            "servers": [{"ip": support.LOOPBACK, "port": fronts[name]}],
        }
        for name, port in backends.items()
    ]
    with support.router("grpc-router", routers):
        yield fronts


@contextmanager
def through_nothing(backends: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
    yield backends


@contextmanager
def through_nghttpx(backends: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
    program = support.tool("nghttpx")
    fronts = dict(zip(backends, support.free_ports(len(backends)), strict=True))
    with ExitStack() as stack:
        for name, port in backends.items():
            frontend = f"--frontend={support.LOOPBACK},{fronts[name]};no-tls"
            backend = f"--backend={support.LOOPBACK},{port};;proto=h2"
            argv = [program, "--conf=/dev/null", "--workers=1", frontend, backend]
            stack.enter_context(support.serving(f"grpc-nghttpx-{name}", argv, ports=[fronts[name]]))
        yield fronts


FRONTS: Mapping[str, Callable[[Mapping[str, int]], AbstractContextManager[Mapping[str, int]]]] = {
    "router": through_router,
    "direct": through_nothing,
    "nghttpx": through_nghttpx,
}
