"""Tunnels whose connections speak TLS: a client's, an endpoint's, or both; and half-closes through them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
from wsproto.utilities import generate_accept_token

from tests.e2e.conftest import port_of
from tests.e2e.test_websocket import EXTENDED, KEY, H2Pipe, Pipe, everything, head_of
from tests.support import h2peer
from tests.support.certs import Pki

ASK = b"GET /chat HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: " + KEY + b"\r\n\r\n"


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def yaml(port: int, pki: Pki, *, client: str = "", tunnels: str = "websocket, connect") -> str:
    cert, key = pki.issue("router.test")
    return f"""
routers:
- protocol: http
  label: test
  dtab: /svc => /$/inet/127.0.0.1/{port}
  client: {{{client}}}
  servers:
  - port: 0
    tunnels: [{tunnels}]
    tls: {{certPath: {cert}, keyPath: {key}}}
"""


async def open_tls(port: int, pki: Pki, *alpn: str) -> trio.SSLStream[trio.SocketStream]:
    raw = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(raw, pki.client(alpn), server_hostname="router.test")
    await stream.do_handshake()
    return stream


async def accept(listener: trio.SocketListener, context: ssl.SSLContext | None) -> Any:
    """What an endpoint has accepted, after its handshake."""
    raw = await listener.accept()
    if context is None:
        return raw
    stream = trio.SSLStream(raw, context, server_side=True)
    await stream.do_handshake()
    return stream


async def settled(worker: Any) -> dict[str, float]:
    while any(value for name, value in worker.metrics.flat().items() if name.endswith("/pending")):
        await trio.sleep(0.001)
    flat: dict[str, float] = worker.metrics.flat()
    return flat


@pytest.mark.parametrize("front", ["http", "h2"])
@pytest.mark.parametrize("secure", [False, True])
async def test_a_websocket(start: Any, listen: Any, nursery: Any, pki: Pki, front: str, secure: bool) -> None:
    listener, port = await listen()
    tls = f"tls: {{commonName: web, trustCerts: [{pki.ca}]}}" if secure else ""
    context = pki.server("web") if secure else None
    async with start(yaml(port, pki, client=tls)) as worker:
        with trio.fail_after(10):
            stream: Any = await open_tls(port_of(worker), pki, *(["h2"] if front == "h2" else []))
            if front == "http":
                await stream.send_all(ASK)
            else:
                peer = h2peer.Peer(stream, client=True)
                nursery.start_soon(peer.run)
                while peer.conn.remote_settings.enable_connect_protocol != 1:
                    await trio.sleep(0.001)
                client: Any = H2Pipe(peer, await peer.start(EXTENDED, end=False))
            endpoint = Pipe(await accept(listener, context))
            head, _ = await head_of(endpoint.stream)
            key = next(line for line in head.splitlines() if line.startswith(b"sec-websocket-key: ")).partition(b": ")[2]
            await endpoint.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                + generate_accept_token(key)
                + b"\r\n\r\nhi"
            )
            if front == "http":
                client = Pipe(stream, *await head_of(stream))
                assert client.head.startswith(b"HTTP/1.1 101 ")
            assert await client.receive() == b"hi"
            await client.send(b"hello")
            assert await endpoint.receive() == b"hello"
            big = bytes(range(256)) * 4096
            nursery.start_soon(endpoint.send, big)
            got = b""
            while len(got) < len(big):
                got += await client.receive()
            assert got == big
            await trio.aclose_forcefully(endpoint.stream) if secure else await endpoint.aclose()
            assert await everything(client) == b""
            await trio.aclose_forcefully(stream)
            flat = await settled(worker)
            assert flat["rt/test/service/svc/web/status/101"] == 1


@pytest.mark.parametrize("front", ["http", "h2"])
async def test_an_endpoint_ends_its_half_and_the_client_goes_on(
    start: Any, listen: Any, nursery: Any, pki: Pki, front: str
) -> None:
    """Over TLS the end is a close_notify, behind which the other direction is as good as before (RFC 8446 §6.1)."""
    listener, port = await listen()
    async with start(yaml(port, pki)) as worker:
        with trio.fail_after(10):
            stream: Any = await open_tls(port_of(worker), pki, *(["h2"] if front == "h2" else []))
            if front == "http":
                await stream.send_all(b"CONNECT web:25 HTTP/1.1\r\nhost: web:25\r\n\r\n")
                client: Any = Pipe(stream, *await head_of(stream))
            else:
                peer = h2peer.Peer(stream, client=True)
                nursery.start_soon(peer.run)
                client = H2Pipe(peer, await peer.start([(b":method", b"CONNECT"), (b":authority", b"web:25")], end=False))
            endpoint = Pipe(await listener.accept())
            await endpoint.send(b"the end")
            await endpoint.finish()
            assert await everything(client) == b"the end"
            await client.send(b"not mine")
            assert await endpoint.receive() == b"not mine"
            await client.send(b", nor this")
            assert await endpoint.receive() == b", nor this"
            if front == "h2":
                await client.finish()
                assert await endpoint.receive() == b""
                assert (await settled(worker))["rt/test/service/svc/web:25/success"] == 1
            await trio.aclose_forcefully(stream)
            await settled(worker)
            await endpoint.aclose()
