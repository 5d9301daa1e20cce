"""The file system namer over real directories: what is seen when files change in all the ways that they do."""

import errno
import os
import stat

import pytest
import trio
import trio.testing

from dtab import NEG, AddrBound, AddrFailed, AddrNeg, Bound, Endpoint, Failed, Leaf, Ok, Path, Pending, read_path
from router.namers import fs, spot, watcher
from router.namers.fs import PLUGIN


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def namer(root, context):
    return PLUGIN.make(PLUGIN.config(str(root)), context)


def leaf(path, residual="/"):
    return Ok(Leaf(Bound(read_path(f"/#/io.l5d.fs{path}"), None, read_path(residual))))


def bound(*ends):
    return Ok(AddrBound(frozenset(Endpoint("127.0.0.1", port, weight) for port, weight in ends)))


def ask(namer, path):
    return namer.lookup(read_path(path))


def addr_of(tree):
    return tree.last.value.value.addr


def inotify_descriptors():
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum("inotify" in os.readlink(link) for link in links if os.path.islink(link))


def write(path, *ports):
    path.write_text("".join(f"127.1 {port}\n" for port in ports))


def replace(path, *ports):
    write(path.with_name("tmp"), *ports)
    path.with_name("tmp").rename(path)


# -- names ------------------------------------------------------------------------------------------------------


async def test_file_is_a_bound_name(namer, root, watch):
    (root / "default").write_text("127.0.0.1 8080\n127.0.0.1 8081 * 0.23\n")
    tree = watch(ask(namer, "/default"))
    assert tree.last == leaf("/default")
    addr = watch(addr_of(tree))
    assert addr.last == bound((8080, 1.0), (8081, 0.23))
    addr.close()
    tree.close()


@pytest.mark.parametrize(
    ("path", "name", "residual"),
    [
        ("/web", "/web", "/"),
        ("/web/a/b", "/web", "/a/b"),
        ("/sub/web", "/sub/web", "/"),
        ("/sub/web/a", "/sub/web", "/a"),
        ("/sub/deep/web/a", "/sub/deep/web", "/a"),
    ],
)
async def test_the_first_file_on_the_way_is_the_name(namer, root, watch, path, name, residual):
    (root / "sub" / "deep").mkdir(parents=True)
    for file in ("web", "sub/web", "sub/deep/web"):
        write(root / file, 80)
    tree = watch(ask(namer, path))
    assert tree.last == leaf(name, residual)
    tree.close()


@pytest.mark.parametrize("elements", [(), (b"none",), (b"sub",), (b"sub", b"none"), (b"x" * 300,), (b"\xff",)])
async def test_what_is_not_there_is_negative(namer, root, watch, elements):
    (root / "sub").mkdir()
    tree = watch(namer.lookup(Path(elements)))
    assert tree.last == Ok(NEG)
    tree.close()


@pytest.mark.parametrize(
    "elements", [(b"..", b"secret"), (b"../secret",), (b"sub", b"..", b"..", b"secret"), (b".hidden",), (b"a\0b",), (b".",)]
)
async def test_nothing_leads_out_of_the_root(namer, root, watch, elements):
    (root / "sub").mkdir()
    write(root.parent / "secret", 80)
    write(root / ".hidden", 80)
    tree = watch(namer.lookup(Path(elements)))
    assert tree.last == Ok(NEG)
    tree.close()


async def test_prefix_is_part_of_the_id(root, context, watch):
    write(root / "web", 80)
    tree = watch(ask(PLUGIN.make(PLUGIN.config(str(root), "/disco/files"), context), "/web"))
    assert tree.last.value.value.id == read_path("/#/disco/files/web")
    tree.close()


def test_root_must_exist(tmp_path):
    with pytest.raises(ValueError, match=r"rootDir '.*none' is not a directory: create it"):
        PLUGIN.config(str(tmp_path / "none"))


# -- changes ----------------------------------------------------------------------------------------------------


async def test_file_appears_changes_and_goes(namer, root, watch):
    tree = watch(ask(namer, "/web"))
    assert tree.last == Ok(NEG)
    write(root / "web", 1)
    await tree.until(leaf("/web"))
    addr = watch(addr_of(tree))
    assert addr.last == bound((1, 1.0))
    write(root / "web", 2)
    await addr.until(bound((2, 1.0)))
    replace(root / "web", 3, 4)
    await addr.until(bound((3, 1.0), (4, 1.0)))
    (root / "web").unlink()
    await tree.until(Ok(NEG))
    assert addr.last == Ok(AddrNeg())
    assert tree.states == [Ok(NEG), leaf("/web"), Ok(NEG)]
    addr.close()
    tree.close()


async def test_changes_are_seen_within_100_ms(namer, root, watch):
    write(root / "web", 1)
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    for change, wanted in (
        (lambda: write(root / "web", 2), bound((2, 1.0))),
        (lambda: replace(root / "web", 3), bound((3, 1.0))),
        (lambda: (root / "web").unlink(), Ok(AddrNeg())),
    ):
        change()
        with trio.fail_after(0.1):
            await addr.until(wanted)
    addr.close()
    tree.close()


async def test_rewriting_in_place_is_never_seen_empty(namer, root, watch):
    write(root / "web", 1)
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    with (root / "web").open("w") as file:
        await trio.testing.wait_all_tasks_blocked(0.005)
        file.write("127.0.0.1 2\n")
    await addr.until(bound((2, 1.0)))
    assert addr.states == [bound((1, 1.0)), bound((2, 1.0))]
    addr.close()
    tree.close()


async def test_a_rewrite_that_leaves_no_mark_in_the_status_is_seen(namer, root, watch, monkeypatch):
    find, marks = spot.trace, []

    def same_instant(*args):  # as with a clock that ticks too slowly to tell two writes apart
        found = find(*args)
        if found is None or not stat.S_ISREG(found[1].st_mode):
            return found
        marks.append(found[1])
        return found[0], marks[0]

    monkeypatch.setattr(spot, "trace", same_instant)
    write(root / "web", 1)
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    write(root / "web", 2)
    await addr.until(bound((2, 1.0)))
    addr.close()
    tree.close()


async def test_a_rename_is_not_waited_for(namer, root, watch, monkeypatch):
    monkeypatch.setattr(spot, "SETTLE", 60)
    tree = watch(ask(namer, "/web"))
    replace(root / "web", 1)
    await tree.until(leaf("/web"))
    tree.close()


async def test_an_emptied_file_stays_bound_without_endpoints(namer, root, watch):
    write(root / "web", 1)
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    replace(root / "web")
    await addr.until(Ok(AddrBound()))
    assert tree.states == [leaf("/web")]
    addr.close()
    tree.close()


async def test_weight_0_takes_an_address_out(namer, root, watch):
    (root / "web").write_text("127.0.0.1 1 * 0\n127.0.0.1 2\n")
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    assert addr.last == bound((2, 1.0))
    addr.close()
    tree.close()


async def test_directory_comes_and_goes(namer, root, watch):
    tree = watch(ask(namer, "/a/b/web"))
    assert tree.last == Ok(NEG)
    (root / "a" / "b").mkdir(parents=True)
    write(root / "a" / "b" / "web", 1)
    await tree.until(leaf("/a/b/web"))
    (root / "a").rename(root / "old")
    await tree.until(Ok(NEG))
    (root / "old").rename(root / "a")
    await tree.until(leaf("/a/b/web"))
    tree.close()


async def test_file_becomes_directory(namer, root, watch):
    write(root / "a", 1)
    tree = watch(ask(namer, "/a/web"))
    assert tree.last == leaf("/a", "/web")
    (root / "a").unlink()
    (root / "a").mkdir()
    replace(root / "a" / "web", 2)
    await tree.until(leaf("/a/web"))
    tree.close()


async def test_kubernetes_volume_swap(namer, root, watch):
    for version, port in (("..v1", 1), ("..v2", 2)):
        (root / version).mkdir()
        write(root / version / "web", port)
    (root / "..data").symlink_to("..v1")
    (root / "web").symlink_to("..data/web")
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    assert addr.last == bound((1, 1.0))
    (root / "..tmp").symlink_to("..v2")
    (root / "..tmp").rename(root / "..data")
    await addr.until(bound((2, 1.0)))
    assert addr.states == [bound((1, 1.0)), bound((2, 1.0))]
    addr.close()
    tree.close()


async def test_root_itself_is_a_link_that_is_swapped(tmp_path, context, watch):
    for version, port in (("v1", 1), ("v2", 2)):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "web", port)
    (tmp_path / "current").symlink_to("v1")
    tree = watch(ask(PLUGIN.make(PLUGIN.config(str(tmp_path / "current")), context), "/web"))
    addr = watch(addr_of(tree))
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "current")
    await addr.until(bound((2, 1.0)))
    addr.close()
    tree.close()


async def test_link_to_another_place_follows_what_is_written_there(namer, root, watch):
    (root.parent / "else").mkdir()
    write(root.parent / "else" / "file", 1)
    (root / "web").symlink_to("../else/file")
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    write(root.parent / "else" / "file", 2)
    await addr.until(bound((2, 1.0)))
    addr.close()
    tree.close()


# -- what is wrong ----------------------------------------------------------------------------------------------


async def test_bad_content_keeps_the_last_good_and_is_reported_once(namer, root, watch, context):
    write(root / "web", 1)
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    for _ in range(2):
        (root / "tmp").write_text("127.0.0.1 2\n127.0.0.1\n")
        (root / "tmp").rename(root / "web")
        with trio.fail_after(2):
            while context.metrics.counter("failures").value == 0:
                await trio.testing.wait_all_tasks_blocked(0.001)
    write(root / "other", 1)  # an event behind the second one
    other = watch(ask(namer, "/other"))
    write(root / "other", 2)
    await watch(addr_of(other)).until(bound((2, 1.0)))
    assert addr.states == [bound((1, 1.0))]
    assert tree.states == [leaf("/web")]
    (event,) = context.host.events.recent
    assert (event.name, event.fields["in_use"]) == ("namer_file_refused", "its last good content")
    told = f"{root / 'web'}:2: expected `host port` or `host port * weight`, found `127.0.0.1`"
    assert event.fields["cause"].startswith(told)
    replace(root / "web", 3)
    await addr.until(bound((3, 1.0)))
    addr.close()
    tree.close()


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"a b c\n", ":1: expected"), (b"#" * (spot.MAX_BYTES + 1), ": more than 512000 bytes")],
)
async def test_content_that_was_never_good_is_a_failed_address(namer, root, watch, content, cause):
    (root / "web").write_bytes(content)
    tree = watch(ask(namer, "/web"))
    assert tree.last == leaf("/web")
    addr = watch(addr_of(tree))
    assert isinstance(addr.last.value, AddrFailed)
    assert addr.last.value.cause.startswith(f"{root / 'web'}{cause}")
    replace(root / "web", 1)
    await addr.until(bound((1, 1.0)))
    addr.close()
    tree.close()


async def test_a_pipe_is_not_waited_for(namer, root, watch):
    os.mkfifo(root / "web")
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    assert isinstance(addr.last.value, AddrFailed)
    assert "not a file" in addr.last.value.cause
    addr.close()
    tree.close()


async def test_what_cannot_be_reached_fails_and_heals(namer, root, watch, monkeypatch, autojump_clock):
    write(root / "web", 1)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", os.fsencode(root / "web"))

    with monkeypatch.context() as patch:
        patch.setattr(spot, "trace", refuse)
        tree = watch(ask(namer, "/web"))
        assert isinstance(tree.last, Failed)
        await trio.sleep(1.5)
        assert isinstance(tree.last, Failed)
    await trio.sleep(1)
    assert tree.last == leaf("/web")
    with monkeypatch.context() as patch:
        patch.setattr(spot, "trace", refuse)
        write(root / "web", 2)
        await trio.sleep(2)
    assert tree.last == leaf("/web")
    tree.close()


@pytest.fixture
def blind(root, context, monkeypatch):
    """A namer on a system that has no inotify left."""

    def none():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(fs, "Watcher", lambda host: watcher.Watcher(host, none))
    return PLUGIN.make(PLUGIN.config(str(root)), context)


async def test_without_inotify_changes_are_polled(blind, root, context, watch, autojump_clock):
    tree = watch(ask(blind, "/web"))
    write(root / "web", 1)
    await trio.sleep(1.1)
    assert tree.last == leaf("/web")
    addr = watch(addr_of(tree))
    assert addr.last == bound((1, 1.0))
    write(root / "web", 2)
    await trio.sleep(1.1)
    assert addr.last == bound((2, 1.0))
    addr.close()
    tree.close()
    await trio.sleep(2)
    assert context.host.timers.pending() == 0


async def test_polling_does_not_read_what_did_not_change(blind, root, watch, monkeypatch, autojump_clock):
    reads = []
    monkeypatch.setattr(spot, "parse", lambda data: reads.append(data) or ())
    monkeypatch.setattr(spot, "_FRESH", 0)
    write(root / "web", 1)
    tree = watch(ask(blind, "/web"))
    await trio.sleep(10)
    assert reads == [b"127.1 1\n"]
    replace(root / "web", 2)
    await trio.sleep(10)
    assert reads == [b"127.1 1\n", b"127.1 2\n"]
    tree.close()


# -- names in files ---------------------------------------------------------------------------------------------


class Dns(trio.abc.HostnameResolver):
    def __init__(self):
        self.names = {}

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        if host.decode() not in self.names:
            raise OSError(errno.ENOENT, "no such name")
        return [(2, type, 6, "", (self.names[host.decode()], port or 0))]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


async def test_host_names_are_looked_up_again_and_again(namer, root, watch, autojump_clock):
    dns = Dns()
    before = trio.socket.set_custom_hostname_resolver(dns)
    (root / "web").write_text("a.example 80 * 0.5\n")
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    assert addr.last == Pending()
    await trio.sleep(0.1)
    assert isinstance(addr.last.value, AddrFailed)
    dns.names["a.example"] = "10.0.0.1"
    await trio.sleep(1)
    assert addr.last == Ok(AddrBound(frozenset([Endpoint("10.0.0.1", 80, 0.5)])))
    dns.names["a.example"] = "10.0.0.2"
    await trio.sleep(10)
    assert addr.last == Ok(AddrBound(frozenset([Endpoint("10.0.0.2", 80, 0.5)])))
    addr.close()
    tree.close()
    trio.socket.set_custom_hostname_resolver(before)


async def test_literals_do_not_wait_for_names(namer, root, watch):
    (root / "web").write_text("127.0.0.1 1\nlocalhost 2\n")
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    assert Endpoint("127.0.0.1", 1) in addr.last.value.endpoints
    addr.close()
    tree.close()


# -- what it holds ----------------------------------------------------------------------------------------------


async def test_everything_is_given_back_with_the_last_observer(namer, root, watch, context):
    descriptors, tasks = inotify_descriptors(), len(context.host.nursery.child_tasks)
    (root / "sub").mkdir()
    write(root / "sub" / "web", 1)
    names = [watch(namer.lookup(Path.of("sub", "web", str(number)))) for number in range(50)]
    names += [watch(namer.lookup(Path.of("sub", f"none{number}"))) for number in range(50)]
    assert context.metrics.flat()["watches"] == 3
    assert context.metrics.flat()["names"] == 52
    assert inotify_descriptors() == descriptors + 1
    for name in names:
        name.close()
    await trio.testing.wait_all_tasks_blocked()
    assert context.metrics.flat()["watches"] == 0
    assert context.metrics.flat()["names"] == 0
    assert inotify_descriptors() == descriptors
    assert len(context.host.nursery.child_tasks) == tasks


async def test_an_address_is_followed_without_its_tree(namer, root, watch):
    write(root / "web", 1)
    tree = watch(ask(namer, "/web"))
    addr = watch(addr_of(tree))
    tree.close()
    write(root / "web", 2)
    await addr.until(bound((2, 1.0)))
    addr.close()


async def test_content_of_an_earlier_life_is_not_the_last_good_one(namer, root, watch):
    write(root / "web", 1)
    tree = watch(ask(namer, "/web"))
    activity = addr_of(tree)
    tree.close()
    (root / "web").write_text("bad")
    addr = watch(activity)
    assert isinstance(addr.last.value, AddrFailed)
    addr.close()


# -- what is told of it -----------------------------------------------------------------------------------------


async def test_the_names_that_there_are(namer, root):
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "up").symlink_to(root)
    (root / "deep" / "loop").symlink_to("loop")
    (root / ".hidden").write_text("")
    os.mkfifo(root / "pipe")
    write(root / "web", 1)
    write(root / "deep" / "er" / "db", 1)
    (root / "link").symlink_to("web")
    assert [name.show() for name in namer.names()] == ["/deep/er/db", "/link", "/web"]


async def test_the_names_that_are_told_are_bounded(namer, root, monkeypatch):
    monkeypatch.setattr(fs, "MOST_NAMES", 2)
    monkeypatch.setattr(fs, "MOST_DEEP", 2)
    (root / "a" / "b" / "c").mkdir(parents=True)
    write(root / "a" / "b" / "c" / "too_deep", 1)
    for name in "xyz":
        write(root / name, 1)
    assert [name.show() for name in namer.names()] == ["/x", "/y"]


async def test_what_is_watched_and_since_when(namer, root, host, watch):
    now = 1_000_000_000
    host.wall_ns = lambda: now
    write(root / "web", 1)
    (root / "dir").mkdir()
    watch(ask(namer, "/web"))
    watch(ask(namer, "/dir/gone"))
    told = {one.name: (one.state, one.since) for one in namer.watched()}
    assert told == {"/web": ("bound", 1.0), "/dir": ("directory", 1.0), "/dir/gone": ("neg", 1.0)}
    now = 2_000_000_000
    seen = watch(ask(namer, "/web"))
    replace(root / "web", 2)
    await seen.until(leaf("/web"))
    with trio.fail_after(2):
        while (web := next(one for one in namer.watched() if one.name == "/web")).since < 2:
            await trio.sleep(0.005)
    assert web.addr == AddrBound(frozenset([Endpoint("127.0.0.1", 2)]))
