"""What an operator reads of a running router, when things go wrong: every line is an object, and says what happened."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.running import Router, running

pytestmark = pytest.mark.slow

TEXT = """
admin: {ip: 127.0.0.1, port: ADMIN}
routers:
- protocol: http
  label: web
  originator: true
  dtab: /svc => /$/inet/127.0.0.1/1
  servers: [{port: 0}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a router whose only endpoint does not exist."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        text = TEXT.replace("ADMIN", str(free.getsockname()[1]))
    path = tmp_path / "test.yaml"
    path.write_text(text)
    return path


def call(router: Router) -> bytes:
    with socket.create_connection(("127.0.0.1", router.ports[0]), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
        return client.makefile("rb").readline()


def killed(router: Router, pid: int, number: int) -> None:
    """And replaced."""
    os.kill(pid, number)
    assert router.until("worker_exited")["fields"]["cause"] == signal.Signals(number).name
    router.until("worker_started")


def test_every_line_is_an_object_whatever_happens(config: Path) -> None:
    with running(config) as router:
        router.until("config_warning", lambda line: line["fields"]["key"] == "routers.0.originator")
        level = b"logger=waypost.endpoint&level="
        assert {"logger": "waypost.endpoint", "level": "ERROR"} in router.admin("/logging.json", level + b"ERROR")
        assert b" 502 " in call(router)
        killed(router, router.workers[0], signal.SIGSEGV)
        assert b" 502 " in call(router)
        dump = next(line["fields"]["text"] for line in router.lines if line["event"] == "worker_stderr")
        assert "Fatal Python error: Segmentation fault" in dump
        assert "router/serve/worker.py" in dump
        good = config.read_text()
        config.write_text(good.replace("label", "lable"))
        router.process.send_signal(signal.SIGHUP)
        assert "unknown key 'lable'" in router.until("reload_failed")["fields"]["cause"]
        assert not any(line["event"] == "endpoint_unreachable" for line in router.lines)  # of neither worker
        assert {"logger": "waypost.endpoint", "level": "INFO"} in router.admin("/logging.json", level + b"INFO")
        config.write_text(good.replace("servers: [{port: 0}]", "servers: [{port: 0}, {port: 0, ip: 127.0.0.2}]"))
        router.process.send_signal(signal.SIGHUP)
        assert router.until("listener_open")["fields"]["ip"] == "127.0.0.2"
        assert router.until("reloaded")["fields"]["by"] == "1 new worker"
        router.until("worker_stopped")
        assert b" 502 " in call(router)
        line = router.until("endpoint_unreachable")
        assert (line["process"], line["worker"], line["fields"]["endpoint"]) == ("worker", 0, "127.0.0.1:1")
        assert router.stop() == 0
        if (jq := shutil.which("jq")) is not None:
            import json

            text = "\n".join([json.dumps(line) for line in router.lines])
            subprocess.run([jq, "-e", "[.time, .level, .event] | all"], input=text, text=True, check=True, capture_output=True)


def test_a_level_from_the_command_line_holds_in_workers(config: Path) -> None:
    with running(config, "--log-level", "error") as router:
        router.process.send_signal(signal.SIGTERM)  # before it is ready even
        list(router.read())
        assert router.lines == []


def test_a_reader_that_does_not_read_keeps_nobody_waiting(config: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = 0
    while filled < 65536:
        filled += os.write(writing, b" " * 4096)
    os.set_blocking(writing, True)
    command = [sys.executable, "-m", "router.cli", "run", str(config)]
    with subprocess.Popen(command, stderr=writing) as process:
        try:
            admin = int(config.read_text().partition("port: ")[2].partition("}")[0])
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                try:
                    with socket.create_connection(("127.0.0.1", admin), timeout=0.1) as client:
                        client.sendall(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                        client.settimeout(5)
                        if b" 200 " in client.makefile("rb").readline():
                            break
                except OSError:
                    time.sleep(0.02)
            else:
                pytest.fail("it waits for its log")
            process.terminate()
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
            os.close(reading)
            os.close(writing)


def test_a_changed_file_is_used_and_a_broken_one_told_of(config: Path) -> None:
    good = config.read_text()
    with running(config, "--watch") as router:
        assert router.ready
        config.write_text(good.replace("label", "lable"))
        assert "unknown key 'lable'" in router.until("reload_failed")["fields"]["cause"]
        assert router.admin("/admin/metrics.json?q=supervisor/last_reload_failed") == 1
        assert b" 502 " in call(router)
        mended = config.with_name("mended")
        mended.write_text(good.replace("/1\n", "/2\n"))
        mended.rename(config)
        assert router.until("reloaded")["fields"]["by"] == "new dtabs"
        assert router.admin("/admin/metrics.json?q=supervisor/last_reload_failed") == 0


def serve(backend: socket.socket) -> None:
    """Answer every request, each on a connection of its own, until the socket is closed."""
    while True:
        try:
            with backend.accept()[0] as client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        except OSError:
            return


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of other processes are Linux's")
def test_without_descriptors_it_waits_says_so_and_goes_on(config: Path) -> None:
    backend = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(backend,))
    thread.start()
    config.write_text(config.read_text().replace("127.0.0.1/1\n", f"127.0.0.1/{backend.getsockname()[1]}\n"))
    try:
        with running(config) as router, ExitStack() as clients:
            assert b" 200 " in call(router)
            (worker,) = router.workers
            limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
            used = max(int(fd) for fd in os.listdir(f"/proc/{worker}/fd")) + 1
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 1, limits[1]))

            def connect() -> socket.socket:
                client = clients.enter_context(socket.create_connection(("127.0.0.1", router.ports[0]), timeout=10))
                client.sendall(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
                return client

            first, *others = [connect() for _ in range(5)]
            paused = router.until("listener_paused")
            assert paused["fields"]["cause"] == "Too many open files"
            impossible = router.until("connecting_impossible")
            assert impossible["fields"]["cause"] == "Too many open files"
            assert b" 502 " in first.makefile("rb").readline()
            pauses, deadline = f"rt/web/server/127.0.0.1/{router.ports[0]}/accept_pauses", time.monotonic() + 10
            while (seen := router.admin("/admin/metrics.json"))[pauses] < 1:  # they are asked for once a second
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert seen["process/open_fds"] >= used
            resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
            answers = [waited.makefile("rb").readline() for waited in others]  # some had a descriptor, and its endpoint none
            assert b" 200 " in answers[-1]
            assert b" 200 " in call(router)
            assert router.stop() == 0
            assert [line["event"] for line in router.lines].count("listener_paused") == 1
            assert not {"endpoint_ejected", "exchange_crashed", "worker_exited"} & {line["event"] for line in router.lines}
    finally:
        backend.shutdown(socket.SHUT_RDWR)
        backend.close()
        thread.join()
