"""What a pool may rely on: the sessions of every protocol, against real peers over loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from protocols.wire.poller import Poller
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.stale import StaleConnection
from router.spi import ClientContext, Session
from tests.contracts.conftest import REGISTRY
from tests.support import h1, h2peer
from tests.support.fakes import Call

PROTOCOLS = REGISTRY.kinds("protocol")


@attrs.define
class Rig:
    """A session to a backend that answers ``/echo`` and stays silent on anything else."""

    host: Host
    session: Session
    changes: list[tuple[bool, int]]
    endpoint: Any

    def call(self, path: bytes = b"/echo", method: bytes = b"GET") -> Call:
        return Call(self.host, self.session.conduct, RequestHead(method, b"http", b"web", path))


async def over(call: Call) -> Call:
    with trio.fail_after(2):
        while not call.done:
            await trio.testing.wait_all_tasks_blocked()
            await trio.lowlevel.checkpoint()
    return call


async def _http(stream: trio.SocketStream) -> None:
    listener = _One(stream)
    await h1._connection(listener, lambda request, body: (200, [], b"hello"))  # type: ignore[arg-type]


class _One:
    """A stream whose requests for anything but /echo are never seen by the server behind it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def receive_some(self, size: int) -> bytes:
        data = await self.stream.receive_some(size)
        if data and b" /echo " not in data:
            await trio.sleep_forever()
        return bytes(data)

    async def send_all(self, data: bytes) -> None:
        await self.stream.send_all(data)


async def _h2(stream: trio.SocketStream) -> None:
    def answer(message: h2peer.Message) -> Any:
        return ([(b":status", b"200")], b"hello", []) if message.get(b":path") == b"/echo" else None

    await h2peer.Peer(stream, client=False, handler=answer).run()


@asynccontextmanager
async def rig(kind: str) -> AsyncIterator[Rig]:
    protocol = REGISTRY.protocol(kind)
    ends: list[trio.SocketStream] = []

    async def serve(stream: trio.SocketStream) -> None:
        ends.append(stream)
        await (_http if kind == "http" else _h2)(stream)

    poller: Poller | None = None
    try:
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            host = Host(nursery)
            poller = Poller(host.crashed)
            nursery.start_soon(poller.run)
            nursery.start_soon(host.timers.run)
            connect = protocol.connect(protocol.client_config(), ClientContext(host, poller, Metrics()))
            session = await connect("127.0.0.1", listener.socket.getsockname()[1])
            changes: list[tuple[bool, int]] = []
            session.changed = lambda one: changes.append((one.closed, one.free))
            while not ends:
                await trio.lowlevel.checkpoint()
            yield Rig(host, session, changes, ends[0])
            assert not poller._turn.running
            poller.abort_all()
            nursery.cancel_scope.cancel()
    finally:
        if poller is not None:
            poller.close()


@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_exchanges_one_after_the_other(kind: str) -> None:
    async with rig(kind) as made:
        for _ in range(3):
            assert made.session.free >= 1
            free = made.session.free
            call = made.call()
            assert made.session.free == free - 1
            await over(call)
            assert call.failure is None
            assert (call.reply.head.status, call.reply.body) == (200, b"hello")  # type: ignore[union-attr]
            assert call.exchange.complete
            assert made.session.free == free
        assert all(not closed and free for closed, free in made.changes)


@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_it_says_when_it_can_take_more(kind: str) -> None:
    async with rig(kind) as made:
        calls = [made.call() for _ in range(min(made.session.free, 200))]
        assert made.session.free == 0
        assert not made.changes
        for call in calls:
            await over(call)
            assert call.failure is None
        assert made.changes[0] == (False, 1)
        assert made.session.free >= len(calls)


@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_draining_finishes_what_runs_and_takes_nothing_new(kind: str) -> None:
    async with rig(kind) as made:
        call = made.call()
        made.session.drain()
        assert made.session.free == 0
        assert not made.session.closed
        await over(call)
        assert call.failure is None
        with trio.fail_after(2):
            while not made.session.closed:
                await trio.lowlevel.checkpoint()
        assert made.changes[-1] == (True, 0)


@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_an_idle_one_that_drains_is_closed(kind: str) -> None:
    async with rig(kind) as made:
        made.session.drain()
        assert made.session.closed
        assert made.changes[-1] == (True, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_closing_fails_what_runs(kind: str) -> None:
    async with rig(kind) as made:
        call = made.call(b"/silence")
        await trio.testing.wait_all_tasks_blocked()
        made.session.close()
        await over(call)
        assert call.failure is not None
        assert (call.failure.kind, call.failure.blame) == (Kind.RESET, Blame.UPSTREAM)
        assert made.changes == [(True, 0)]


@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_an_endpoint_that_goes_away_fails_what_runs(kind: str) -> None:
    async with rig(kind) as made:
        call = made.call(b"/silence")
        await trio.testing.wait_all_tasks_blocked()
        await made.endpoint.aclose()
        await over(call)
        assert call.failure is not None
        assert (call.failure.kind, call.failure.blame) == (Kind.RESET, Blame.UPSTREAM)
        assert made.session.closed
        assert made.session.free == 0


@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_an_idle_connection_that_the_endpoint_closes_is_told(kind: str) -> None:
    async with rig(kind) as made:
        await made.endpoint.aclose()
        with trio.fail_after(2):
            while not made.session.closed:
                await trio.lowlevel.checkpoint()
        assert made.changes == [(True, 0)]


@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_a_cancelled_exchange_ends_at_once_and_gives_its_place_back(kind: str) -> None:
    async with rig(kind) as made:
        free = made.session.free
        call = made.call(b"/silence")
        call.strand.cancel(Failure(Kind.DEADLINE, "as told"))
        assert call.done
        assert call.failure is not None
        assert call.failure.kind is Kind.DEADLINE
        assert made.session.closed or made.session.free == free


@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_it_says_what_is_under_way_and_that_something_was(kind: str) -> None:
    async with rig(kind) as made:
        assert (made.session.active, made.session.draining) == (0, False)
        begun = made.session.begun
        call = made.call()
        assert made.session.active == 1
        assert made.session.begun > begun
        await over(call)
        assert made.session.active == 0
        made.session.drain()
        assert made.session.draining


# -- an endpoint that closes while a request is given to it ----------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_a_request_that_never_left_can_be_repeated_and_never_leaves(kind: str, method: bytes) -> None:
    async with rig(kind) as made:
        await over(made.call())
        made.endpoint.socket.shutdown(1)  # its half only: it could still read
        call = made.call(method=method)
        await over(call)
        assert isinstance(call.failure, StaleConnection)
        assert not call.failure.sent
        assert made.session.closed
        await trio.testing.wait_all_tasks_blocked()
        assert made.changes[-1] == (True, 0)


@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_the_first_request_that_never_left_is_retryable_but_its_connection_is_not_called_stale(kind: str) -> None:
    async with rig(kind) as made:
        made.endpoint.socket.shutdown(1)
        call = made.call()
        await over(call)
        assert call.failure is not None
        assert not isinstance(call.failure, StaleConnection)
        assert (call.failure.kind, call.failure.retryable) == (Kind.RESET, True)


@pytest.mark.parametrize(("method", "stale"), [(b"GET", True), (b"HEAD", True), (b"DELETE", False), (b"POST", False)])
@pytest.mark.parametrize("kind", PROTOCOLS)
async def test_what_may_have_arrived_can_be_repeated_where_that_is_safe(kind: str, method: bytes, stale: bool) -> None:
    async with rig(kind) as made:
        await over(made.call())
        call = made.call(b"/silence", method)
        await trio.testing.wait_all_tasks_blocked()
        await made.endpoint.aclose()
        await over(call)
        assert call.failure is not None
        assert (isinstance(call.failure, StaleConnection), call.failure.retryable) == (stale, stale)
        if isinstance(call.failure, StaleConnection):
            assert call.failure.sent
