"""The server behind the supervisor's ports: HTTP/1.1, over TLS also HTTP/2; certificates follow their files.

hypercorn keeps the SSL context that it begins with. When there is another one a second server takes the socket, and the first
finishes what it has, within ``GRACE``. Bounds: 64 KiB of request head (the server's), 5 seconds for a handshake and for a
connection that does nothing.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve

from router.config.tls import ServerTls
from router.model.host import Host
from router.serve.supervisor import Supervisor
from router.tls import PERIOD, Credentials, FileFault

log = logging.getLogger("waypost.admin.server")  # what the server says of itself; that it runs is in our banner
log.setLevel(logging.WARNING)

ALPN = ("h2", "http/1.1")
GRACE = 3.0
IDLE = 5.0


class _Config(Config):
    """With a context of our own making."""

    context: ssl.SSLContext | None = None

    @property
    def ssl_enabled(self) -> bool:
        return self.context is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.context


async def serve_on(sock: socket.socket, application: Any, tls: ServerTls | None, supervisor: Supervisor) -> None:
    """Serve an ASGI application until cancelled. The socket stays the caller's."""
    if tls is None:
        await _run(sock, application, None, trio.sleep_forever)
        return
    async with trio.open_nursery() as nursery:
        host, metrics = Host(nursery), supervisor.metrics.scope("admin")
        host.events = supervisor.events
        nursery.start_soon(host.timers.run)
        credentials = Credentials(host, metrics.scope("tls"))
        try:
            context = await _context(credentials, tls, supervisor)
            while True:
                present, over = context.current, trio.Event()
                nursery.start_soon(_run, sock, application, present, over.wait)
                while context.current is present:  # noqa: ASYNC110 - whoever reloads certificates tells nobody
                    await trio.sleep(PERIOD)
                over.set()
        finally:
            credentials.close()


async def _context(credentials: Credentials, tls: ServerTls, supervisor: Supervisor) -> Any:
    """The context of the files; they were good a moment ago, and are tried until they are again."""
    told = ""
    while True:
        try:
            return credentials.server(tls, ALPN, supervisor.metrics.scope("admin"))
        except FileFault as fault:
            if str(fault) != told:
                told = str(fault)
                supervisor.events.fail("certificate_reload_failed", files=fault.file.text, why=told)
            await trio.sleep(PERIOD)


async def _run(
    sock: socket.socket, application: Any, context: ssl.SSLContext | None, until: Callable[[], Awaitable[Any]]
) -> None:
    config = _Config()
    config.context = context
    config.bind = [f"fd://{sock.dup().detach()}"]
    config.include_server_header = False
    config.keep_alive_timeout = config.ssl_handshake_timeout = IDLE
    config.graceful_timeout = GRACE
    config.errorlog = log
    await hypercorn_serve(application, config, shutdown_trigger=until)
