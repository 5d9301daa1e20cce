"""One socket behind the poller: batches, partial sends, water marks, ends; and listeners that run out of descriptors."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from protocols.wire.connection import HIGH, LINGER, Connection
from protocols.wire.listener import RETRY_ACCEPT, Listener, connect, listen
from protocols.wire.poller import Poller
from router.model.metrics import Metrics
from tests.support.fakes import FakeHost


class Recorder:
    """A protocol that keeps what it hears."""

    def __init__(self) -> None:
        self.data = b""
        self.heard: list[str] = []

    def received(self, data: bytes) -> None:
        self.data += data

    def eof(self) -> None:
        self.heard.append("eof")

    def writable(self) -> None:
        self.heard.append("writable")

    def lost(self, why: str) -> None:
        self.heard.append(f"lost: {why}")


class Rig:
    """A connection, its peer's socket and the poller between them, turned by hand."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.crashes: list[Exception] = []
        self.poller = Poller(self.crashes.append)
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.protocol = Recorder()
        self.connection = Connection(self.poller, self.host.timers, ours)
        self.connection.start(self.protocol)

    def turn(self) -> None:
        self.poller.turn()

    def receive(self) -> bytes:
        data = b""
        try:
            while piece := self.peer.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return data

    def close(self) -> None:
        self.peer.close()
        self.poller.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    crashes = made.crashes
    made.close()
    assert made.connection.gone
    assert sum(word.startswith("lost") for word in made.protocol.heard) == 1
    assert not crashes


def test_a_turn_reads_acts_and_sends_all_at_once(rig: Rig) -> None:
    rig.peer.send(b"hello")
    rig.protocol.received = lambda data: [rig.connection.write(data), rig.connection.write(b"!")]  # type: ignore[assignment, method-assign]
    rig.turn()
    assert rig.receive() == b"hello!"
    assert rig.connection.unsent == 0


def test_what_is_written_outside_of_a_turn_makes_one(rig: Rig) -> None:
    rig.connection.write(b"a")
    rig.connection.write(memoryview(b"bc"))
    assert rig.receive() == b""
    rig.turn()
    assert rig.receive() == b"abc"


@pytest.mark.parametrize("pieces", [[b"x" * 3_000_000], [b"y" * 5000] * 1500, [b"z"] * 20_000])
def test_nothing_is_lost_when_the_kernel_takes_less(rig: Rig, pieces: list[bytes]) -> None:
    for piece in pieces:
        rig.connection.write(piece)
    got = b""
    for _ in range(200):
        rig.turn()
        got += rig.receive()
    assert got == b"".join(pieces)
    assert rig.connection.unsent == 0


def test_water_marks(rig: Rig) -> None:
    rig.connection.write(b"x" * (HIGH * 8))
    rig.turn()
    assert rig.connection.congested
    assert rig.protocol.heard == []
    got = len(rig.receive())
    for _ in range(100):
        rig.turn()
        got += len(rig.receive())
    assert got == HIGH * 8
    assert not rig.connection.congested
    assert rig.protocol.heard == ["writable"]


def test_paused_reads_wait_in_the_kernel(rig: Rig) -> None:
    rig.connection.pause()
    rig.peer.send(b"later")
    rig.turn()
    assert rig.protocol.data == b""
    rig.connection.resume()
    rig.turn()
    assert rig.protocol.data == b"later"


def test_a_half_closed_peer_can_still_be_answered(rig: Rig) -> None:
    rig.peer.shutdown(socket.SHUT_WR)
    rig.turn()
    assert rig.protocol.heard == ["eof"]
    rig.connection.write(b"answer")
    rig.turn()
    assert rig.receive() == b"answer"


def test_closing_sends_the_rest_and_waits_for_the_peers_end(rig: Rig) -> None:
    rig.connection.write(b"bye")
    rig.connection.close()
    rig.turn()
    assert rig.receive() == b"bye"
    assert not rig.connection.gone
    rig.peer.send(b"unread")
    rig.turn()
    assert rig.protocol.data == b""
    rig.peer.shutdown(socket.SHUT_WR)
    rig.turn()
    rig.turn()
    assert rig.protocol.heard == ["lost: closed"]


def test_a_peer_that_never_ends_is_not_waited_for_long(rig: Rig) -> None:
    rig.connection.close()
    rig.turn()
    rig.host.pass_time(LINGER * 0.9)
    assert not rig.connection.gone
    rig.host.pass_time(LINGER * 0.2)
    assert rig.connection.gone


def test_a_peer_that_is_gone_is_told_of_even_while_nothing_is_read() -> None:
    host, crashes, protocol = FakeHost(), [], Recorder()
    poller = Poller(crashes.append)
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    connection = Connection(poller, host.timers, ours)
    connection.start(protocol)
    connection.pause()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    poller.turn()
    assert connection.gone
    assert protocol.heard[0].startswith("lost")
    poller.close()
    assert not crashes


def test_who_waits_for_the_end_of_the_turn_is_looked_at_before_anything_is_sent() -> None:
    host = FakeHost()
    poller = Poller(host.crashed, host.turn)
    ours, peer = socket.socketpair()
    connection = Connection(poller, host.timers, ours)
    order: list[str] = []

    class Looked:
        def look(self) -> None:
            order.append("looked")
            connection.write(b"answer")

    class Reads(Recorder):
        def received(self, data: bytes) -> None:
            order.append("read")
            host.turn.add(Looked())

    connection.start(Reads())
    peer.send(b"x")
    poller.turn()
    assert (order, peer.recv(20)) == (["read", "looked"], b"answer")
    host.turn.add(Looked())  # outside of a turn: it makes one happen
    assert poller.turn() == 1
    assert (order[2:], peer.recv(20)) == (["looked"], b"answer")
    peer.close()
    poller.close()


def test_a_bug_ends_its_connection_and_no_other() -> None:
    rig = Rig()
    ours, peer = socket.socketpair()
    other = Connection(rig.poller, rig.host.timers, ours)
    other.start(Recorder())
    rig.protocol.received = lambda data: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    rig.peer.send(b"x")
    rig.turn()
    assert rig.connection.gone
    assert [type(error) for error in rig.crashes] == [ZeroDivisionError]
    other.write(b"still here")
    rig.turn()
    assert peer.recv(20) == b"still here"
    peer.close()
    rig.close()
    assert other.gone


async def test_the_poller_serves_from_a_trio_task(nursery: trio.Nursery) -> None:
    rig = Rig()
    nursery.start_soon(rig.poller.run)
    rig.protocol.received = rig.connection.write  # type: ignore[method-assign]
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(rig.peer))
    await stream.send_all(b"echo")
    assert await stream.receive_some(10) == b"echo"
    rig.connection.write(b"from outside")
    assert await stream.receive_some(20) == b"from outside"
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await trio.lowlevel.checkpoint()
    rig.close()


# -- listeners ------------------------------------------------------------------------------------------------


class Failing:
    """A listening socket whose ``accept`` raises what the test says."""

    def __init__(self, sock: socket.socket, errors: list[int]) -> None:
        self.sock = sock
        self.errors = errors

    def accept(self) -> Any:
        if self.errors:
            raise OSError(self.errors.pop(0), "as told")
        return self.sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_listener_without_descriptors_waits_and_goes_on(number: int) -> None:
    host, accepted = FakeHost(), []
    poller = Poller(host.crashed)
    sock = listen("127.0.0.1", 0)
    host.pass_time(1)
    metrics = Metrics()
    listener = Listener(host, poller, Failing(sock, [number, number]), lambda sock, peer: accepted.append(sock), metrics)  # type: ignore[arg-type]
    clients = [socket.create_connection(listener.address)]
    for _ in range(2):
        poller.turn()
        assert poller.turn() == 0  # no busy loop
        assert accepted == []
        host.pass_time(RETRY_ACCEPT * 1.5)
    poller.turn()
    assert len(accepted) == 1
    assert metrics.flat()["accept_pauses"] == 2
    assert [event.name for event in host.events.recent] == ["listener_paused"]
    host.pass_time(2)
    clients.append(socket.create_connection(listener.address))
    poller.turn()
    assert [event.name for event in host.events.recent] == ["listener_paused", "listener_resumed"]
    for one in (*clients, *accepted):
        one.close()
    poller.close()
    assert listener.closed


def test_a_connection_that_was_reset_while_it_waited_is_skipped() -> None:
    host, accepted = FakeHost(), []
    poller = Poller(host.crashed)
    sock = Failing(listen("127.0.0.1", 0), [errno.ECONNABORTED])
    listener = Listener(host, poller, sock, lambda sock, peer: accepted.append(sock), Metrics())  # type: ignore[arg-type]
    client = socket.create_connection(listener.address)
    poller.turn()
    assert len(accepted) == 1
    client.close()
    accepted[0].close()
    listener.abort()
    listener.abort()
    poller.close()


def test_an_address_in_use_is_named() -> None:
    with listen("127.0.0.1", 0) as sock, pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:[0-9]+: Address already"):
        listen("127.0.0.1", sock.getsockname()[1])


async def test_connecting_and_being_refused() -> None:
    threads = threading.active_count()
    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    made = await connect("127.0.0.1", port)
    assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not made.getblocking()
    made.close()
    sock.close()
    with pytest.raises(OSError, match="refused"):
        await connect("127.0.0.1", port)
    assert threading.active_count() <= threads
