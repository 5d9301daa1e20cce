"""WebSockets that are not opened, that end before their time, or that are slow."""

from __future__ import annotations

from typing import Any

import h2.events
import h2.settings
import pytest
import trio

from tests.e2e.conftest import port_of
from tests.e2e.test_websocket import ASK, EXTENDED, KEY, everything, head_of, rig, yaml
from tests.support import h1, h2peer

HANDSHAKE = ASK + b"sec-websocket-key: " + KEY + b"\r\n\r\n"


def seen(request: Any, body: bytes) -> Any:
    status = 426 if b"refuse" in request.target else 200
    return status, [], request.target + b"\n" + b"\n".join([name for name, _ in request.headers])


async def answers(worker: Any, data: bytes) -> bytes:
    """All that a client gets for ``data`` until the connection closes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
    await stream.send_all(data)
    got = b""
    while more := await stream.receive_some(65536):
        got += more
    await stream.aclose()
    return got


@pytest.mark.parametrize(
    "data",
    [
        HANDSHAKE.replace(b"GET", b"POST"),
        HANDSHAKE.replace(b"WebSocket", b"tls/1.3"),
        HANDSHAKE.replace(b"keep-alive, Upgrade", b"keep-alive"),
        HANDSHAKE.replace(KEY, b"short"),
        HANDSHAKE.replace(KEY, KEY + b"\r\nsec-websocket-key: " + KEY),
        HANDSHAKE.replace(b"host", b"content-length: 1\r\nhost") + b"x",
        HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_what_asks_for_none_is_a_request_without_upgrade(start: Any, listen: Any, nursery: Any, data: bytes) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml(port)) as worker:
        got = await answers(worker, data.replace(b"keep-alive", b"close"))
        assert got.startswith(b"HTTP/1.1 200 ")
        assert b"\nupgrade" not in got
        assert b"\nconnection\n" not in got


async def test_where_the_configuration_allows_none(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml(port, server="tunnels: []")) as worker:
        got = await answers(worker, HANDSHAKE.replace(b"keep-alive", b"close"))
        assert got.startswith(b"HTTP/1.1 200 ")
        assert b"\nupgrade" not in got
        peer = h2peer.Peer(await trio.open_tcp_stream("127.0.0.1", port_of(worker)), client=True)
        nursery.start_soon(peer.run)
        assert (await peer.request("/")).get(b":status") == b"200"
        assert not peer.conn.remote_settings.enable_connect_protocol
        message = peer.messages[await peer.start(EXTENDED, end=False)]
        await message.done.wait()
        assert message.reset == 1
        await peer.stream.aclose()


@pytest.mark.parametrize("client", ["http", "h2"])
async def test_bytes_behind_a_request_that_is_refused_are_the_next_request(
    start: Any, listen: Any, nursery: trio.Nursery, client: str
) -> None:
    listener, port = await listen()
    if client == "http":
        nursery.start_soon(h1.serve, listener, seen)
    else:
        nursery.start_soon(trio.serve_listeners, _refusing, [listener])
    async with start(yaml(port, client)) as worker:
        follows = b"GET /next HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"
        got = await answers(worker, HANDSHAKE.replace(b"/chat", b"/refuse") + follows)
        first, _, second = got.partition(b"HTTP/1.1 200 ")
        assert first.startswith(b"HTTP/1.1 426 ")
        assert b"/refuse" in first
        assert b"/next" in second
        flat = worker.metrics.flat()
        assert (flat["rt/test/service/svc/web/requests"], flat["rt/test/service/svc/web/status/426"]) == (2, 1)


class Refusing(h2peer.Peer):
    """Announces tunnels and opens none."""

    async def _event(self, event: Any) -> None:
        await super()._event(event)
        if isinstance(event, h2.events.RequestReceived):
            message = self.messages[event.stream_id]
            status = b"200" if message.get(b":protocol") is None else b"426"
            await self.answer(event.stream_id, [(b":status", status)], message.get(b":path") or b"")


async def _refusing(stream: trio.SocketStream) -> None:
    peer = Refusing(stream, client=False)
    peer.conn.update_settings({h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
    await peer.run()


async def test_bytes_before_the_101_go_to_the_endpoint_behind_it(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    async with start(yaml(port)) as worker:
        client = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        nursery.start_soon(client.send_all, HANDSHAKE + b"GET /admin HTTP/1.1\r\n\r\n" + b"x" * 300_000)
        endpoint = await listener.accept()
        head, rest = await head_of(endpoint)
        with trio.move_on_after(0.05):
            rest += await endpoint.receive_some(65536)
        assert rest == b""
        key = next(line for line in head.splitlines() if line.startswith(b"sec-websocket-key: ")).partition(b": ")[2]
        await endpoint.send_all(_switching(key))
        got = b""
        with trio.fail_after(5):
            while len(got) < 300_000 + 23:
                got += await endpoint.receive_some(65536)
        assert got == b"GET /admin HTTP/1.1\r\n\r\n" + b"x" * 300_000
        await endpoint.aclose()
        assert (await head_of(client))[0].startswith(b"HTTP/1.1 101 ")
        assert await client.receive_some() == b""
        await client.aclose()
        while worker.metrics.flat()["rt/test/service/svc/web/pending"]:
            await trio.sleep(0.001)


def _switching(key: bytes, upgrade: bytes = b"websocket") -> bytes:
    from wsproto.utilities import generate_accept_token

    fields = b"upgrade: " + upgrade + b"\r\nconnection: upgrade\r\nsec-websocket-accept: " + generate_accept_token(key)
    return b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        _switching(b"another key"),
        _switching(KEY, b"h2c"),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_a_101_that_is_none_opens_nothing(start: Any, listen: Any, nursery: trio.Nursery, answer: bytes) -> None:
    listener, port = await listen()
    async with start(yaml(port)) as worker:
        client = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        await client.send_all(HANDSHAKE)
        endpoint = await listener.accept()
        await head_of(endpoint)
        await endpoint.send_all(answer + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        head, _ = await head_of(client)
        assert head.startswith(b"HTTP/1.1 502 ")
        for stream in (client, endpoint):
            await stream.aclose()


async def test_an_endpoint_of_http2_that_takes_none(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h2peer.serve, listener, lambda message: ([(b":status", b"200")], b"", []))
    async with start(yaml(port, "h2")) as worker:
        got = await answers(worker, HANDSHAKE + b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 501 ")
        assert b"RFC 8441" in got
        assert b"HTTP/1.1 200 " in got


async def test_connect_and_what_extends_it_otherwise(start: Any, nursery: trio.Nursery) -> None:
    async with start(yaml(1)) as worker:
        got = await answers(worker, b"CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 501 ")
        peer = h2peer.Peer(await trio.open_tcp_stream("127.0.0.1", port_of(worker)), client=True)
        nursery.start_soon(peer.run)
        while peer.conn.remote_settings.enable_connect_protocol != 1:
            await trio.sleep(0.001)
        other = [(name, b"connect-udp" if name == b":protocol" else value) for name, value in EXTENDED]
        named = [(name, b"connect" if name == b":protocol" else value) for name, value in EXTENDED]
        for fields in (other, named, [(b":method", b"CONNECT"), (b":authority", b"web:80")]):
            message = peer.messages[await peer.start(fields, end=False)]
            await message.done.wait()
            assert message.get(b":status") == b"501"
        await peer.stream.aclose()


@pytest.mark.parametrize("back", ["http", "h2"])
@pytest.mark.parametrize("front", ["http", "h2"])
async def test_a_client_that_is_gone_ends_it(start: Any, listen: Any, nursery: Any, front: str, back: str) -> None:
    async with rig(start, listen, nursery, front, back) as (open_one, worker, _):
        client, endpoint = await open_one()
        await client.aclose()
        if back == "h2" and front == "h2":
            await endpoint.message.done.wait()
            assert endpoint.message.reset == 8  # CANCEL (RFC 8441 §5)
        else:
            assert await everything(endpoint) == b""
        await endpoint.finish() if back == "http" or front == "http" else None
        while worker.metrics.flat()["rt/test/service/svc/web/pending"]:
            await trio.sleep(0.001)
        await endpoint.aclose()


@pytest.mark.parametrize("back", ["http", "h2"])
@pytest.mark.parametrize("front", ["http", "h2"])
async def test_an_endpoint_that_is_gone_ends_it(start: Any, listen: Any, nursery: Any, front: str, back: str) -> None:
    async with rig(start, listen, nursery, front, back) as (open_one, worker, _):
        client, endpoint = await open_one()
        assert await client.receive() == b"hi"
        await endpoint.aclose()
        assert await client.receive() == b""
        await client.aclose()
        while worker.metrics.flat()["rt/test/service/svc/web/pending"]:
            await trio.sleep(0.001)


@pytest.mark.parametrize("back", ["http", "h2"])
@pytest.mark.parametrize("front", ["http", "h2"])
async def test_a_slow_reader_stops_the_sender(start: Any, listen: Any, nursery: Any, front: str, back: str) -> None:
    async with rig(start, listen, nursery, front, back) as (open_one, _, _b):
        client, endpoint = await open_one()
        if back == "h2":
            endpoint.peer.conn.acknowledge_received_data = lambda length, stream: None
        sent = 0
        chunk = bytes(65536)
        with trio.move_on_after(0.1):
            while sent < 64 << 20:
                await client.send(chunk)
                sent += len(chunk)
        assert sent < 32 << 20  # what sockets, windows and the router hold at most
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("back", ["http", "h2"])
@pytest.mark.parametrize("front", ["http", "h2"])
async def test_draining_ends_it_within_the_grace(start: Any, listen: Any, nursery: Any, front: str, back: str) -> None:
    async with rig(start, listen, nursery, front, back) as (open_one, worker, _):
        client, endpoint = await open_one()
        assert await client.receive() == b"hi"
        with trio.fail_after(2):
            nursery.start_soon(worker.drain, 0.2)
            await client.send(b"still")
            assert await endpoint.receive() == b"still"
            assert await client.receive() == b""
            assert await everything(endpoint) == b""
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("front", ["http", "h2"])
async def test_an_idle_one_ends_by_its_limit(start: Any, listen: Any, nursery: Any, front: str) -> None:
    async with rig(start, listen, nursery, front, "http", server="serverSession: {idleTimeMs: 100}") as (open_one, worker, _):
        client, endpoint = await open_one()
        assert await client.receive() == b"hi"
        for _turn in range(6):  # it is not idle
            await trio.sleep(0.04)
            await endpoint.send(b"x")
            assert await client.receive() == b"x"
        assert await client.receive() == b""
        flat = worker.metrics.flat()
        assert flat[f"rt/test/server/127.0.0.1/{port_of(worker)}/expired/idle"] == 1
        await client.aclose()
        await endpoint.aclose()
