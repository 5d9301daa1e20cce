"""Servers that strangers reach: clearContext, addForwardedHeader, timestampHeader, maxCallDepth, the PROXY protocol."""

from __future__ import annotations

import shutil
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.conftest import port_of
from tests.support import h1, h2peer
from tests.support.certs import Pki

OK = [(b":status", b"200"), (b"content-type", b"text/plain"), (b"l5d-x", b"1")]
STRANGE = [("l5d-dtab", "/svc => /$/inet/127.0.0.1/1"), ("l5d-ctx-deadline", "1 2"), ("l5d-ctx-trace", "AAAA"), ("l5d-a", "b")]
LOOP = b"Maximum number of calls (2) has been exceeded. Please check for proxy loops."


def yaml(protocol: str, port: int, server: str) -> str:
    return f"""
routers:
- protocol: {protocol}
  label: test
  identifier: {{kind: io.l5d.header.token}}
  dtab: /svc => /$/inet/127.0.0.1/{port}
  servers: [{{port: 0, {server}}}]
"""


def fields(headers: Any) -> bytes:
    return b"\n".join([b"%b=%b" % field for field in headers])


async def serve(nursery: trio.Nursery, listen: Any, protocol: str) -> int:
    listener, port = await listen()
    if protocol == "http":
        nursery.start_soon(h1.serve, listener, lambda request, body: (200, [(b"l5d-x", b"1")], fields(request.headers)))
    else:
        nursery.start_soon(
            h2peer.serve, listener, lambda message: (OK, fields(message.headers), [(b"l5d-y", b"2"), (b"t", b"3")])
        )
    return int(port)


async def ask(
    nursery: trio.Nursery, protocol: str, port: int, headers: list[tuple[str, str]], first: bytes = b"", host: str = "web"
) -> tuple[int, dict[bytes, bytes], bytes]:
    """(status, headers with trailers, body) of one request; ``first`` is said before it."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    if first:
        await stream.send_all(first)
    try:
        if protocol == "http":
            return await h1.Client(stream).request("GET", "/", host, headers)
        peer = h2peer.Peer(stream, client=True)
        nursery.start_soon(peer.run)
        message = await peer.request("/", host, [(name.encode(), value.encode()) for name, value in headers])
        found = dict(message.headers + message.trailers)
        return int(found[b":status"]), found, message.body
    finally:
        await stream.aclose()


@pytest.mark.parametrize("protocol", ["http", "h2"])
async def test_clear_context(start: Any, listen: Any, nursery: trio.Nursery, protocol: str) -> None:
    port = await serve(nursery, listen, protocol)
    async with start(yaml(protocol, port, "clearContext: true")) as worker:
        status, headers, body = await ask(nursery, protocol, port_of(worker), [*STRANGE, ("x-forwarded-for", "203.0.113.9")])
        assert status == 200
        ours = {line.partition(b"=")[0] for line in body.split(b"\n") if line.startswith(b"l5d-")}
        assert ours == {b"l5d-dst-service", b"l5d-dst-client", b"l5d-dst-residual"}
        assert b"x-forwarded-for=203.0.113.9" in body.split(b"\n")
        assert not any(name.startswith(b"l5d-") for name in headers)
        assert worker.metrics.flat()[f"rt/test/server/127.0.0.1/{port_of(worker)}/success"] == 1


@pytest.mark.parametrize("protocol", ["http", "h2"])
@pytest.mark.parametrize(("headers", "status"), [([], 502), ([("via", "a, b, c")], 400)])
async def test_clear_context_of_errors(
    start: Any, nursery: trio.Nursery, protocol: str, headers: list[tuple[str, str]], status: int
) -> None:
    async with start(
        yaml(protocol, 1, "clearContext: true, maxCallDepth: 2").replace("/$/inet/127.0.0.1/1", "/$/nil")
    ) as worker:
        got, answer, body = await ask(nursery, protocol, port_of(worker), headers)
        assert (got, body) == (status, b"")
        assert not any(name.startswith(b"l5d-") or name == b"content-type" for name in answer)


@pytest.mark.parametrize("protocol", ["http", "h2"])
async def test_requests_that_came_by_too_often(start: Any, nursery: trio.Nursery, protocol: str) -> None:
    async with start(yaml(protocol, 1, "maxCallDepth: 2")) as worker:
        status, headers, body = await ask(nursery, protocol, port_of(worker), [("via", "hop1, hop2, hop3")])
        assert (status, body) == (400, LOOP)
        assert headers[b"l5d-err"].startswith(b"Maximum+number+of+calls+%282%29")


@pytest.mark.parametrize("protocol", ["http", "h2"])
async def test_forwarded_and_the_time_of_arrival(start: Any, listen: Any, nursery: trio.Nursery, protocol: str) -> None:
    port = await serve(nursery, listen, protocol)
    server = "timestampHeader: X-Request-Start, addForwardedHeader: {by: {kind: 'ip:port'}, for: {kind: ip}}"
    async with start(yaml(protocol, port, server)) as worker:
        _, _, body = await ask(nursery, protocol, port_of(worker), [("forwarded", "for=_x"), ("x-request-start", "7")])
        lines = dict(line.split(b"=", 1) for line in body.split(b"\n"))
        host = b"host" if protocol == "http" else b"authority"
        assert lines[b"forwarded"] == b'by="127.0.0.1:%d";for=127.0.0.1;%b=web;proto=http' % (port_of(worker), host)
        assert body.index(b"forwarded=for=_x") < body.index(b"forwarded=by=")
        assert abs(int(lines[b"x-request-start"]) - time.time() * 1000) < 60_000
        assert body.count(b"x-request-start=") == 1


V1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 7777 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\7\xc0\0\2\x08\x1e\x61\x01\xbb"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


@pytest.mark.parametrize("protocol", ["http", "h2"])
@pytest.mark.parametrize(("header", "who"), [(V1, b'"192.0.2.7:7777"'), (V2, b'"192.0.2.7:7777"'), (LOCAL, b'"127.0.0.1:')])
async def test_the_proxy_protocol_names_the_client(
    start: Any, listen: Any, nursery: trio.Nursery, protocol: str, header: bytes, who: bytes
) -> None:
    port = await serve(nursery, listen, protocol)
    server = "proxyProtocol: true, addForwardedHeader: {by: {kind: ip}, for: {kind: 'ip:port'}}"
    async with start(yaml(protocol, port, server)) as worker:
        status, _, body = await ask(nursery, protocol, port_of(worker), [], header)
        assert status == 200
        assert b";for=" + who in body
        with trio.fail_after(2):
            while worker.servers[0].connections:
                await trio.lowlevel.checkpoint()


async def test_the_header_comes_before_tls(start: Any, listen: Any, nursery: trio.Nursery, tmp_path: Path) -> None:
    port, pki = await serve(nursery, listen, "http"), Pki(tmp_path)
    cert, key = pki.issue("router.test")
    server = f"proxyProtocol: true, addForwardedHeader: {{for: {{kind: ip}}}}, tls: {{certPath: {cert}, keyPath: {key}}}"
    async with start(yaml("http", port, server)) as worker:
        for header, who in ((V1, b"192.0.2.7"), (V2, b"192.0.2.7"), (LOCAL, b"127.0.0.1")):
            stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
            await stream.send_all(header)
            secure = trio.SSLStream(stream, pki.client(), server_hostname="router.test")
            with trio.fail_after(5):
                status, _, body = await h1.Client(secure).request("GET", "/", "web")  # type: ignore[arg-type]
            assert status == 200
            assert b";for=" + who + b";host=web;proto=https" in body
            await stream.aclose()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy not found")
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
async def test_behind_haproxy(start: Any, listen: Any, nursery: trio.Nursery, tmp_path: Path, version: str) -> None:
    port = await serve(nursery, listen, "http")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        front = probe.getsockname()[1]
    server = "proxyProtocol: true, addForwardedHeader: {by: {kind: 'ip:port'}, for: {kind: 'ip:port'}}"
    async with start(yaml("http", port, server)) as worker:
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            "defaults\n mode tcp\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n"
            f"listen l\n bind 127.0.0.1:{front}\n server s 127.0.0.1:{port_of(worker)} {version}\n"
        )
        process = await nursery.start(partial(trio.run_process, check=False), ["haproxy", "-db", "-q", "-f", str(config)])
        with trio.fail_after(10):
            while True:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", front)
                    break
                except OSError:
                    await trio.sleep(0.02)
            own = stream.socket.getsockname()[1]
            _, _, body = await h1.Client(stream).request("GET", "/", "web")
        assert b'forwarded=by="127.0.0.1:%d";for="127.0.0.1:%d";' % (front, own) in body
        await stream.aclose()
        process.terminate()


async def test_without_its_header_a_connection_is_refused(start: Any, nursery: trio.Nursery) -> None:
    async with start(yaml("http", 1, "proxyProtocol: true")) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        with trio.fail_after(2):
            try:
                assert await stream.receive_some() == b""
            except trio.BrokenResourceError:
                pass  # there was something unread
        await stream.aclose()
        scope = f"rt/test/server/127.0.0.1/{port_of(worker)}"
        flat = worker.metrics.flat()
        assert (flat[f"{scope}/proxy_protocol/refused"], flat[f"{scope}/connects"], flat[f"{scope}/requests"]) == (1, 1, 0)
        assert [event.name for event in worker.host.events.recent] == ["proxy_protocol_refused"]
        assert worker.servers[0].connections == 0


async def test_events_name_the_client_behind_the_load_balancer(start: Any, nursery: trio.Nursery) -> None:
    async with start(yaml("h2", 1, "proxyProtocol: true, abuse: {maxIdleWork: 1000}")) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
        await stream.send_all(V1 + preface + (b"\0\0\x08\6\0\0\0\0\0" + bytes(8)) * 2000)
        with trio.fail_after(2):
            while not worker.host.events.counts["client_abuse"]:
                await trio.lowlevel.checkpoint()
        await stream.aclose()
        assert worker.host.events.recent[-1].fields["peer"] == "192.0.2.7:7777"
