"""What the admin interface tells of names: those that are bound, and what namers watch, of all workers together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from router.serve.answers import Answers
from tests.router.admin.test_admin import HereChannel, HereSlot, admin

TEXT = """
admin: {{port: 0}}
namers:
- {{kind: io.l5d.fs, rootDir: {root}}}
- {{kind: io.l5d.rewrite, prefix: /re/write, pattern: "/{{a}}", name: "/$/inet/{{a}}/1"}}
routers:
- protocol: http
  label: web
  dtab: /svc => /#/io.l5d.fs ; /svc/b => /$/inet/localhost/1
  servers: [{{port: 0}}]
"""


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "a").write_text("127.0.0.1 1\n")
    (tmp_path / "unused").write_text("127.0.0.1 2\n")
    return TEXT.format(root=tmp_path)


async def call(rig: Any, host: str) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", rig.worker.addresses[0][2])
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n" % host.encode())
        assert b" 502 " in b"".join([piece async for piece in stream])


async def test_bound_names_are_those_in_use_and_those_that_namers_know(text: str) -> None:
    async with admin(text) as rig:
        assert (await rig.ask("/bound-names.json")).json == ["/#/io.l5d.fs/a", "/#/io.l5d.fs/unused"]
        await call(rig, "b")
        assert (await rig.ask("/bound-names.json")).json == [
            "/#/io.l5d.fs/a", "/#/io.l5d.fs/unused", "/$/inet/localhost/1",
        ]  # fmt: skip


async def test_a_file_that_turned_bad_is_told_beside_its_last_good_content(text: str, tmp_path: Path) -> None:
    async with admin(text) as rig:
        assert (await rig.ask("/namer_state/io.l5d.fs.json")).json["names"] == {}  # nothing is in use
        await call(rig, "a")
        await call(rig, "nobody")
        told = (await rig.ask("/namer_state/io.l5d.fs.json")).json
        assert (told["prefix"], told["kind"]) == ("/io.l5d.fs", "io.l5d.fs")
        ((good,), (missing,)) = told["names"]["/a"], told["names"]["/nobody"]
        assert (good["state"], good["source"], good["error"], good["error_at"]) == ("bound", str(tmp_path / "a"), "", 0)
        assert good["addr"]["addrs"] == [{"ip": "127.0.0.1", "port": 1, "meta": {}}]
        assert (missing["state"], missing["addr"], missing["workers"]) == ("neg", None, [0])
        (tmp_path / "tmp").write_text("nonsense\n")
        os.rename(tmp_path / "tmp", tmp_path / "a")
        with trio.fail_after(5):
            while not (bad := (await rig.ask("/namer_state/io.l5d.fs.json")).json["names"]["/a"][0])["error"]:
                await trio.sleep(0.01)
        assert (bad["state"], bad["addr"], bad["since"]) == ("bound", good["addr"], good["since"])
        assert f"{tmp_path / 'a'}:1: " in bad["error"]
        assert bad["error_at"] >= bad["since"] > 1.6e9


async def test_workers_that_know_the_same_are_told_once(text: str) -> None:
    async with admin(text) as rig:
        await call(rig, "a")
        behind = {"name": "/a", "source": "x", "state": "pending", "since": 1.0, "error": "", "error_at": 0.0, "addr": None}

        async def other(prefix: str) -> Any:
            return [dict(behind)]

        assert rig.supervisor.generation is not None
        for number, handlers in ((1, Answers(rig.worker).handlers), (2, {"namer_state": other})):
            slot: Any = HereSlot(HereChannel(dict(handlers)), number=number)
            rig.supervisor.generation.slots.append(slot)
        states = (await rig.ask("/namer_state/io.l5d.fs.json")).json["names"]["/a"]
        assert [(state["state"], state["workers"]) for state in states] == [("bound", [0, 1]), ("pending", [2])]


async def test_host_names_and_namers_that_watch_nothing(text: str) -> None:
    async with admin(text) as rig:
        await call(rig, "b")
        told = (await rig.ask("/namer_state/$/inet.json")).json["names"]["/localhost"]
        assert (told[0]["state"], told[0]["source"]) == ("bound", "the system's resolver")
        assert {"ip": "127.0.0.1", "port": 0, "meta": {}} in told[0]["addr"]["addrs"]
        assert (await rig.ask("/namer_state/re/write.json")).json == {
            "prefix": "/re/write",
            "kind": "io.l5d.rewrite",
            "names": {},
        }
        nobody = await rig.ask("/namer_state/io.l5d.nobody.json")
        assert nobody.status == 404
        assert nobody.json["error"] == "no namer has the prefix /io.l5d.nobody; there are /io.l5d.fs, /re/write, /$/inet"
