"""TLS on both sides of a router, against Python's ssl, curl, openssl and grpcio."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
import trio.testing

from tests.e2e.conftest import port_of
from tests.support import h1, h2peer
from tests.support.certs import Pki

OK = [(b":status", b"200"), (b"content-type", b"text/plain")]
TRUNCATES = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf of"


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def seen(request: Any, body: bytes) -> Any:
    return 200, [], b"\n".join([b"%b=%b" % field for field in request.headers]) + b"\n%d" % len(body)


def seen_h2(message: Any) -> Any:
    return OK, b"\n".join([b"%b=%b" % field for field in message.headers]), []


def yaml(protocol: str, port: int, *, tls: Any = None, client: str = "{}", server: str = "") -> str:
    pair = "" if tls is None else f"certPath: {tls[0]}, keyPath: {tls[1]}"
    tls_line = f"    tls: {{{pair}{server}}}" if pair else ""
    return f"""
routers:
- protocol: {protocol}
  label: test
  dtab: /svc => /$/inet/127.0.0.1/{port}
  client: {client}
  servers:
  - port: 0
{tls_line}
"""


@pytest.fixture
async def open_tls() -> AsyncIterator[Any]:
    """Open TLS connections to a port; closed at the end of the test."""
    opened: list[trio.SocketStream] = []

    async def connect(port: int, context: ssl.SSLContext, name: str = "router.test") -> Any:
        opened.append(await trio.open_tcp_stream("127.0.0.1", port))
        stream = trio.SSLStream(opened[-1], context, server_hostname=name)
        with trio.fail_after(5):
            await stream.do_handshake()
        return stream

    yield connect
    for stream in opened:
        await trio.aclose_forcefully(stream)


async def open_h2(nursery: trio.Nursery, stream: Any) -> h2peer.Peer:
    peer = h2peer.Peer(stream, client=True)
    nursery.start_soon(peer.run)
    return peer


def serve_tls(context: ssl.SSLContext, handler: Any) -> Callable[[Any], Any]:
    """A connection handler: HTTP/1.1 over TLS."""

    async def serve(raw: trio.SocketStream) -> None:
        stream: Any = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        try:
            await h1._connection(stream, handler)
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(raw)

    return serve


def serve_tls_h2(context: ssl.SSLContext, handler: Any) -> Callable[[Any], Any]:
    async def serve(raw: trio.SocketStream) -> None:
        stream: Any = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        await h2peer.Peer(stream, client=False, handler=handler).run()
        await trio.aclose_forcefully(raw)

    return serve


# -- servers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_http_over_tls(
    start: Any, open_tls: Any, listen: Any, nursery: trio.Nursery, pki: Pki, version: ssl.TLSVersion
) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml("http", port, tls=pki.issue("router.test"))) as worker:
        context = pki.client(("http/1.1",))
        context.maximum_version = version
        stream = await open_tls(port_of(worker), context)
        assert stream.selected_alpn_protocol() == "http/1.1"
        client = h1.Client(stream)
        for size in (0, 1, 300_000, 3_000_000):
            status, _, body = await client.request("POST", "/", "web", [("x-forwarded-client-cert", "mine")], b"x" * size)
            assert (status, body.rsplit(b"\n")[-1]) == (200, b"%d" % size)
            assert b"forwarded-client-cert" not in body
        await stream.aclose()
        flat = worker.metrics.flat()
        scope = f"rt/test/server/127.0.0.1/{port_of(worker)}"
        assert (flat[f"{scope}/tls/handshakes"], flat[f"{scope}/tls/handshake_failures"]) == (1, 0)
        assert flat[f"{scope}/tls/expires_at"] > 2e9
        with trio.fail_after(2):
            while worker.servers[0].connections:
                await trio.lowlevel.checkpoint()


async def test_h2_over_tls_beside_http1(start: Any, open_tls: Any, listen: Any, nursery: trio.Nursery, pki: Pki) -> None:
    listener, port = await listen()
    nursery.start_soon(h2peer.serve, listener, seen_h2)
    async with start(yaml("h2", port, tls=pki.issue("router.test"))) as worker:
        stream = await open_tls(port_of(worker), pki.client(("http/1.1", "h2")))
        assert stream.selected_alpn_protocol() == "h2"
        peer = await open_h2(nursery, stream)
        answer = await peer.request("/", "web", [], b"b" * 16_000)
        assert answer.get(b":status") == b"200"
        old = await open_tls(port_of(worker), pki.client(("http/1.1",)))
        status, _, body = await h1.Client(old).request("GET", "/", "web")
        assert (status, b":scheme=https" in body) == (200, True)
        none = await open_tls(port_of(worker), pki.client())  # no ALPN: the first bytes decide
        assert none.selected_alpn_protocol() is None
        peer = await open_h2(nursery, none)
        assert (await peer.request("/")).get(b":status") == b"200"


async def test_a_client_must_show_a_certificate_and_cannot_invent_one(
    start: Any, open_tls: Any, listen: Any, nursery: trio.Nursery, pki: Pki, tmp_path: Path
) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    more = f", caCertPath: {pki.ca}, requireClientAuth: true"
    config = yaml("http", port, tls=pki.issue("router.test"), server=more, client="{forwardClientCert: true}")
    async with start(config) as worker:
        pair = pki.issue("caller.test", file="client", common_name="caller", organization_name="Org")
        stream = await open_tls(port_of(worker), pki.client(pair=pair))
        client = h1.Client(stream)
        for _ in range(3):
            status, _, body = await client.request("GET", "/", "web", [("x-forwarded-client-cert", "Subject=admin")])
            lines = [line for line in body.split(b"\n") if line.startswith(b"x-forwarded-client-cert=")]
            assert status == 200
            assert len(lines) == 1
            assert lines[0].startswith(b"x-forwarded-client-cert=Hash=")
            assert b';DNS=caller.test;Subject="CN=caller,OU=' in lines[0]
            assert b"admin" not in lines[0]
        with trio.fail_after(5):
            await stream.aclose()
        other = Pki(tmp_path, "other")
        for bad in (None, other.issue("caller.test", file="foreign"), pki.issue("old.test", file="old", expired=True)):
            stream = await open_tls(port_of(worker), pki.client(pair=bad))  # in TLS 1.3 the client is done before the server is
            with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some(100)
        scope = f"rt/test/server/127.0.0.1/{port_of(worker)}"
        assert worker.metrics.flat()[f"{scope}/tls/handshake_failures"] == 3
        assert worker.metrics.flat()["rt/test/service/svc/web/requests"] == 3


async def test_requests_in_single_bytes_and_tiny_records(start: Any, listen: Any, nursery: trio.Nursery, pki: Pki) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml("http", port, tls=pki.issue("router.test"))) as worker:
        raw = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = pki.client().wrap_bio(incoming, outgoing, server_hostname="router.test")

        async def trickle() -> None:
            data = outgoing.read()
            for at in range(len(data)):
                await raw.send_all(data[at : at + 1])

        async def drive(fn: Any) -> Any:
            while True:
                try:
                    result = fn()
                except ssl.SSLWantReadError:
                    await trickle()
                    incoming.write(await raw.receive_some(65536))
                else:
                    await trickle()
                    return result

        with trio.fail_after(10):
            await drive(tls.do_handshake)
            for byte in b"GET / HTTP/1.1\r\nhost: web\r\n\r\n":
                await drive(partial(tls.write, bytes([byte])))
            answer = b""
            while not answer.endswith(b"\n0"):
                answer += await drive(partial(tls.read, 65536))
        assert answer.startswith(b"HTTP/1.1 200 ")
        await raw.aclose()


async def test_whoever_speaks_clear_text_or_tls_where_it_is_not_expected_is_told(
    start: Any, listen: Any, nursery: trio.Nursery, pki: Pki
) -> None:
    async with start(yaml("h2", 1, tls=pki.issue("router.test"))) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        status, _, body = await h1.Client(stream).request("GET", "/", "web")
        assert (status, body) == (400, b"this port expects TLS: use https\n")
        assert await stream.receive_some() == b""
        await stream.aclose()
        peer = await open_h2(nursery, await trio.open_tcp_stream("127.0.0.1", port_of(worker)))
        with trio.fail_after(2):
            while not any(type(event).__name__ == "ConnectionTerminated" for event in peer.events):
                await trio.lowlevel.checkpoint()
        assert peer.events[-1].additional_data == b"this port expects TLS: use https"
        await peer.stream.aclose()
        assert worker.metrics.flat()[f"rt/test/server/127.0.0.1/{port_of(worker)}/wrong_protocol"] == 2
    async with start(yaml("http", 1)) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            pki.client().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="x").do_handshake()
        await stream.send_all(hello.read())
        answer = b""
        while more := await stream.receive_some():
            answer += more
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert answer.endswith(b"this port does not speak TLS: use http\n")
        await stream.aclose()


# -- clients --------------------------------------------------------------------------------------------------


async def backend(listen: Any, nursery: trio.Nursery, serve: Any) -> int:
    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    return int(port)


async def ask(worker: Any) -> tuple[int, bytes]:
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
    with trio.fail_after(5):
        status, _, body = await h1.Client(stream).request("GET", "/", "web")
    await stream.aclose()
    return status, body


@pytest.mark.parametrize("protocol", ["http", "h2"])
async def test_a_tls_endpoint_with_a_client_certificate(
    start: Any, listen: Any, nursery: trio.Nursery, pki: Pki, protocol: str
) -> None:
    context = pki.server("web.test", alpn=("h2" if protocol == "h2" else "http/1.1",))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(pki.ca)
    serve = serve_tls_h2(context, seen_h2) if protocol == "h2" else serve_tls(context, seen)
    port = await backend(listen, nursery, serve)
    cert, key = pki.issue("router.test", file="own")
    trust = f"commonName: '{{name}}.test', trustCertsBundle: {pki.ca}"
    own = f"clientAuth: {{certPath: {cert}, keyPath: {key}}}"
    static = f"{{kind: io.l5d.static, configs: [{{prefix: '/#/io.l5d.fs/{{name}}', tls: {{{trust}, {own}}}}}]}}"
    (pki.folder / "web").write_text(f"127.0.0.1 {port}\n")
    config = yaml(protocol, port, client=static).replace(f"/$/inet/127.0.0.1/{port}", "/#/io.l5d.fs")
    async with start(f"namers: [{{kind: io.l5d.fs, rootDir: {pki.folder}}}]" + config) as worker:
        status, _ = await ask(worker)
        assert status == 200
        assert worker.metrics.flat()[f"tls/client/{cert}/expires_at"] > 2e9


async def refusal(start: Any, listen: Any, nursery: trio.Nursery, context: ssl.SSLContext, tls: str, **options: Any) -> str:
    """What a router says of a backend that it does not accept."""
    port = await backend(listen, nursery, serve_tls(context, seen))
    async with start(yaml("http", port, client=f"{{tls: {{{tls}}}, {options.get('more', '')}}}")) as worker:
        status, body = await ask(worker)
        assert status == 502
        text = body.decode()
        assert text.startswith(f"Unable to establish connection to 127.0.0.1:{port}.\n")
        if "refused" in text:
            (event,) = [one for one in worker.host.events.recent if one.name == "certificate_not_accepted"]
            assert event.fields["address"] == f"127.0.0.1:{port}"
        return text


async def test_refusals_say_who_was_expected_and_who_was_there(
    start: Any, listen: Any, nursery: trio.Nursery, pki: Pki, tmp_path: Path
) -> None:
    tls = f"commonName: web.test, trustCertsBundle: {pki.ca}"
    ask_of = partial(refusal, start, listen, nursery)
    text = await ask_of(pki.server("other.test"), tls)
    assert "expected to be 'web.test'" in text
    assert "Hostname mismatch" in text
    assert "names other.test" in text
    text = await ask_of(Pki(tmp_path, "foreign").server("web.test"), tls)
    assert "unable to get local issuer certificate" in text
    text = await ask_of(pki.server("web.test", expired=True), tls)
    assert "certificate has expired" in text
    alone = tmp_path / "alone.pem"  # nobody vouches for the CA's certificate but itself
    alone.write_bytes(pki.authority.cert_pem.bytes())
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key = tmp_path / "ca.key"
    key.write_bytes(pki.authority.private_key_pem.bytes())
    own.load_cert_chain(alone, key)
    text = await ask_of(own, f"commonName: web.test, trustCertsBundle: {Pki(tmp_path, 'third').ca}")
    assert "self-signed certificate" in text
    text = await ask_of(pki.server("web.test", alpn=("http/1.1",)), tls, more="protocol: h2")
    assert "does not agree to h2 by ALPN: it takes no part in ALPN" in text
    text = await ask_of(pki.server("web.test"), f"commonName: '.', trustCertsBundle: {pki.ca}")
    assert "cannot be the name of a server" in text


async def test_an_endpoint_that_does_not_speak_tls(start: Any, listen: Any, nursery: trio.Nursery, pki: Pki) -> None:
    async def rude(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    port = await backend(listen, nursery, rude)
    tls = f"{{tls: {{commonName: web.test, trustCertsBundle: {pki.ca}}}}}"
    async with start(yaml("http", port, client=tls)) as worker:
        status, body = await ask(worker)
        assert status == 502
        assert f"127.0.0.1:{port} does not speak TLS: its first bytes were b'HTTP/1.1 400".encode() in body


async def test_validation_can_be_switched_off_and_tls_too(start: Any, listen: Any, nursery: trio.Nursery, pki: Pki) -> None:
    port = await backend(listen, nursery, serve_tls(pki.server("who.ever"), seen))
    async with start(yaml("http", port, client="{tls: {disableValidation: true}}")) as worker:
        assert (await ask(worker))[0] == 200
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    async with start(yaml("http", port, client="{tls: {enabled: false}}")) as worker:
        assert (await ask(worker))[0] == 200


@pytest.mark.parametrize("polite", [True, False])
async def test_an_end_without_close_notify_is_a_truncation(
    start: Any, listen: Any, nursery: trio.Nursery, pki: Pki, polite: bool
) -> None:
    context = pki.server("web.test")

    async def serve(raw: trio.SocketStream) -> None:
        stream: Any = trio.SSLStream(raw, context, server_side=True, https_compatible=False)
        await stream.receive_some(1000)
        await stream.send_all(TRUNCATES)
        if polite:
            await stream.unwrap()
        await raw.aclose()

    port = await backend(listen, nursery, serve)
    async with start(yaml("http", port, client=f"{{tls: {{commonName: web.test, trustCertsBundle: {pki.ca}}}}}")) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        answer = b""
        with trio.fail_after(5):
            while b"half of" not in answer:
                answer += await stream.receive_some()
            if polite:
                while not answer.endswith(b"0\r\n\r\n"):
                    answer += await stream.receive_some()
            else:
                assert await stream.receive_some() == b""  # no last chunk
        await stream.aclose()
        assert (worker.metrics.flat()["rt/test/service/svc/web/success"] == 1) is polite


# -- reloading --------------------------------------------------------------------------------------------------


async def test_certificates_are_replaced_and_connections_stay(
    start: Any, open_tls: Any, listen: Any, nursery: trio.Nursery, pki: Pki
) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    files = pki.issue("router.test")
    async with start(yaml("http", port, tls=files)) as worker:

        async def look() -> None:
            """Two looks, one period apart: the files have stood still."""
            assert worker.credentials.changed() == []
            for watched in worker.credentials.changed():
                await worker.credentials.reload(watched)

        old = h1.Client(await open_tls(port_of(worker), pki.client()))
        assert (await old.request("GET", "/", "web"))[0] == 200
        await look()
        assert worker.metrics.flat().get("tls/reloads") is None
        pki.issue("renamed.test")
        await look()
        new = h1.Client(await open_tls(port_of(worker), pki.client(), "renamed.test"))
        for client in (old, new):
            assert (await client.request("GET", "/", "web"))[0] == 200
        before = files[1].read_bytes()
        pki.issue("third.test", file="third")
        files[1].write_bytes((pki.folder / "third.key").read_bytes())
        await look()
        event = worker.host.events.recent[-1]
        assert event.name == "certificate_reload_failed"
        assert event.fields["why"] == f"{files[1]}: the private key does not belong to the certificate"
        await (await open_tls(port_of(worker), pki.client(), "renamed.test")).aclose()
        files[1].write_bytes(before)
        await look()
        flat = worker.metrics.flat()
        assert (flat["tls/reloads"], flat["tls/reload_failures"]) == (2, 1)
        for client in (old, new):
            assert (await client.request("GET", "/", "web"))[0] == 200
            await client.stream.aclose()


# -- other clients ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_curl(start: Any, listen: Any, nursery: trio.Nursery, pki: Pki, version: str) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, seen)
    config = yaml("h2", port, tls=pki.issue("router.test"), client="{protocol: http}")
    async with start(config) as worker:
        to = f"router.test:{port_of(worker)}"
        command = ["curl", "-sS", version, "--cacert", str(pki.ca), "--resolve", f"{to}:127.0.0.1"]
        done = await trio.run_process(
            [*command, "-w", "%{http_version} %{http_code}", f"https://{to}/"], capture_stdout=True, capture_stderr=True
        )
        assert done.stdout.endswith(b"1.1 200" if version == "--http1.1" else b"2 200"), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
async def test_openssl_cannot_renegotiate_and_resumes(start: Any, pki: Pki) -> None:
    async with start(yaml("http", 1, tls=pki.issue("router.test"))) as worker:
        where = ["openssl", "s_client", "-connect", f"127.0.0.1:{port_of(worker)}", "-CAfile", str(pki.ca), "-tls1_2"]
        done = await trio.run_process([*where, "-cipher", "AES128-SHA"], check=False, capture_stdout=True, capture_stderr=True)
        assert b"alert handshake failure" in done.stderr
        done = await trio.run_process([*where], stdin=b"R\n", check=False, capture_stdout=True, capture_stderr=True)
        assert b"no renegotiation" in done.stderr
        done = await trio.run_process([*where, "-reconnect"], check=False, capture_stdout=True, capture_stderr=True)
        assert done.stdout.count(b"Reused, TLSv1.2") == 5


@pytest.mark.slow
async def test_grpcio_with_a_secure_channel(start: Any, listen: Any, nursery: trio.Nursery, pki: Pki) -> None:
    listener, port = await listen()
    head = [(b":status", b"200"), (b"content-type", b"application/grpc")]
    nursery.start_soon(h2peer.serve, listener, lambda m: (head, m.body, [(b"grpc-status", b"0")]))
    pair = pki.issue("caller.test", file="client")
    more = f", caCertPath: {pki.ca}, requireClientAuth: true"
    async with start(yaml("grpc", port, tls=pki.issue("router.test"), server=more)) as worker:
        credentials = grpc.ssl_channel_credentials(pki.ca.read_bytes(), pair[1].read_bytes(), pair[0].read_bytes())

        def call() -> bytes:
            options = [("grpc.ssl_target_name_override", "router.test")]
            with grpc.secure_channel(f"127.0.0.1:{port_of(worker)}", credentials, options) as channel:
                made = channel.unary_unary("/demo.Echo/Say", request_serializer=bytes, response_deserializer=bytes)
                return bytes(made(b"hello", timeout=5))

        assert await trio.to_thread.run_sync(call) == b"hello"
