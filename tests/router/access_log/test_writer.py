"""Lines reach their file, whatever happens to it, and nobody waits for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from router.access_log import writer as module
from router.access_log.forms import Whole
from router.access_log.writer import BATCH, EVERY, FileSettings, LogFile, Writer
from router.config.access_log import RollPolicy
from router.model.metrics import Metrics
from tests.support.fakes import NOON, FakeHost


def start(settings: FileSettings) -> tuple[FakeHost, Metrics, Writer]:
    host, metrics = FakeHost(), Metrics()
    return host, metrics, Writer(host, settings, metrics)  # type: ignore[arg-type]


def say(writer: Writer, line: str) -> None:
    """As if it had been made of an exchange."""
    exchange: Any = None
    Whole(lambda exchange, now, wall: line).keeper(writer)(exchange)


def test_exchanges_are_made_lines_a_few_at_a_time_and_a_bug_costs_one(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    host, metrics, writer = start(FileSettings(str(path)))
    crashes: list[Exception] = []
    host.crashed = crashes.append  # type: ignore[method-assign, assignment]
    made: list[tuple[int, float, int]] = []

    def render(exchange: Any, now: float, wall: int) -> str:
        made.append((exchange, now, wall))
        return f"{1 // exchange}\n"

    keep: Any = Whole(render).keeper(writer)
    for number in range(BATCH):
        assert not made
        host.pass_time(0.001)
        keep(number)
    assert [number for number, _, _ in made] == list(range(BATCH))
    assert all(wall == pytest.approx(NOON + now * 1e9, abs=2000) for _, now, wall in made)
    assert [type(crash) for crash in crashes] == [ZeroDivisionError]
    keep(1)
    host.pass_time(EVERY)
    writer.close()
    assert path.read_text() == "1\n" + "0\n" * (BATCH - 2) + "1\n"
    assert metrics.flat() == {"written": BATCH, "dropped": 0}


def test_lines_are_written_together(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    host, metrics, writer = start(FileSettings(str(path)))
    for number in range(3):
        say(writer, f"line {number}\n")
    assert host.timers.pending() == 1
    host.pass_time(EVERY + 0.01)
    assert host.timers.pending() == 0
    say(writer, "späť \ud800\n")
    writer.close()
    assert path.read_text("utf-8") == "line 0\nline 1\nline 2\nspäť \\ud800\n"
    assert metrics.flat() == {"written": 4, "dropped": 0}
    assert path.stat().st_mode & 0o777 == 0o640 & ~os.umask(os.umask(0))


def test_a_file_that_was_moved_away_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    file = LogFile(FileSettings(str(path)))
    file.write(b"one\n")
    path.rename(tmp_path / "old.log")
    file.write(b"two\n")
    path.unlink()
    file.write(b"three\n")
    file.close()
    assert (tmp_path / "old.log").read_bytes() == b"one\n"
    assert path.read_bytes() == b"three\n"


@pytest.mark.parametrize(("append", "expected"), [(True, b"before\nafter\nlater\n"), (False, b"after\nlater\n")])
def test_what_was_there(tmp_path: Path, append: bool, expected: bytes) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"before\n")
    file = LogFile(FileSettings(str(path), append=append))
    file.write(b"after\n")
    file.write(b"later\n")
    file.close()
    assert path.read_bytes() == expected


def test_two_processes_move_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    settings = FileSettings(str(path), RollPolicy(size=10))
    one, other = LogFile(settings), LogFile(settings)
    for number in range(3):
        one.write(b"one %d\n" % number)
        other.write(b"two %d\n" % number)
    one.close()
    other.close()
    rolled = sorted(tmp_path.glob("access.log.*"))
    assert len(rolled) == 2
    assert b"".join(sorted(file.read_bytes() for file in [*rolled, path])) == b"one 0\ntwo 0\none 1\ntwo 1\none 2\ntwo 2\n"


def test_old_files_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    file = LogFile(FileSettings(str(path), RollPolicy(size=1), rotate_count=2))
    (tmp_path / "access.log.gz").write_bytes(b"not ours")
    for number in range(6):
        file.write(b"%d\n" % number)
        for at, old in enumerate(sorted(tmp_path.glob("access.log.2*"), key=lambda one: one.read_bytes())):
            os.utime(old, (at, at))
    file.close()
    assert sorted(one.read_bytes() for one in tmp_path.iterdir()) == [b"3\n", b"4\n", b"5\n", b"not ours"]


def test_what_cannot_be_written_is_counted_told_once_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    host, metrics, writer = start(FileSettings(str(folder / "access.log")))
    say(writer, "lost\n")
    host.pass_time(EVERY + 0.01)
    while not writer._lost:  # the thread's turn
        os.sched_yield()
    folder.mkdir()
    say(writer, "kept\n")
    host.pass_time(EVERY + 0.01)
    writer.close()
    assert (folder / "access.log").read_text() == "kept\n"
    assert metrics.flat()["dropped"] == 1
    (event,) = host.events.recent
    assert (event.name, event.fields["cause"], event.fields["dropped"]) == (
        "access_log_trouble",
        "No such file or directory",
        1,
    )


def test_a_full_disk(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    host, metrics, writer = start(FileSettings("/dev/full"))
    say(writer, "lost\n")
    host.pass_time(EVERY + 0.01)
    while not writer._lost:
        os.sched_yield()
    writer.close()
    assert metrics.flat()["dropped"] == 1
    assert host.events.recent[0].fields["cause"] == "No space left on device"


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    host, metrics, writer = start(FileSettings(str(tmp_path / "access.log")))
    say(writer, "x" * 20 + "\n")
    host.pass_time(EVERY + 0.01)
    say(writer, "short\n")
    writer.close()
    assert (tmp_path / "access.log").read_text() == "short\n"
    assert metrics.flat() == {"written": 1, "dropped": 1}
    assert host.events.recent[0].fields["cause"] == "the disk is too slow"


def test_standard_output(capfd: Any) -> None:
    _, _, writer = start(FileSettings("-"))
    say(writer, "a line\n")
    writer.close()
    assert capfd.readouterr().out == "a line\n"
