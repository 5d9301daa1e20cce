"""CONNECT through the router, over HTTP/1.1 and HTTP/2: opened, refused, ended, limited."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.conftest import port_of
from tests.e2e.test_websocket import H2Pipe, Pipe, everything, head_of
from tests.support import h1, h2peer
from tests.support.certs import Pki

FRONTS = ["http", "h2"]
ASK = b"CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\n"
SCOPE = "rt/test/service/svc/web:443"


def yaml(*ports: int, router: str = "http", server: str = "", client: str = "", more: str = "", allow: str = "connect") -> str:
    endpoints = " & ".join([f"/$/inet/127.0.0.1/{port}" for port in ports])
    return f"""
routers:
- protocol: {router}
  label: test
  identifier: {{kind: io.l5d.header.token}}
  dtab: |
    /svc/web:443 => {endpoints};
  client: {{{client}}}
  servers: [{{port: 0, tunnels: [{allow}], {server}}}]
{more}
"""


async def ask_h2(nursery: trio.Nursery, port: int, authority: bytes = b"web:443", *more: tuple[bytes, bytes]) -> H2Pipe:
    peer = h2peer.Peer(await trio.open_tcp_stream("127.0.0.1", port), client=True)
    nursery.start_soon(peer.run)
    return H2Pipe(peer, await peer.start([(b":method", b"CONNECT"), (b":authority", authority), *more], end=False))


async def answered(pipe: H2Pipe) -> bytes | None:
    while not pipe.message.headers and not pipe.message.done.is_set():
        await trio.sleep(0.001)
    return pipe.message.get(b":status")


async def over_http1(port: int, data: bytes) -> bytes:
    """All that a client gets for ``data`` until the connection closes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(data)
    with trio.fail_after(5):
        got = await everything(Pipe(stream))
    await stream.aclose()
    return got


@asynccontextmanager
async def rig(start: Any, listen: Any, nursery: trio.Nursery, front: str, **keys: Any) -> AsyncIterator[Any]:
    """(open a tunnel from the front, the worker). Opening returns both ends."""
    listener, port = await listen()
    async with start(yaml(port, **keys)) as worker:

        async def open_one() -> tuple[Any, Pipe]:
            if front == "http":
                stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
                await stream.send_all(ASK)
                client: Any = Pipe(stream, *await head_of(stream))
            else:
                client = await ask_h2(nursery, port_of(worker))
                assert await answered(client) == b"200"
            return client, Pipe(await listener.accept())

        with trio.fail_after(10):
            yield open_one, worker
            while worker.metrics.flat()[f"{SCOPE}/pending"]:
                await trio.sleep(0.001)


@pytest.mark.parametrize("front", FRONTS)
async def test_opened_used_and_ended(start: Any, listen: Any, nursery: trio.Nursery, front: str) -> None:
    async with rig(start, listen, nursery, front) as (open_one, worker):
        client, endpoint = await open_one()
        if front == "http":
            assert client.head.startswith(b"HTTP/1.1 200 ")
            names = {line.partition(b":")[0].lower() for line in client.head.splitlines()[1:]}
        else:
            names = {name for name, _ in client.message.headers}
        assert not names & {b"content-length", b"transfer-encoding", b"connection"}
        await client.send(b"GET / HTTP/1.1\r\n\r\n")  # nobody reads that as a request
        assert await endpoint.receive() == b"GET / HTTP/1.1\r\n\r\n"
        await client.finish()  # one direction; the other one goes on
        assert await endpoint.receive() == b""
        await endpoint.send(b"still here")
        assert await client.receive() == b"still here"
        assert worker.metrics.flat()[f"{SCOPE}/pending"] == 1
        await endpoint.finish()
        assert await client.receive() == b""
        while worker.metrics.flat()[f"{SCOPE}/pending"]:
            await trio.lowlevel.checkpoint()
        flat = worker.metrics.flat()
        assert (flat[f"{SCOPE}/requests"], flat[f"{SCOPE}/success"], flat[f"{SCOPE}/status/200"]) == (1, 1, 1)
        (name,) = [name for name in flat if name.endswith("/pool_size")]
        while worker.metrics.flat()[name]:
            await trio.lowlevel.checkpoint()
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("front", FRONTS)
async def test_much_goes_both_ways_at_once(start: Any, listen: Any, nursery: trio.Nursery, front: str) -> None:
    size = 3 << 20
    async with rig(start, listen, nursery, front, router="h2") as (open_one, _):
        client, endpoint = await open_one()

        async def send(pipe: Any, byte: bytes) -> None:
            await pipe.send(byte * size)
            await pipe.finish()

        nursery.start_soon(send, client, b"c")
        nursery.start_soon(send, endpoint, b"e")
        got: dict[str, bytes] = {}

        async def take(pipe: Any, who: str) -> None:
            got[who] = await everything(pipe)

        async with trio.open_nursery() as both:
            both.start_soon(take, client, "client")
            both.start_soon(take, endpoint, "endpoint")
        assert got == {"client": b"e" * size, "endpoint": b"c" * size}
        await client.aclose()
        await endpoint.aclose()


async def test_the_endpoint_may_speak_first_and_the_client_before_it_is_answered(start: Any, listen: Any) -> None:
    listener, port = await listen()
    async with start(yaml(port)) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        await stream.send_all(ASK + b"EHLO")
        endpoint = Pipe(await listener.accept())
        await endpoint.send(b"220 ready\r\n")
        client = Pipe(stream, *await head_of(stream))
        got = b""
        while got != b"220 ready\r\n":
            got += await client.receive()
        assert await endpoint.receive() == b"EHLO"
        await endpoint.aclose()
        assert await client.receive() == b""
        await client.aclose()
        while worker.metrics.flat()[f"{SCOPE}/pending"]:
            await trio.sleep(0.001)


@pytest.mark.parametrize("allow", ["", "websocket"])
async def test_not_where_it_is_not_allowed(start: Any, nursery: trio.Nursery, allow: str) -> None:
    async with start(yaml(1, allow=allow)) as worker:
        got = await over_http1(port_of(worker), ASK + b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 501 ")
        assert got.count(b"HTTP/1.1") == 1
        client = await ask_h2(nursery, port_of(worker))
        assert await answered(client) == b"501"
        await client.aclose()


async def test_what_the_dtab_does_not_name_cannot_be_reached(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    """Not even where the client brings a dtab, or a name, of its own."""
    listener, port = await listen()
    target = b"127.0.0.1:%d" % port
    override = b"/svc => /$/inet/127.0.0.1/%d" % port
    async with start(yaml(1)) as worker:
        for name in (b"l5d-dtab", b"l5d-ctx-dtab", b"dtab-local", b"l5d-name"):
            value = b"/$/inet/127.0.0.1/%d" % port if name == b"l5d-name" else override
            ask = b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b: %b\r\n\r\n" % (target, target, name, value)
            got = await over_http1(port_of(worker), ask + b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            assert got.startswith(b"HTTP/1.1 502 ")
            assert b"\r\nconnection: close\r\n" in got
            assert got.count(b"HTTP/1.1") == 1  # what follows a refused CONNECT is no request of ours
            client = await ask_h2(nursery, port_of(worker), target, (name, value))
            assert await answered(client) == b"502"
            await client.aclose()
        with trio.move_on_after(0.02):
            await listener.accept()
            raise AssertionError("an open proxy")


@pytest.mark.parametrize(
    "ask",
    [
        b"CONNECT web HTTP/1.1\r\nhost: web\r\n\r\n",
        b"CONNECT web: HTTP/1.1\r\nhost: web\r\n\r\n",
        b"CONNECT :443 HTTP/1.1\r\nhost: web\r\n\r\n",
        b"CONNECT web:0 HTTP/1.1\r\nhost: web\r\n\r\n",
        b"CONNECT web:65536 HTTP/1.1\r\nhost: web\r\n\r\n",
        b"CONNECT u@web:443 HTTP/1.1\r\nhost: web\r\n\r\n",
        b"CONNECT /path HTTP/1.1\r\nhost: web:443\r\n\r\n",
        b"CONNECT http://web:443/ HTTP/1.1\r\nhost: web:443\r\n\r\n",
        b"CONNECT web:443 HTTP/1.1\r\n\r\n",
        ASK[:-2] + b"content-length: 4\r\n\r\nbody",
        ASK[:-2] + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_connect(start: Any, ask: bytes) -> None:
    async with start(yaml(1)) as worker:
        assert (await over_http1(port_of(worker), ask)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("authority", [b"web", b":443", b"web:0", b"web:99999"])
async def test_what_is_no_connect_over_h2(start: Any, nursery: trio.Nursery, authority: bytes) -> None:
    async with start(yaml(1)) as worker:
        client = await ask_h2(nursery, port_of(worker), authority)
        await client.message.done.wait()
        assert client.message.reset == 1  # PROTOCOL_ERROR
        await client.aclose()


@pytest.mark.parametrize("front", FRONTS)
async def test_an_endpoint_that_cannot_be_reached(start: Any, nursery: trio.Nursery, front: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with start(yaml(free.getsockname()[1])) as worker:
            if front == "http":
                got = await over_http1(port_of(worker), ASK)
                assert got.startswith(b"HTTP/1.1 502 ")
                assert b"Unable to establish connection" in got
            else:
                client = await ask_h2(nursery, port_of(worker))
                assert await answered(client) == b"502"
                await client.aclose()
            flat = worker.metrics.flat()
            (failures,) = [value for name, value in flat.items() if name.endswith("/connect_failures")]
            assert failures >= 1
            assert (flat[f"{SCOPE}/requests"], flat[f"{SCOPE}/failures"]) == (1, 1)


async def test_another_endpoint_is_tried(start: Any, listen: Any, tmp_path: Path) -> None:
    listener, port = await listen()
    namer = f"namers: [{{kind: io.l5d.fs, rootDir: {tmp_path}}}]"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "tunnels").write_text(f"127.0.0.1 {free.getsockname()[1]}\n127.0.0.1 {port}\n")
        async with start(yaml(1, more=namer).replace("/$/inet/127.0.0.1/1", "/#/io.l5d.fs/tunnels")) as worker:
            for _ in range(8):
                stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
                await stream.send_all(ASK)
                head, _rest = await head_of(stream)
                assert head.startswith(b"HTTP/1.1 200 ")
                await (await listener.accept()).aclose()
                await stream.aclose()
            while worker.metrics.flat()[f"{SCOPE}/pending"]:
                await trio.sleep(0.001)
            assert worker.metrics.flat()["rt/test/client/#/io.l5d.fs/tunnels/connect_failures"] >= 1


@pytest.mark.parametrize("front", FRONTS)
async def test_limits_are_those_of_requests(start: Any, listen: Any, nursery: trio.Nursery, front: str) -> None:
    async with rig(start, listen, nursery, front, server="maxConcurrentRequests: 1") as (open_one, worker):
        client, endpoint = await open_one()
        assert (await over_http1(port_of(worker), ASK)).startswith(b"HTTP/1.1 503 ")
        await client.finish()
        await endpoint.finish()
        assert await client.receive() == b""
        while worker.metrics.flat()[f"{SCOPE}/pending"]:
            await trio.sleep(0.001)
        await client.aclose()
        await endpoint.aclose()
        client, endpoint = await open_one()
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("front", FRONTS)
async def test_an_endpoint_that_breaks_off(start: Any, listen: Any, nursery: trio.Nursery, front: str) -> None:
    async with rig(start, listen, nursery, front) as (open_one, worker):
        client, endpoint = await open_one()
        await client.send(b"x")
        assert await endpoint.receive() == b"x"
        endpoint.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await endpoint.aclose()
        if front == "h2":
            await client.message.done.wait()
            assert client.message.reset == 0xA  # CONNECT_ERROR (RFC 9113 §8.5)
        else:
            assert await client.receive() == b""
        await client.aclose()
        while worker.metrics.flat()[f"{SCOPE}/pending"]:
            await trio.sleep(0.001)
        assert worker.metrics.flat()[f"{SCOPE}/failures"] == 1


@pytest.mark.parametrize("front", FRONTS)
async def test_a_client_that_breaks_off(start: Any, listen: Any, nursery: trio.Nursery, front: str) -> None:
    async with rig(start, listen, nursery, front) as (open_one, _):
        client, endpoint = await open_one()
        if front == "h2":
            client.peer.conn.reset_stream(client.id, 8)
            await client.peer.flush()
        else:
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await client.aclose()
        with pytest.raises(trio.BrokenResourceError):  # RST, not FIN
            await endpoint.receive()
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("front", FRONTS)
async def test_a_slow_reader_stops_the_sender(start: Any, listen: Any, nursery: Any, front: str) -> None:
    async with rig(start, listen, nursery, front) as (open_one, _):
        client, endpoint = await open_one()
        for sender in (client, endpoint):
            if sender is endpoint and front == "h2":
                client.peer.conn.acknowledge_received_data = lambda length, stream: None
            sent = 0
            with trio.move_on_after(0.1):
                while sent < 64 << 20:
                    await sender.send(bytes(65536))
                    sent += 65536
            assert sent < 32 << 20  # what sockets, windows and the router hold at most
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("front", FRONTS)
async def test_an_idle_one_ends(start: Any, listen: Any, nursery: Any, front: str) -> None:
    async with rig(start, listen, nursery, front, server="serverSession: {idleTimeMs: 80}") as (open_one, worker):
        client, endpoint = await open_one()
        for _turn in range(5):  # it is not idle
            await trio.sleep(0.03)
            await endpoint.send(b"x")
            assert await client.receive() == b"x"
        assert await client.receive() == b""
        with pytest.raises(trio.BrokenResourceError):
            await endpoint.receive()
        if front == "h2":
            assert client.message.reset == 8  # CANCEL: only the stream; the connection is idle from now on
        assert worker.metrics.flat()[f"rt/test/server/127.0.0.1/{port_of(worker)}/expired/idle"] == 1
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("front", FRONTS)
async def test_one_ends_with_the_life_of_its_connection(start: Any, listen: Any, nursery: Any, front: str) -> None:
    async with rig(start, listen, nursery, front, server="serverSession: {lifeTimeMs: 80}") as (open_one, worker):
        client, endpoint = await open_one()
        assert await client.receive() == b""
        assert worker.metrics.flat()[f"rt/test/server/127.0.0.1/{port_of(worker)}/expired/lifetime"] == 1
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("front", FRONTS)
async def test_draining_ends_it_within_the_grace(start: Any, listen: Any, nursery: Any, front: str) -> None:
    async with rig(start, listen, nursery, front) as (open_one, worker):
        client, endpoint = await open_one()
        with trio.fail_after(2):
            nursery.start_soon(worker.drain, 0.2)
            await client.send(b"still")
            assert await endpoint.receive() == b"still"
            assert await client.receive() == b""
        await client.aclose()
        await endpoint.aclose()


@pytest.mark.parametrize("router", ["http", "h2"])
@pytest.mark.parametrize("classifier", ["io.l5d.http.retryableAll5XX", "io.l5d.h2.grpc.alwaysRetryable"])
async def test_classifiers_take_a_tunnel_that_went_well_for_a_success(
    start: Any, listen: Any, nursery: trio.Nursery, router: str, classifier: str
) -> None:
    if (router == "h2") is not ("h2" in classifier):
        return
    more = f"  service: {{responseClassifier: {{kind: {classifier}}}}}"
    async with rig(start, listen, nursery, "h2", router=router, more=more) as (open_one, worker):
        client, endpoint = await open_one()
        await endpoint.finish()
        assert await client.receive() == b""
        await client.finish()
        assert await endpoint.receive() == b""
        while worker.metrics.flat()[f"{SCOPE}/pending"]:
            await trio.sleep(0.001)
        assert worker.metrics.flat()[f"{SCOPE}/success"] == 1
        await client.aclose()
        await endpoint.aclose()


def seen(request: Any, body: bytes) -> Any:
    return 200, [], request.method + b" " + request.target + b" " + body


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("secure", [False, True])
async def test_curl_tunnels_http_and_https(
    start: Any, listen: Any, nursery: trio.Nursery, tmp_path: Path, secure: bool
) -> None:
    listener, port = await listen()
    pki = Pki(tmp_path)

    async def serve_tls(raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(raw, pki.server("web"), server_side=True, https_compatible=True)
        try:
            data = b""
            while b"\r\n\r\nhello" not in data:
                data += await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 17\r\n\r\nPOST /path hello\n")
            await stream.aclose()
        except (ssl.SSLError, trio.BrokenResourceError):  # pragma: no cover - would fail the client's side
            pass

    if secure:
        nursery.start_soon(trio.serve_listeners, serve_tls, [listener])
    else:
        nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml(port)) as worker:
        url = f"{'https' if secure else 'http'}://web:443/path"
        command = [
            "curl",
            "-sS",
            "--max-time",
            "5",
            "--proxytunnel",
            "--noproxy",
            "",
            "-x",
            f"http://127.0.0.1:{port_of(worker)}",
        ]
        run = await trio.run_process(
            [*command, "--cacert", str(pki.ca), "-d", "hello", url], capture_stdout=True, capture_stderr=True, check=False
        )
        assert run.stdout.strip() == b"POST /path hello", run.stderr
        while worker.metrics.flat()[f"{SCOPE}/pending"]:
            await trio.sleep(0.001)
