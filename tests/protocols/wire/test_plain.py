"""Plain connections to endpoints: until their tunnel, within it, and how they end."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from protocols.wire.connection import LINGER, Connection
from protocols.wire.plain import PlainSession
from protocols.wire.poller import Poller
from protocols.wire.tunnel import HIGH
from router.balance.pool import PoolSettings
from router.balance.tunnels import MAX_TUNNELS, SPARE, for_tunnels
from router.model.body import Source
from router.model.failure import CONNECT_ERROR, Blame, Failure, Kind, client_gone
from router.model.headers import CONNECT, RequestHead
from tests.support.fakes import Call, FakeHost

HEAD = RequestHead(b"CONNECT", b"", b"web:443", b"", tunnel=CONNECT)


class Client(Source):
    """The client's end: what it sends, and how much of that was accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.credited = 0
        self.stopped = False

    def credit(self, size: int) -> None:
        self.credited += size

    def stop(self, failure: Failure | None) -> None:
        self.stopped = True


class Rig:
    """A session over TCP, the endpoint's socket, and a poller that is turned by hand."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.crashes: list[Exception] = []
        self.poller = Poller(self.crashes.append)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            self.endpoint, _ = listener.accept()
        self.endpoint.settimeout(1)
        self.session = PlainSession(Connection(self.poller, self.host.timers, ours))
        self.changes: list[tuple[bool, int]] = []
        self.session.changed = lambda one: self.changes.append((one.closed, one.free))
        self.client = Client()

    def call(self) -> Call:
        async def conduct(exchange: object) -> None:
            call_exchange = exchange
            call_exchange.body = self.client  # type: ignore[attr-defined]
            await self.session.conduct(call_exchange)  # type: ignore[arg-type]

        return Call(self.host, conduct, HEAD)

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.poller.turn()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.poller.abort_all()
    made.poller.close()
    made.endpoint.close()
    assert made.crashes == []
    made.host.pass_time(LINGER + 1)
    assert made.host.timers.pending() == 0


def test_one_tunnel_and_then_it_is_over(rig: Rig) -> None:
    assert (rig.session.free, rig.session.active) == (1, 0)
    rig.endpoint.sendall(b"banner")
    rig.turn()  # nothing is read yet
    call = rig.call()
    assert (rig.session.free, rig.session.active, rig.session.begun) == (0, 1, 1)
    assert call.reply.head is not None
    assert (call.reply.head.status, call.reply.head.fields) == (200, ())
    rig.client.push(b"hello", 5, False)
    rig.turn()
    assert (call.reply.body, rig.endpoint.recv(100), rig.client.credited) == (b"banner", b"hello", 5)
    rig.client.finish(())
    rig.turn()
    assert rig.endpoint.recv(100) == b""
    assert not call.done
    rig.endpoint.sendall(b"bye")
    rig.endpoint.shutdown(socket.SHUT_WR)
    rig.turn()
    assert (call.done, call.failure, call.reply.body, call.reply.trailers) == (True, None, b"bannerbye", ())
    assert call.exchange.complete
    assert (rig.session.closed, rig.session.active, rig.changes) == (True, 0, [(True, 0)])


def test_bytes_behind_the_end_are_credited_and_dropped(rig: Rig) -> None:
    rig.call()
    rig.client.push(b"x", 1, True)
    rig.client.sink.data(b"late", 4, False)  # type: ignore[union-attr]
    rig.turn()
    assert rig.client.credited == 5
    assert rig.endpoint.recv(100) == b"x"
    assert rig.endpoint.recv(100) == b""


def test_an_endpoint_is_not_read_while_its_bytes_are_not_taken(rig: Rig) -> None:
    call = rig.call()
    source = call.reply.source
    rig.endpoint.settimeout(0)
    sent = 0
    while True:
        try:
            sent += rig.endpoint.send(bytes(65536))
        except BlockingIOError:
            rig.turn()
            if len(call.reply.body) > HIGH:
                break
    before = len(call.reply.body)
    rig.turn(10)
    assert len(call.reply.body) == before
    source.credit(before)
    rig.turn(2)
    assert len(call.reply.body) > before


def test_a_tunnel_that_breaks_off_ends_with_a_reset(rig: Rig) -> None:
    call = rig.call()
    call.strand.cancel(client_gone("gone"))
    assert call.done
    assert (rig.session.closed, rig.changes) == (True, [(True, 0)])
    with pytest.raises(ConnectionResetError):
        rig.endpoint.recv(1)


def test_an_endpoint_that_breaks_off_is_to_blame(rig: Rig) -> None:
    call = rig.call()
    rig.endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    rig.endpoint.close()
    rig.turn()
    assert call.failure is not None
    assert (call.failure.kind, call.failure.blame, call.failure.code) == (Kind.RESET, Blame.UPSTREAM, CONNECT_ERROR)
    assert call.failure.answer.h2 == CONNECT_ERROR
    assert rig.changes == [(True, 0)]


def test_behind_its_last_byte_an_endpoint_may_reset(rig: Rig) -> None:
    call = rig.call()
    rig.endpoint.shutdown(socket.SHUT_WR)
    rig.turn()
    assert not call.done
    rig.endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    rig.endpoint.close()
    rig.client.push(b"into the void", 13, False)
    rig.turn()
    assert (call.done, call.failure) == (True, None)


@pytest.mark.parametrize("how", ["drain", "close"])
def test_one_that_is_not_wanted_ends_as_it_should(rig: Rig, how: str) -> None:
    getattr(rig.session, how)()
    rig.turn()
    assert (rig.session.closed, rig.session.free, rig.changes) == (True, 0, [(True, 0)])
    assert rig.endpoint.recv(1) == b""
    getattr(rig.session, how)()  # again
    assert rig.changes == [(True, 0)]


def test_draining_lets_a_tunnel_end_and_closing_does_not(rig: Rig) -> None:
    call = rig.call()
    rig.session.drain()
    assert (rig.session.closed, rig.session.draining, call.done) == (False, True, False)
    rig.session.close()
    assert call.failure is not None
    assert (call.failure.kind, call.failure.blame) == (Kind.RESET, Blame.UPSTREAM)
    with pytest.raises(ConnectionResetError):
        rig.endpoint.recv(1)


def test_an_endpoint_that_takes_an_unused_connection_back(rig: Rig) -> None:
    rig.endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    rig.endpoint.close()
    rig.turn()
    assert (rig.session.closed, rig.session.free, rig.changes) == (True, 0, [(True, 0)])


def test_the_pool_of_tunnels_goes_by_the_other_ones_settings() -> None:
    http = for_tunnels(PoolSettings(per_connection=1, max_connections=7, min_size=3, connect_timeout=0.5))
    assert (http.max_connections, http.min_size, http.connect_timeout, http.surplus_idle) == (7, 0, 0.5, SPARE)
    h2 = for_tunnels(PoolSettings(per_connection=100, max_connections=10))
    assert (h2.per_connection, h2.max_connections) == (1, MAX_TUNNELS)
