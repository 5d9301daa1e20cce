"""The supervisor's ports with real servers on them: TLS whose certificate changes, and requests that are told their names."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from router import tls as tls_module
from router.admin import app, identifier, server
from router.config.load import load_text
from router.config.plugins import Registry
from router.config.schema import Admin
from router.config.tls import FileName, ServerTls
from router.logs.setup import LogSettings
from router.serve import remote
from router.serve.door import AdminDoor, Doors, identifier_place
from router.serve.supervisor import ReloadError, Supervisor
from router.tls import problems
from tests.router.admin.test_admin import TEXT, Rig, admin
from tests.support.certs import Pki

pytestmark = pytest.mark.slow


def tls_of(pki: Pki, **more: Any) -> ServerTls:
    cert, key = pki.issue("localhost")
    return ServerTls(FileName(str(cert)), FileName(str(key)), **more)


@asynccontextmanager
async def serving(rig: Rig, tls: ServerTls | None, serve: Any = app.serve) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, rig.supervisor, sock, tls)
            yield sock.getsockname()[1]
            nursery.cancel_scope.cancel()


async def in_thread(what: Callable[..., Any], *args: Any) -> Any:
    with trio.fail_after(10):
        return await trio.to_thread.run_sync(partial(what, *args))


def certificate(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port))


async def test_the_commands_believe_the_certificate_of_their_file_and_no_other(tmp_path: Path) -> None:
    tls = tls_of(Pki(tmp_path))
    other = attrs.evolve(tls, cert_path=FileName(str(Pki(tmp_path, "other").issue("localhost", file="other")[0])))
    async with admin() as rig, serving(rig, tls) as port:
        asked = remote.remote_of(Admin(port=port, tls=tls))
        assert asked.url == f"https://127.0.0.1:{port}"
        assert await in_thread(remote.is_ready, asked) == (True, "ready")
        assert await in_thread(remote.reload, asked) == (True, "nothing: it is the same")
        for trust in (other, None):
            with pytest.raises(remote.UnreachableError, match="certificate verify failed"):
                await in_thread(remote.is_ready, remote.Remote(asked.url, trust))
        with pytest.raises(remote.UnreachableError):
            await in_thread(remote.is_ready, remote.Remote(f"http://127.0.0.1:{port}"))


async def test_a_certificate_that_changes_is_shown_and_a_bad_one_is_not(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tls_module, "PERIOD", 0.02)
    monkeypatch.setattr(server, "PERIOD", 0.02)
    pki = Pki(tmp_path)
    tls = tls_of(pki)
    async with admin() as rig, serving(rig, tls) as port:
        first = await in_thread(certificate, port)
        tls_of(pki)
        with trio.fail_after(5):
            while (second := await in_thread(certificate, port)) == first:
                await trio.sleep(0.02)
        Path(tls.cert_path.text).write_text("nonsense")
        with trio.fail_after(5):
            while not rig.supervisor.events.counts["certificate_reload_failed"]:
                await trio.sleep(0.02)
        assert await in_thread(certificate, port) == second
        metrics = (await rig.ask("/admin/metrics.json?q=admin/tls")).json
        assert (metrics["reloads"], metrics["reload_failures"]) == (1, 1)
        assert metrics["expires_at"] > 1.7e9


async def test_clients_without_a_certificate_are_refused_where_one_is_asked_for(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    tls = tls_of(pki, ca_cert_path=FileName(str(pki.ca)), require_client_auth=True)
    pair = pki.issue("operator", file="operator")

    def ping(context: ssl.SSLContext) -> bytes:
        with closing(http.client.HTTPSConnection("localhost", port, timeout=5, context=context)) as connection:
            connection.request("GET", "/admin/ping")
            return connection.getresponse().read()

    async with admin() as rig, serving(rig, tls) as port:
        assert await in_thread(ping, pki.client(pair=pair)) == b"pong"
        with pytest.raises(OSError):
            await in_thread(ping, pki.client())


def test_files_that_cannot_be_used_are_told_at_their_line() -> None:
    text = TEXT.replace("admin: {port: 0}", "admin: {port: 0, tls: {certPath: /nowhere.crt, keyPath: /nowhere.key}}")
    loaded = load_text(text, "test.yaml", Registry())
    assert loaded.config is not None
    assert [(problem.line, problem.message.split(":")[0]) for problem in problems(loaded.config)] == [(2, "/nowhere.crt")]


# -- httpIdentifierPort -----------------------------------------------------------------------------------------

ROUTERS = """
admin: {port: 0}
routers:
- protocol: http
  label: web
  dtab: /svc => /#/x
  identifier: {kind: io.l5d.methodAndHost}
  servers: [{port: 0}]
- protocol: http
  label: other
  identifier: {kind: io.l5d.header, header: x-name}
  servers: [{port: 0}]
- protocol: grpc
  servers: [{port: 0}]
"""


def named(port: int, method: str, path: str, fields: dict[str, str]) -> Any:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request(method, path, headers=fields)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("content-type")) == (200, "application/json")
        return json.loads(answer.read())


async def test_requests_are_told_how_each_http_router_would_name_them() -> None:
    async with admin(ROUTERS) as rig, serving(rig, None, identifier.serve) as port:
        fields = {"host": "users", "x-name": "/tenant/a", "l5d-dtab": "/svc => /#/y"}
        assert await in_thread(named, port, "POST", "/any?thing=1", fields) == {
            "web": {"path": "/svc/1.1/POST/users", "dtab": "/svc=>/#/x;/svc=>/#/y"},
            "other": {"path": "/svc/tenant/a", "dtab": "/svc=>/#/y"},
        }
        told = await in_thread(named, port, "GET", "/", {"host": "users"})
        assert told["other"] == {"error": "x-name header is missing"}
        told = await in_thread(named, port, "GET", "/", {"host": "users", "l5d-dtab": "/svc =>"})
        assert "expected" in told["web"]["error"]
        assert all(value == 0 for name, value in rig.worker.metrics.flat().items() if name.endswith("/requests"))


async def test_doors_move_together_or_not_at_all() -> None:
    served: list[tuple[str, int]] = []

    async def serve(supervisor: Any, sock: socket.socket, tls: Any) -> None:
        served.append(sock.getsockname())
        await trio.sleep_forever()

    with socket.create_server(("127.0.0.2", 0)) as taken:
        supervisor: Any = None
        door, second = AdminDoor(serve, supervisor), AdminDoor(serve, supervisor, identifier_place)
        doors = Doors(door, second)
        doors.use(doors.prepare(Admin(port=0)))
        first = door.address
        assert first is not None
        assert second.address is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(doors.run)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(OSError, match="cannot listen"):
                doors.prepare(
                    Admin(
                        ip="127.0.0.2",
                        port=0,
                        http_identifier_port=taken.getsockname()[1],
                    )
                )
            assert (door.address, served) == (first, [first])
            doors.use(doors.prepare(Admin(port=0, http_identifier_port=0)))
            await trio.testing.wait_all_tasks_blocked()
            assert second.address is not None
            assert served == [first, second.address]
            doors.use(doors.prepare(Admin(port=0)))
            assert (door.address, second.address) == (first, None)
            nursery.cancel_scope.cancel()
        doors.close()
        assert door.address is None


async def test_a_reload_whose_port_is_taken_starts_nothing() -> None:
    async def serve(supervisor: Any, sock: socket.socket, tls: Any) -> None:
        await trio.sleep_forever()

    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split())

    text = "admin: {port: 0}\nrouters:\n- protocol: http\n  dtab: /svc => /$/nil\n  servers: [{port: 0}]\n"
    with socket.create_server(("127.0.0.1", 0)) as taken, trio.fail_after(30):
        files = [text, text.replace("port: 0}\nrouters", f"port: {taken.getsockname()[1]}}}\nrouters")]
        supervisor = Supervisor(lambda: load_text(files[-1], "test.yaml", Registry()), LogSettings("json", "INFO"), {}, serve)
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run, load_text(files[0], "test.yaml", Registry()))
            before, address = children(), supervisor.admin.address
            with pytest.raises(ReloadError, match="cannot listen on 127.0.0.1"):
                await supervisor.reload()
            assert (children(), supervisor.admin.address) == (before, address)
            await supervisor.stop(1)
            nursery.cancel_scope.cancel()
