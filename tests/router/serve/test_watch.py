"""The file is read again when it has changed, once for each change, however it is changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from router.serve.watch import EVERY, Watch


class Rig:
    """A watched file; `reads`: what it held, or that it was not there, at each reload."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.reads: list[str | None] = []

    async def reload(self) -> None:
        self.reads.append(self.file.read_text() if self.file.exists() else None)

    async def pass_time(self) -> list[str | None]:
        """The reads until nothing more happens."""
        await trio.sleep(5 * EVERY)
        reads, self.reads = self.reads, []
        return reads


@pytest.fixture
async def rig(tmp_path: Path, nursery: trio.Nursery, autojump_clock: Any) -> Rig:
    made = Rig(tmp_path / "test.yaml")
    made.file.write_text("a")
    nursery.start_soon(Watch(str(made.file)).run, made.reload)
    return made


async def test_writing_and_renaming(autojump_clock: Any, rig: Rig, tmp_path: Path) -> None:
    assert await rig.pass_time() == []
    rig.file.write_text("bb")
    assert await rig.pass_time() == ["bb"]
    new = tmp_path / "new"
    new.write_text("c")
    new.rename(rig.file)
    assert await rig.pass_time() == ["c"]
    os.utime(rig.file)
    assert await rig.pass_time() == ["c"]


async def test_what_is_written_in_pieces_is_read_once(autojump_clock: Any, rig: Rig) -> None:
    with rig.file.open("w") as file:
        for piece in range(10):
            file.write(f"{piece},")
            file.flush()
            await trio.sleep(EVERY * 0.9)
            assert rig.reads == []
    assert await rig.pass_time() == ["0,1,2,3,4,5,6,7,8,9,"]


async def test_a_file_that_goes_and_comes(autojump_clock: Any, rig: Rig) -> None:
    rig.file.unlink()
    assert await rig.pass_time() == [None]
    rig.file.write_text("a")
    assert await rig.pass_time() == ["a"]
    rig.file.unlink()
    rig.file.write_text("as an editor does")
    assert await rig.pass_time() == ["as an editor does"]


async def test_as_kubernetes_mounts_it(tmp_path: Path, nursery: trio.Nursery, autojump_clock: Any) -> None:
    """file -> ..data/file, ..data -> ..1, and a rename of the link in the middle (AtomicWriter of kubelet)."""
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.yaml").write_text(name)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "test.yaml").symlink_to("..data/test.yaml")
    rig = Rig(tmp_path / "test.yaml")
    nursery.start_soon(Watch(str(rig.file)).run, rig.reload)
    assert await rig.pass_time() == []
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert await rig.pass_time() == ["..2"]
