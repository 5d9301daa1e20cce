"""What the operator is told of a configuration: what is wrong with it, where it listens, and how to try it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from router import __version__
from router.config.load import Loaded
from router.config.schema import Router
from router.model.events import Events

if TYPE_CHECKING:
    from router.serve.supervisor import Generation


def problems(events: Events, loaded: Loaded) -> None:
    """Each by its place: ``config_warning``, or, what keeps the file from being used, ``config_refused``."""
    for problem in loaded.problems:
        fields: dict[str, Any] = {
            "file": loaded.name,
            "line": problem.line,
            "column": problem.column,
            "key": problem.where,
            "cause": problem.message,
        }
        tell, name = (events.fail, "config_refused") if problem.fatal else (events.warn, "config_warning")
        tell(name, shown=problem.render(loaded.name, loaded.source), **fields)


def listeners(events: Events, old: Generation | None, new: Generation) -> None:
    """``listener_closed`` and ``listener_open`` for what ``new`` has not, and what it has more."""
    before = [] if old is None else list(_servers(old))
    after = list(_servers(new))
    for server in before:
        if not any(_place(server) == _place(other) for other in after):
            events.emit("listener_closed", **server)
    for server in after:
        if not any(_place(server) == _place(other) for other in before):
            events.emit("listener_open", **server)


def ready(events: Events, generation: Generation, admin: tuple[str, int] | None) -> None:
    """All workers serve."""
    shown = banner(generation, admin)
    address = None if admin is None else f"{admin[0]}:{admin[1]}"
    events.emit(
        "ready", shown=shown, version=__version__, file=generation.loaded.name, listeners=list(_servers(generation)),
        workers=[slot.pid for slot in generation.slots], admin=address,
    )  # fmt: skip


def _place(server: dict[str, Any]) -> tuple[str, int]:
    return server["ip"], server["port"]


def _servers(generation: Generation) -> Iterator[dict[str, Any]]:
    for router, host, port, secure in _addressed(generation):
        yield {"router": router.label, "protocol": router.base.protocol, "ip": host, "port": port, "tls": secure}


def _addressed(generation: Generation) -> Iterator[tuple[Router, str, int, bool]]:
    servers = [(router, server.base.tls is not None) for router in generation.config.routers for server in router.servers]
    for (_, host, port), (router, secure) in zip(generation.addresses, servers, strict=True):
        yield router, host, port, secure


def banner(generation: Generation, admin: tuple[str, int] | None) -> str:
    """For a terminal: every listener, with a call to try."""
    lines = [f"waypost {__version__}: {generation.loaded.name}"]
    for router, host, port, secure in _addressed(generation):
        tls = ", TLS" if secure else ""
        lines.append(
            f"  {router.base.protocol:5} {host}:{port}  router {router.label!r}, {len(router.base.dtab)} dentries{tls}"
        )
        lines.append(f"        try: {_first_call(router, host, port, secure)}")
    if admin is not None:
        lines.append(f"  admin {admin[0]}:{admin[1]}{', TLS' if generation.config.admin.tls is not None else ''}")
    return "\n".join(lines)


def _first_call(router: Router, host: str, port: int, secure: bool) -> str:
    if router.base.protocol == "grpc":
        return f"any gRPC client ({'TLS' if secure else 'plaintext'}) at {host}:{port}"
    version = " --http2-prior-knowledge" if router.base.protocol == "h2" and not secure else ""
    return f"curl{' -k' if secure else ''}{version} -v -H 'Host: web' http{'s' if secure else ''}://{host}:{port}/"
