"""A supervisor with real workers: what dies is replaced, what is reloaded serves, and what is wrong changes nothing."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from router.config.load import Loaded, load_text
from router.config.plugins import Registry
from router.logs.setup import LogSettings
from router.serve import gather
from router.serve import slot as slot_module
from router.serve.slot import StartError
from router.serve.supervisor import ReloadError, Supervisor
from tests.support.running import running as serving

pytestmark = pytest.mark.slow

TEXT = """
workers: 1
routers:
- protocol: http
  label: web
  dtab: /svc => /$/nil
  servers: [{port: 0}]
"""


class Rig:
    """A supervisor, and the text that it reads when it reloads."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.supervisor = Supervisor(self.load, LogSettings("json", "INFO"), {})

    def load(self) -> Loaded:
        return load_text(self.text, "test.yaml", Registry())

    @property
    def pids(self) -> list[int]:
        generation = self.supervisor.generation
        assert generation is not None
        return [slot.pid for slot in generation.slots]

    async def get(self) -> tuple[int, str]:
        """Status and body of a request to the first server."""
        generation = self.supervisor.generation
        assert generation is not None
        stream = await trio.open_tcp_stream("127.0.0.1", generation.addresses[0][2])
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
            data = b"".join([piece async for piece in stream])
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not condition():
                await trio.sleep(0.01)


@asynccontextmanager
async def running(text: str) -> AsyncIterator[Rig]:
    rig = Rig(text)
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            await nursery.start(rig.supervisor.run, rig.load())
            yield rig
            await rig.supervisor.stop(1)
            nursery.cancel_scope.cancel()
    for pid in rig.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_workers_share_a_socket_and_the_dead_are_replaced() -> None:
    async with running(TEXT.replace("workers: 1", "workers: 2")) as rig:
        assert len(set(rig.pids)) == 2
        assert (await rig.get())[0] == 502
        first, second = rig.pids
        os.kill(first, signal.SIGKILL)
        assert (await rig.get())[0] == 502
        await rig.until(lambda: rig.pids[0] != first and rig.supervisor.generation.slots[0].starts == 2)  # type: ignore[union-attr]
        assert rig.pids[1] == second
        (event,) = [event for event in rig.supervisor.events.recent if event.name == "worker_exited"]
        assert event.fields == {"worker": 0, "pid": first, "cause": "SIGKILL", "again_in_s": 0.0}
        assert rig.supervisor.metrics.flat()["supervisor/worker_exits"] == 1


async def test_connections_wait_while_the_only_worker_is_replaced() -> None:
    async with running(TEXT) as rig:
        os.kill(rig.pids[0], signal.SIGKILL)
        assert (await rig.get())[0] == 502


async def test_a_worker_that_hangs_is_replaced(monkeypatch: Any) -> None:
    monkeypatch.setattr(slot_module, "BEAT", 0.1)
    monkeypatch.setattr(slot_module, "HANG", 0.2)
    async with running(TEXT) as rig:
        stopped = rig.pids[0]
        os.kill(stopped, signal.SIGSTOP)
        await rig.until(lambda: rig.supervisor.events.counts["worker_exited"] == 1)
        assert rig.supervisor.events.counts["worker_hangs"] == 1
        monkeypatch.setattr(slot_module, "HANG", 10.0)
        assert (await rig.get())[0] == 502
        assert rig.pids[0] != stopped


LOOPS = """
import signal
signal.signal(signal.SIGUSR2, lambda *_: [None for _ in iter(int, 1)])
"""
STARVED = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


@pytest.fixture
def impatient(monkeypatch: Any) -> None:
    monkeypatch.setattr(slot_module, "BEAT", 0.1)
    monkeypatch.setattr(slot_module, "HANG", 0.5)


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_loops_is_replaced(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "sitecustomize.py").write_text(LOOPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with running(TEXT) as rig:
        (looping,) = rig.pids
        os.kill(looping, signal.SIGUSR2)
        await rig.until(lambda: rig.supervisor.events.counts["worker_exited"] == 1)
        told = {event.name: event.fields for event in rig.supervisor.events.recent}
        assert told["worker_exited"]["cause"] == "SIGABRT"
        assert told["worker_hangs"]["ran_s"] >= 0.3
        await rig.until(lambda: rig.pids[0] != looping and rig.supervisor.ready)
        assert (await rig.get())[0] == 502


@pytest.mark.usefixtures("impatient")
@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="the scheduler has no idle class")
async def test_a_worker_that_is_starved_is_not() -> None:
    async with running(TEXT) as rig:
        (starved,) = rig.pids
        cpu = min(os.sched_getaffinity(0))
        hogs = [await trio.lowlevel.open_process([sys.executable, "-c", STARVED, str(cpu)]) for _ in "ab"]
        try:
            for thread in os.listdir(f"/proc/{starved}/task"):
                os.sched_setaffinity(int(thread), {cpu})
                os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
            with trio.move_on_after(3):
                await rig.until(lambda: rig.supervisor.events.counts["worker_starved"] >= 1)
        finally:
            for hog in hogs:
                hog.kill()
                await hog.wait()
        assert (await rig.get())[0] == 502
        assert rig.pids == [starved]
        assert not rig.supervisor.events.counts["worker_hangs"]


async def test_a_process_that_cannot_be_started_is_tried_again(monkeypatch: Any) -> None:
    pipe, failures = os.pipe, 2

    def fails() -> tuple[int, int]:
        nonlocal failures
        failures -= 1
        if failures < 0:
            return pipe()
        raise OSError(errno.EMFILE, "Too many open files")

    async with running(TEXT) as rig:
        before = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr(slot_module.os, "pipe", fails)
        os.kill(rig.pids[0], signal.SIGKILL)
        assert (await rig.get())[0] == 502
        told = [event.fields["cause"] for event in rig.supervisor.events.recent if event.name == "worker_not_started"]
        assert told == ["no process can be started: Too many open files"] * 2
        assert len(os.listdir("/proc/self/fd")) == before


async def test_no_counter_falls_while_a_worker_is_late(monkeypatch: Any) -> None:
    monkeypatch.setattr(gather, "TIMEOUT", 0.1)
    monkeypatch.setattr(gather, "FRESH", 0.0)

    async def requests(rig: Rig) -> int:
        found, _ = await rig.supervisor.gatherer.snapshot()
        return found.counters.get("rt\0web\0service\0svc/web\0requests", 0)

    async with running(TEXT.replace("workers: 1", "workers: 2")) as rig:
        for count, stopped in enumerate(rig.pids, 1):
            os.kill(stopped, signal.SIGSTOP)
            assert (await rig.get())[0] == 502  # of the other one
            assert await requests(rig) == count
            os.kill(stopped, signal.SIGCONT)


async def test_new_dtabs_need_no_new_workers() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    async with running(TEXT) as rig, listener:
        before = rig.pids
        assert (await rig.get())[1].startswith("Unable to route request!")
        rig.text = TEXT.replace("/svc => /$/nil", f"|\n    /nothing => ~ ;\n    /svc => /$/inet/127.0.0.1/{port} ;")
        assert await rig.supervisor.reload() == "new dtabs"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve_once, listener)
            assert await rig.get() == (200, "ok")
        assert rig.pids == before
        os.kill(before[0], signal.SIGKILL)  # whoever comes after it knows the new dtab
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve_once, listener)
            assert await rig.get() == (200, "ok")


async def _serve_once(listener: trio.SocketListener) -> None:
    async with await listener.accept() as stream:
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def test_what_else_has_changed_needs_new_workers_on_the_same_socket() -> None:
    async with running(TEXT) as rig:
        generation = rig.supervisor.generation
        assert generation is not None
        before, addresses = rig.pids, generation.addresses
        assert await rig.supervisor.reload() == "nothing: it is the same"
        rig.text = TEXT.replace("{port: 0}", "{port: 0, maxCallDepth: 7}")
        assert await rig.supervisor.reload() == "1 new worker"
        assert rig.supervisor.generation is not generation
        assert rig.supervisor.generation.addresses == addresses
        assert (await rig.get())[0] == 502
        await rig.until(lambda: not rig.supervisor.draining)
        assert not set(before) & set(rig.pids)
        assert rig.supervisor.metrics.flat()["supervisor/reloads"] == 2


async def test_what_is_wrong_changes_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with running(TEXT) as rig:
            before = rig.pids
            rig.text = TEXT.replace("label", "lable")
            with pytest.raises(ReloadError, match=r"test\.yaml:5:3: error: unknown key 'lable'"):
                await rig.supervisor.reload()
            rig.text = TEXT.replace("{port: 0}", f"{{port: 0}}, {{port: {taken.getsockname()[1]}}}")
            with pytest.raises(ReloadError, match="Address already in use"):
                await rig.supervisor.reload()
            assert rig.pids == before
            assert (await rig.get())[0] == 502
            assert rig.supervisor.metrics.flat()["supervisor/reload_failures"] == 2


async def test_a_worker_that_cannot_start_ends_the_start(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    rig = Rig(TEXT)
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(rig.supervisor.run, rig.load())
    assert caught.group_contains(StartError, match=r"ended before it was ready \(exit code 1\)")


def test_a_second_signal_cuts_off_and_the_exit_code_says_so(tmp_path: Path) -> None:
    config = tmp_path / "test.yaml"
    with socket.create_server(("127.0.0.1", 0)) as backend:
        config.write_text(TEXT.replace("/$/nil", f"/$/inet/127.0.0.1/{backend.getsockname()[1]}"))
        with serving(config) as router, socket.create_connection(("127.0.0.1", router.ports[0]), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            backend.settimeout(5)
            with backend.accept()[0]:  # and is never answered
                router.process.send_signal(signal.SIGTERM)
                router.until("draining")
                assert router.stop() == 3


AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
"""


def test_systemd_may_open_the_sockets(tmp_path: Path) -> None:
    config = tmp_path / "test.yaml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config.write_text(TEXT.replace("port: 0", f"port: {port}"))
        wrapper = (sys.executable, "-c", AS_SYSTEMD, str(server.fileno()))
        with serving(config, wrapper=wrapper, pass_fds=[server.fileno()]) as router:
            assert router.ports == [port]  # which nobody else could open
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                client.sendall(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 502 ")
            assert router.stop() == 0


def test_the_admin_interface_of_a_running_router(tmp_path: Path) -> None:
    config = tmp_path / "test.yaml"
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin = free.getsockname()[1]
    config.write_text(f"admin: {{port: {admin}}}\n" + TEXT)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "router.cli", *arguments], capture_output=True, text=True, timeout=30)

    assert command("healthcheck", str(config)).returncode == 2
    with serving(config) as router:
        with socket.create_connection(("127.0.0.1", router.ports[0]), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 502 ")
        healthy = command("healthcheck", f"http://127.0.0.1:{admin}")
        assert (healthy.returncode, healthy.stdout) == (0, "ready\n")
        counted, late = "rt/web/service/svc/web/requests", time.monotonic() + 15
        while counted not in router.admin("/admin/metrics.json"):  # its figures may be a second old
            assert time.monotonic() < late
            time.sleep(0.1)
        assert router.admin(f"/admin/metrics.json?q={counted}") == 1
        config.write_text(config.read_text().replace("label: web", "label: wob"))
        done = command("reload", str(config))
        assert (done.returncode, done.stdout) == (0, "1 new worker\n"), done.stderr
        config.write_text(config.read_text().replace("label", "lable"))
        refused = command("reload", f"http://127.0.0.1:{admin}")
        assert refused.returncode == 1
        assert "unknown key 'lable'" in refused.stderr
        assert "unknown key 'lable'" in router.until("reload_failed")["fields"]["cause"]
        seen = router.admin("/admin/metrics.json?q=supervisor")
        assert (seen["reloads"], seen["reload_failures"]) == (1, 1)
        stop = urllib.request.Request(f"http://127.0.0.1:{admin}/admin/shutdown", method="POST")
        assert urllib.request.urlopen(stop).read() == b"draining\n"
        assert router.process.wait(timeout=10) == 0


def test_an_admin_port_that_is_taken(tmp_path: Path) -> None:
    config = tmp_path / "test.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config.write_text(f"admin: {{port: {taken.getsockname()[1]}}}\n" + TEXT)
        with serving(config) as router:
            assert "cannot listen on 127.0.0.1" in router.until("start_failed")["fields"]["cause"]
            assert router.process.wait(timeout=10) == 1
