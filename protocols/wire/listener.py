"""Listening sockets, and connecting ones."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import trio

from protocols.wire.poller import Poller
from router.model.host import Host
from router.model.metrics import Metrics

ACCEPTS_PER_TURN = 64
BACKLOG = 1024
# Out of file descriptors: look again after this many seconds; waiting connections stay in the kernel's queue.
RETRY_ACCEPT = 0.1
QUIET = 1.0  # seconds without such trouble after which an accepted connection shows that it is over
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening, non-blocking socket. Raises OSError with the address in its text."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


class Listener:
    """Accepts connections of one socket and hands them to ``accept(sock, peer)``.

    ``batch``: how many it takes at most in one turn. Processes that share a socket take one at a time, so that none of them
    takes a burst of long-lived connections all by itself.
    """

    __slots__ = ("_accept", "_batch", "_host", "_paused_at", "_pauses", "_poller", "_since", "_sock", "closed")

    def __init__(
        self,
        host: Host,
        poller: Poller,
        sock: socket.socket,
        accept: Callable[[socket.socket, Any], None],
        metrics: Metrics,
        batch: int = ACCEPTS_PER_TURN,
    ) -> None:
        self._batch = batch
        self._poller = poller
        self._host = host
        self._sock = sock
        self._accept = accept
        self._pauses = metrics.counter("accept_pauses")
        self._since = self._paused_at = 0.0  # when the trouble began, 0 if there is none; when we paused last
        self.closed = False
        poller.register(sock.fileno(), self)

    def on_readable(self) -> None:
        """Take what waits, as much as may be taken in a turn; called by the poller."""
        for _ in range(self._batch):
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                    return
                continue  # this one was gone before we came
            if self._since:
                self._resumed()
            nodelay(sock)
            self._accept(sock, peer)

    def _exhausted(self, error: OSError) -> None:
        """Told once; as long as it lasts the queue is tried every ``RETRY_ACCEPT`` seconds."""
        host = self._host
        self._pauses.value += 1
        self._paused_at = host.timers.now()
        if not self._since:
            self._since = self._paused_at
            ip, port = self.address
            host.events.warn("listener_paused", ip=ip, port=port, cause=error.strerror)
        self._poller.interest(self._sock.fileno(), read=False, write=False)
        host.timers.after(RETRY_ACCEPT, self._again)

    def _resumed(self) -> None:
        now = self._host.timers.now()
        if now - self._paused_at >= QUIET:
            ip, port = self.address
            self._host.events.emit("listener_resumed", ip=ip, port=port, after_s=round(now - self._since, 3))
            self._since = 0.0

    def _again(self, _: Any) -> None:
        if not self.closed:
            self._poller.interest(self._sock.fileno(), read=True, write=False)

    def on_writable(self) -> None:
        """Never asked for."""

    def on_again(self) -> None:
        """Never asked for."""

    def flush(self) -> None:
        """Nothing is ever written here."""

    def abort(self) -> None:
        """Stop listening."""
        if not self.closed:
            self.closed = True
            self._poller.unregister(self._sock.fileno())
            self._sock.close()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the port that the kernel chose if 0 was asked for."""
        host, port = self._sock.getsockname()[:2]
        return host, port


async def connect(host: str, port: int) -> socket.socket:
    """Connect to an IP address. Runs in a trio task; raises OSError. The caller sets the time limit."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    nodelay(plain)
    return plain


def nodelay(sock: socket.socket) -> None:
    """Send small frames at once: each flush is a whole batch already."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
