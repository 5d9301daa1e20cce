"""Which directory entries a name depends on."""

import os
import stat

import pytest

from router.namers.trace import trace


@pytest.fixture
def base(tmp_path):
    return os.path.realpath(os.fsencode(tmp_path))


def follow(base, *parts):
    visited = []
    found = trace(base, parts, lambda directory, name: visited.append((os.path.relpath(directory, base), name)))
    return (None if found is None else os.path.relpath(found[0], base)), visited


def test_plain_file_depends_on_each_directory_above(tmp_path, base):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("x")
    assert follow(base, b"a", b"f") == (b"a/f", [(b".", b"a"), (b"a", b"f")])


def test_the_status_is_that_of_the_target(tmp_path, base):
    (tmp_path / "f").write_text("x")
    (tmp_path / "l").symlink_to("f")
    found = trace(base, (b"l",), lambda directory, name: None)
    assert found is not None
    assert stat.S_ISREG(found[1].st_mode)


def test_missing_depends_on_what_could_appear(base):
    assert follow(base, b"a", b"f") == (None, [(b".", b"a")])


def test_a_file_is_no_directory(tmp_path, base):
    (tmp_path / "a").write_text("x")
    assert follow(base, b"a", b"f")[0] is None


def test_kubernetes_volume_depends_on_the_swapped_link(tmp_path, base):
    (tmp_path / "..v1").mkdir()
    (tmp_path / "..v1" / "web").write_text("x")
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "web").symlink_to("..data/web")
    found, visited = follow(base, b"web")
    assert found == b"..v1/web"
    assert visited == [(b".", b"web"), (b".", b"..data"), (b".", b"..v1"), (b"..v1", b"web")]


def test_links_up_and_absolute(tmp_path, base):
    (tmp_path / "a").mkdir()
    (tmp_path / "f").write_text("x")
    (tmp_path / "a" / "up").symlink_to("../f")
    (tmp_path / "a" / "absolute").symlink_to(tmp_path / "f")
    assert follow(base, b"a", b"up")[0] == b"f"
    found, visited = follow(base, b"a", b"absolute")
    assert found == b"f"
    assert visited[-1] == (b".", b"f")


def test_loops_end(tmp_path, base):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert follow(base, b"a")[0] is None


def test_names_too_long_are_missing(base):
    assert follow(base, b"x" * 300)[0] is None
