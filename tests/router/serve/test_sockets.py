"""Listening sockets: which are needed, which are kept, which come from outside."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from router.config.load import load_text
from router.config.plugins import Registry
from router.serve.sockets import activated, close_others, keys, open_missing


def config(*ports: int) -> Any:
    servers = ", ".join(f"{{port: {port}}}" for port in ports)
    loaded = load_text(f"routers: [{{protocol: http, servers: [{servers}]}}]", "test", Registry())
    assert loaded.config is not None, loaded.render()
    return loaded.config


def test_port_0_may_occur_several_times() -> None:
    assert keys(config(0, 0)) == [("127.0.0.1", 0, 0), ("127.0.0.1", 0, 1)]


def test_what_is_known_is_kept_and_what_is_not_needed_closed() -> None:
    first = open_missing(config(0, 0), {})
    second = open_missing(config(0), first)
    kept = ("127.0.0.1", 0, 0)
    assert second == {kept: first[kept]}
    close_others(first, second)
    assert [sock.fileno() >= 0 for sock in first.values()] == [True, False]
    close_others(second, {})


def test_a_port_that_is_taken_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = open_missing(config(0), {})
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken.getsockname()[1]}"):
            open_missing(config(0, taken.getsockname()[1]), known)
    (sock,) = known.values()
    assert sock.fileno() >= 0  # it was known, hence is not theirs to close
    sock.close()


def test_systemd_hands_over_sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "web", "HOME": "/"}
        ((key, sock),) = activated(environ, os.dup(server.fileno())).items()
        assert key == (*server.getsockname(), 0)
        assert environ == {"HOME": "/"}
        sock.close()


def test_what_is_no_tcp_socket_is_not_listened_on(caplog: Any) -> None:
    one, other = socket.socketpair()
    with one, other:
        environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        assert activated(environ, os.dup(one.fileno())) == {}
    assert "listener_ignored" in caplog.text


OURS = str(os.getpid())


@pytest.mark.parametrize("count_and_pid", [(), ("1",), ("1", "1"), ("x", OURS)])
def test_variables_for_somebody_else_are_not_for_us(count_and_pid: tuple[str, ...]) -> None:
    assert activated(dict(zip(("LISTEN_FDS", "LISTEN_PID"), count_and_pid, strict=False))) == {}
