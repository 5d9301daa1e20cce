"""Pools and sessions end to end: idle and life times, limits, stale connections, silent peers."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.settings
import hpack
import pytest
import trio
import trio.testing
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame

from protocols.http1 import server_watch
from tests.support import h1, h2peer

KINDS = ["http", "h2", "grpc"]
GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
OK: h2peer.Answer = ([(b":status", b"200"), (b"content-type", b"application/grpc")], b"", [(b"grpc-status", b"0")])


def yaml(protocol: str, ports: list[int], client: str = "", server: str = "") -> str:
    branches = " & ".join(f"/$/inet/127.0.0.1/{port}" for port in ports)
    return f"""
routers:
- protocol: {protocol}
  label: test
  dtab: /svc => {branches}
  service:
    totalTimeoutMs: 5000
  client: {{{client}}}
  servers:
  - port: 0
    {server}
"""


def counted(worker: Any, port: int) -> dict[str, float]:
    """What the client of that port counts."""
    prefix = f"rt/test/client/$/inet/127.0.0.1/{port}/"
    return {name.removeprefix(prefix): value for name, value in worker.metrics.flat().items() if name.startswith(prefix)}


def served(worker: Any, name: str) -> float:
    """What the server counts."""
    host, port = worker.addresses[0][1:]
    value: float = worker.metrics.flat()[f"rt/test/server/{host}/{port}/{name}"]
    return value


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.002)


class Front:
    """A client's connection to the router."""

    def __init__(self, stream: trio.SocketStream, protocol: str, nursery: trio.Nursery) -> None:
        self.stream = stream
        self.h1 = h1.Client(stream) if protocol == "http" else None
        if self.h1 is None:
            self.peer = h2peer.Peer(stream, client=True)
            nursery.start_soon(self.peer.run)

    async def ask(self, method: str = "GET", path: str = "/acme.S/M", unreachable: bool = False) -> int:
        """The status of one call; gRPC's UNAVAILABLE is told as 502 where it is expected."""
        with trio.fail_after(5):
            if self.h1 is not None:
                return (await self.h1.request(method, path, "web", [], b"x" if method == "POST" else b""))[0]
            message = await self.peer.request(path, "web", GRPC, b"x" if method == "POST" else b"")
            if unreachable:
                return 502 if message.get(b"grpc-status") == b"14" else 0
            assert message.get(b"grpc-status") in (None, b"0"), message
            return int(message.get(b":status") or b"0")


@asynccontextmanager
async def fronts(worker: Any, protocol: str, nursery: trio.Nursery, count: int = 1) -> AsyncIterator[list[Front]]:
    streams = [await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]) for _ in range(count)]
    try:
        yield [Front(stream, protocol, nursery) for stream in streams]
    finally:
        for stream in streams:
            await stream.aclose()


async def backend(protocol: str, listener: trio.SocketListener, peers: list[Any] | None = None) -> None:
    if protocol == "http":
        await h1.serve(listener, lambda request, body: (200, [], b"ok"))
    else:
        await h2peer.serve(listener, lambda message: OK, peers)


# -- idle and life times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["idleTimeMs", "lifeTimeMs"])
@pytest.mark.parametrize("protocol", KINDS)
async def test_client_sessions_end(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, protocol: str, limit: str
) -> None:
    listener, port = await listen()
    nursery.start_soon(backend, protocol, listener)
    async with (
        start(yaml(protocol, [port], f"clientSession: {{{limit}: 60}}")) as worker,
        fronts(worker, protocol, nursery) as (front,),
    ):
        assert await front.ask() == 200
        assert counted(worker, port)["connections"] == 1
        await until(lambda: counted(worker, port)["connections"] == 0)
        assert counted(worker, port)["expired/idle" if limit == "idleTimeMs" else "expired/lifetime"] == 1
        assert await front.ask("POST") == 200
        assert (counted(worker, port)["connects"], counted(worker, port)["failures"]) == (2, 0)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("limit", ["idleTimeMs", "lifeTimeMs"])
async def test_http_server_sessions_end(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(server_watch, "LAST_CALL", 0.02)
    listener, port = await listen()
    nursery.start_soon(backend, "http", listener)
    async with (
        start(yaml("http", [port], server=f"serverSession: {{{limit}: 60}}")) as worker,
        fronts(worker, "http", nursery) as (front,),
    ):
        assert await front.ask() == 200
        assert served(worker, "connections") == 1
        await until(lambda: served(worker, "connections") == 0)
        assert served(worker, "expired/idle" if limit == "idleTimeMs" else "expired/lifetime") == 1
        assert await front.stream.receive_some(1) == b""
    nursery.cancel_scope.cancel()


class Raw:
    """A client that goes on after a GOAWAY, which the h2 library's does not."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.data = b""
        self.encoder = hpack.Encoder()

    async def open(self) -> None:
        await self.stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())

    async def ask(self, stream_id: int) -> None:
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/acme.S/M"), (":authority", "web")]
        block = self.encoder.encode(fields)
        await self.stream.send_all(HeadersFrame(stream_id, block, flags=["END_HEADERS", "END_STREAM"]).serialize())

    async def frame(self) -> Frame | None:
        """The next frame; None at the end."""
        while True:
            if len(self.data) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(self.data[:9]))
                if len(self.data) >= 9 + length:
                    frame.parse_body(memoryview(self.data[9 : 9 + length]))
                    self.data = self.data[9 + length :]
                    return frame
            more = await self.stream.receive_some(65536)
            if not more:
                return None
            self.data += more


@pytest.mark.parametrize("limit", ["idleTimeMs", "lifeTimeMs"])
@pytest.mark.parametrize("protocol", ["h2", "grpc"])
async def test_h2_server_sessions_end_in_two_steps(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, protocol: str, limit: str
) -> None:
    """A request that was on its way when the first GOAWAY came is answered."""
    listener, port = await listen()
    nursery.start_soon(backend, protocol, listener)
    text = yaml(protocol, [port], server=f"serverSession: {{{limit}: 60}}")
    async with start(text) as worker, await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]) as stream:
        client = Raw(stream)
        await client.open()
        await client.ask(1)
        ends, answered = [], []
        with trio.fail_after(5):
            while (frame := await client.frame()) is not None:
                if isinstance(frame, GoAwayFrame):
                    ends.append((frame.last_stream_id, frame.error_code, frame.additional_data))
                    if len(ends) == 1:
                        await client.ask(3)
                elif isinstance(frame, PingFrame):
                    await stream.send_all(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())
                elif "END_STREAM" in frame.flags:
                    answered.append(frame.stream_id)
        why = b"max_idle" if limit == "idleTimeMs" else b"max_age"
        assert ends == [(2**31 - 1, 0, why), (3, 0, b"drain")]
        assert answered == [1, 3]
        await stream.aclose()
        await until(lambda: served(worker, "connections") == 0)
        assert served(worker, "expired/idle" if limit == "idleTimeMs" else "expired/lifetime") == 1
    nursery.cancel_scope.cancel()


async def test_an_http_client_is_told_before_its_connection_ends_of_age(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery
) -> None:
    listener, port = await listen()
    nursery.start_soon(backend, "http", listener)
    async with start(yaml("http", [port], server="serverSession: {lifeTimeMs: 40}")) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2])
        client, told = h1.Client(stream), 0
        with trio.fail_after(5):
            for _ in range(10_000):  # back to back, so that age comes within an exchange or between two
                status, headers, body = await client.request("GET", "/", "web")
                assert (status, body) == (200, b"ok")
                if headers.get(b"connection") == b"close":
                    told += 1
                    break
                if served(worker, "expired/lifetime"):
                    assert served(worker, "connections") == 1
        assert told == 1
        assert await stream.receive_some(1) == b""
        await stream.aclose()
    nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", KINDS)
async def test_no_exchange_is_lost_to_expiry(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, protocol: str
) -> None:
    listener, port = await listen()
    nursery.start_soon(backend, protocol, listener)
    async with (
        start(yaml(protocol, [port], "clientSession: {idleTimeMs: 4, lifeTimeMs: 15}")) as worker,
        fronts(worker, protocol, nursery, 4) as made,
    ):

        async def many(front: Front) -> None:
            for at in range(40):
                assert await front.ask("POST" if at % 2 else "GET") == 200
                await trio.sleep(0.004)

        async with trio.open_nursery() as group:
            for front in made:
                group.start_soon(many, front)
        seen = counted(worker, port)
        assert (seen["success"], seen["failures"]) == (160, 0)
        assert seen["expired/lifetime"] + seen["expired/idle"] >= 5
    nursery.cancel_scope.cancel()


# -- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["h2", "grpc"])
async def test_a_stream_limit_of_one_and_fifteen_calls(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, protocol: str
) -> None:
    async def connection(stream: trio.SocketStream) -> None:
        peer = h2peer.Peer(stream, client=False, handler=lambda message: OK)
        peer.conn.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        await peer.run()

    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, connection, [listener])
    text = yaml(protocol, [port], "hostConnectionPool: {maxSize: 3, idleTimeMs: 40, minSize: 1}")
    async with start(text) as worker, fronts(worker, protocol, nursery) as (front,):
        statuses: list[int] = []

        async def one() -> None:
            statuses.append(await front.ask("POST"))

        async with trio.open_nursery() as group:
            for _ in range(15):
                group.start_soon(one)
        assert statuses == [200] * 15
        seen = counted(worker, port)
        assert (seen["failures"], seen["retries/requeues"]) == (0, 0)
        assert 1 <= seen["connects"] <= 3
        assert seen["pool_num_waited"] >= 1
        await until(lambda: counted(worker, port)["pool_size"] == 1)  # the surplus goes
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("protocol", ["h2", "grpc"])
async def test_a_limit_that_falls_to_nothing_makes_calls_wait_until_it_rises(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, protocol: str
) -> None:
    peers: list[h2peer.Peer] = []
    listener, port = await listen()
    nursery.start_soon(backend, protocol, listener, peers)
    async with (
        start(yaml(protocol, [port], "hostConnectionPool: {maxSize: 1}")) as worker,
        fronts(worker, protocol, nursery) as (front,),
    ):
        assert await front.ask() == 200
        limit = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
        peers[0].conn.update_settings({limit: 0})
        await peers[0].flush()
        await until(lambda: any(type(event).__name__ == "SettingsAcknowledged" for event in peers[0].events[2:]))
        statuses: list[int] = []

        async def one() -> None:
            statuses.append(await front.ask("POST"))

        async with trio.open_nursery() as group:
            for _ in range(3):
                group.start_soon(one)
            await until(lambda: counted(worker, port)["pool_waiters"] == 3)
            assert statuses == []
            peers[0].conn.update_settings({limit: 2})
            await peers[0].flush()
        assert statuses == [200] * 3
        assert (counted(worker, port)["connects"], counted(worker, port)["failures"]) == (1, 0)
    nursery.cancel_scope.cancel()


async def test_http_connections_and_waiters_are_bounded(start: Any, listen: Callable[[], Any], nursery: trio.Nursery) -> None:
    release = trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        while await stream.receive_some(65536):
            await release.wait()
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, slow, [listener])
    text = yaml("http", [port], "hostConnectionPool: {maxSize: 2, maxWaiters: 1}, failureAccrual: {kind: none}")
    async with start(text) as worker, fronts(worker, "http", nursery, 6) as made:
        statuses: list[int] = []

        async def one(front: Front) -> None:
            statuses.append(await front.ask())

        async with trio.open_nursery() as group:
            group.start_soon(one, made[0])
            await until(lambda: counted(worker, port).get("connections") == 1)
            group.start_soon(one, made[1])
            await until(lambda: counted(worker, port)["connections"] == 2)
            for front in made[2:]:
                group.start_soon(one, front)
            await until(lambda: len(statuses) == 3)
            assert statuses == [503] * 3
            seen = counted(worker, port)
            assert (seen["pool_size"], seen["pool_waiters"], seen["pool_num_too_many_waiters"]) == (2, 1, 3)
            release.set()
        assert statuses == [503] * 3 + [200] * 3
        assert counted(worker, port)["connects"] == 2
    nursery.cancel_scope.cancel()


# -- connecting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", KINDS)
async def test_connect_timeout(start: Any, nursery: trio.Nursery, protocol: str) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):  # a queue that is full: further connections are neither accepted nor refused
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        async with start(yaml(protocol, [port], "connectTimeoutMs: 60")) as worker:
            async with fronts(worker, protocol, nursery) as (front,):
                assert await front.ask("POST", unreachable=True) == 502
            seen = counted(worker, port)
            assert seen["connect_failures"] == 1
            assert 60 <= seen["failed_connect_latency_ms.sum"] < 1000
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("protocol", KINDS)
async def test_a_backend_that_restarts_costs_no_exchange_and_meets_no_herd(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, protocol: str
) -> None:
    """All its connections end while they are idle; at once many requests come, POSTs too."""
    streams: list[trio.SocketStream] = []

    async def serve(stream: trio.SocketStream) -> None:
        streams.append(stream)
        if protocol == "http":
            await h1._connection(stream, lambda request, body: (200, [], b"ok"))
        else:
            await h2peer.Peer(stream, client=False, handler=lambda message: OK).run()

    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    async with start(yaml(protocol, [port])) as worker, fronts(worker, protocol, nursery, 8) as made:
        statuses: list[int] = []

        async def one(front: Front) -> None:
            statuses.append(await front.ask("POST"))

        for _ in range(6):
            async with trio.open_nursery() as group:
                for front in made:
                    group.start_soon(one, front)
            for stream in streams:
                stream.socket.shutdown(socket.SHUT_RDWR)  # no turn of the poller sees it before the next requests
            streams.clear()
        assert statuses == [200] * 48
        assert counted(worker, port)["failures"] == 0
    nursery.cancel_scope.cancel()


# -- silence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["h2", "grpc"])
async def test_a_peer_that_vanished_is_found_out_by_ping(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, protocol: str
) -> None:
    """It answers, then neither reads nor closes any more; a second one does."""
    stopped, connections = trio.Event(), [0]

    async def serve(stream: trio.SocketStream) -> None:
        connections[0] += 1
        if connections[0] > 1:
            await h2peer.Peer(stream, client=False, handler=lambda message: OK).run()
            return
        peer = h2peer.Peer(stream, client=False, handler=lambda message: OK)
        with trio.CancelScope() as scope:

            async def stop() -> None:
                await stopped.wait()
                scope.cancel()

            nursery.start_soon(stop)
            await peer.run()
        await trio.sleep_forever()

    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    text = yaml(protocol, [port], "keepalive: {timeMs: 100, timeoutMs: 40}")
    async with start(text) as worker, fronts(worker, protocol, nursery) as (front,):
        assert await front.ask("POST") == 200
        stopped.set()
        await trio.testing.wait_all_tasks_blocked(0.001)
        message = await front.peer.request("/acme.S/M", "web", GRPC, b"x")
        if protocol == "grpc":
            assert (message.get(b":status"), message.get(b"grpc-status")) == (b"200", b"14")
        assert await front.ask("POST") == 200  # over a new connection
        assert worker.metrics.flat()["rt/test/client/keepalive/deaths"] == 1
        assert [event.name for event in worker.host.events.recent] == ["session_dead"]
        assert counted(worker, port)["connects"] == 2
    nursery.cancel_scope.cancel()
