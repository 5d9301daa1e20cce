"""The listening sockets: opened once, by the supervisor, or handed to it by systemd; every worker inherits them.

A socket lives as long as some configuration in use has a server at its address, so that connections wait in its queue
while workers are replaced, and none is refused.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Mapping, MutableMapping

from protocols.wire.listener import listen
from router.config.schema import Config
from router.model.events import log_event

FIRST_FD = 3  # of systemd's protocol (sd_listen_fds(3))
Key = tuple[str, int, int]
"""IP address, port as configured, and, since port 0 may occur several times, a number."""


def keys(config: Config) -> list[Key]:
    """The sockets that a configuration needs, in the order of its servers."""
    seen: Counter[tuple[str, int]] = Counter()
    found = []
    for router in config.routers:
        for server in router.servers:
            address = (server.base.ip, server.port)
            found.append((*address, seen[address]))
            seen[address] += 1
    return found


def open_missing(config: Config, known: Mapping[Key, socket.socket]) -> dict[Key, socket.socket]:
    """Every socket that ``config`` needs, those that are known as they are. Raises OSError, and leaves nothing open then."""
    needed: dict[Key, socket.socket] = {}
    try:
        for key in keys(config):
            needed[key] = known.get(key) or listen(key[0], key[1])
    except OSError:
        close_others(needed, known)
        raise
    return needed


def close_others(sockets: Mapping[Key, socket.socket], kept: Mapping[Key, socket.socket]) -> None:
    """Close those of ``sockets`` that are not ``kept``."""
    for key, sock in sockets.items():
        if kept.get(key) is not sock:
            sock.close()


def activated(environ: MutableMapping[str, str], first: int = FIRST_FD) -> dict[Key, socket.socket]:
    """The sockets of ``LISTEN_FDS``, if they are meant for this process; the variables are removed."""
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[Key, socket.socket] = {}
    for fd in range(first, first + int(count)):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            log_event(logging.WARNING, "listener_ignored", {"fd": fd, "cause": "an inherited descriptor that is no TCP socket"})
            sock.close()
            continue
        sock.setblocking(False)
        host, port = sock.getsockname()[:2]
        found[host, port, 0] = sock
    return found
