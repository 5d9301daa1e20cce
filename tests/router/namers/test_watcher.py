"""Listeners, watches and the descriptor; with a real inotify where its events matter."""

import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from router.model.host import Host
from router.namers import watcher as module
from router.namers.inotify import CLOSE_WRITE, IGNORED, MODIFY, Q_OVERFLOW, Event, Inotify
from router.namers.watcher import Watcher


def descriptors():
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]


def kernel_watches():
    """How many watches the kernel keeps for this process."""
    files = [f"/proc/self/fdinfo/{fd}" for fd in os.listdir("/proc/self/fdinfo")]
    return sum(Path(file).read_text().count("inotify wd:") for file in files if os.path.exists(file))


def inotify_descriptors():
    return [name for name in descriptors() if "inotify" in name]


@pytest.fixture
def directory(tmp_path):
    return os.fsencode(tmp_path)


class Heard:
    """A listener."""

    def __init__(self):
        self.calls = []
        self.event = trio.Event()

    def __call__(self, settled):
        self.calls.append(settled)
        self.event.set()

    async def wait(self):
        with trio.fail_after(2):
            await self.event.wait()
        self.event = trio.Event()


async def test_names_are_told_apart(host, tmp_path, directory):
    watcher, a, b = Watcher(host), Heard(), Heard()
    keys = watcher.add(directory, b"a", a), watcher.add(directory, b"b", b)
    assert watcher.watches == 1
    (tmp_path / "a").write_text("x")
    await a.wait()
    assert a.calls[-1] is True
    assert not b.calls
    watcher.drop(keys[0], a)
    watcher.drop(keys[1], b)


async def test_a_rename_is_settled_and_a_removal_is_not(host, tmp_path, directory):
    watcher, heard = Watcher(host), Heard()
    (tmp_path / "new").write_text("x")
    key = watcher.add(directory, b"a", heard)
    (tmp_path / "new").rename(tmp_path / "a")
    await heard.wait()
    assert heard.calls == [True]
    (tmp_path / "a").unlink()
    await heard.wait()
    assert heard.calls == [True, False]
    watcher.drop(key, heard)


async def test_a_directory_that_goes_away_is_told(host, tmp_path):
    watcher, heard = Watcher(host), Heard()
    (tmp_path / "d").mkdir()
    key = watcher.add(os.fsencode(tmp_path / "d"), b"a", heard)
    (tmp_path / "d").rmdir()
    await heard.wait()
    assert heard.calls == [True]
    assert watcher.watches == 0
    watcher.drop(key, heard)


async def test_descriptor_lives_as_long_as_watches(host, directory):
    before = len(inotify_descriptors())
    watcher, heard = Watcher(host), Heard()
    tasks = len(host.nursery.child_tasks)
    for _ in range(3):
        key = watcher.add(directory, b"a", heard)
        assert len(inotify_descriptors()) == before + 1
        await trio.testing.wait_all_tasks_blocked()
        watcher.drop(key, heard)
        assert len(inotify_descriptors()) == before
    await trio.testing.wait_all_tasks_blocked()
    assert len(host.nursery.child_tasks) == tasks


async def test_descriptor_is_closed_with_the_worker(directory):
    before = len(inotify_descriptors())
    async with trio.open_nursery() as nursery:
        watcher, heard = Watcher(Host(nursery)), Heard()
        key = watcher.add(directory, b"a", heard)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(inotify_descriptors()) == before
    watcher.drop(key, heard)


async def test_a_directory_that_is_missing_leaves_nothing_open(host, directory, caplog):
    before = len(inotify_descriptors())
    with pytest.raises(FileNotFoundError):
        Watcher(host).add(directory + b"/nothing", b"a", Heard())
    assert len(inotify_descriptors()) == before
    assert not caplog.records


async def test_watches_are_bounded(host, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_WATCHES", 1)
    watcher, heard = Watcher(host), Heard()
    key = watcher.add(os.fsencode(tmp_path), b"a", heard)
    (tmp_path / "d").mkdir()
    for _ in range(2):
        with pytest.raises(OSError, match="1 directories are watched already"):
            watcher.add(os.fsencode(tmp_path / "d"), b"a", heard)
    assert len(caplog.records) == 1
    assert watcher.watches == kernel_watches() == 1
    watcher.drop(key, heard)


async def test_without_inotify_it_polls(host, directory, autojump_clock, caplog):
    def none():
        raise OSError(errno.EMFILE, "Too many open files")

    watcher, heard = Watcher(host, none), Heard()
    with pytest.raises(OSError, match="Too many"):
        watcher.add(directory, b"a", heard)
    watcher.poll(heard, True)
    watcher.poll(heard, True)
    await trio.sleep(3.5)
    assert heard.calls == [True, True, True]
    watcher.poll(heard, False)
    await trio.sleep(3)
    assert len(heard.calls) == 3
    assert host.timers.pending() == 0
    assert "max_user_instances" in caplog.text


async def test_events_of_a_batch_are_told_once_and_overflow_to_everyone(host, tmp_path, directory):
    watcher, a, b = Watcher(host), Heard(), Heard()
    key_a, key_b = watcher.add(directory, b"a", a), watcher.add(directory, b"b", b)
    number = key_a[0]
    watcher._dispatch([Event(number, MODIFY, b"a"), Event(number, CLOSE_WRITE, b"a"), Event(number, MODIFY, b"a")])
    assert (a.calls, b.calls) == ([True], [])
    watcher._dispatch([Event(-1, Q_OVERFLOW, b"")])
    assert (a.calls, b.calls) == ([True, True], [True])
    watcher._dispatch([Event(number + 1, IGNORED, b"")])
    assert len(a.calls) == 2
    watcher.drop(key_a, a)
    watcher.drop(key_b, b)


async def test_a_listener_with_a_bug_does_not_silence_the_others(host, tmp_path, directory):
    crashes = []
    host.on_crash = crashes.append

    def bug(settled):
        raise ZeroDivisionError

    watcher, heard = Watcher(host), Heard()
    keys = [(watcher.add(directory, b"a", listener), listener) for listener in (bug, heard)]
    (tmp_path / "a").write_text("")
    await heard.wait()
    assert {type(crash) for crash in crashes} == {ZeroDivisionError}
    for key, listener in keys:
        watcher.drop(key, listener)


def test_a_closed_instance_is_closed_once(directory):
    inotify = Inotify()
    assert inotify.add(directory) == inotify.add(directory)
    assert inotify.read() == []
    inotify.close()
    inotify.close()
    assert inotify.fd == -1
    assert inotify.read() == []
