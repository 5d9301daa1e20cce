"""What happens seldom on a wire: bugs in handlers, peers that end at odd moments, files that are no certificates."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from protocols.grpc.plugin import H2
from protocols.http1.plugin import RouterConfig, ServerConfig
from protocols.http1.rules import Known, parse_request
from protocols.http2.config import ClientConfig, Keepalive
from protocols.http2.config import ServerConfig as H2ServerConfig
from protocols.http2.tables import Sensitive
from protocols.wire import x509
from protocols.wire.connection import Connection
from protocols.wire.credentials import CredentialFault, KeyPair, certificates, client_context, server_context
from protocols.wire.guard import MAX_REFUSING, Guard
from protocols.wire.poller import Poller
from protocols.wire.proxy import ProxyProtocol
from protocols.wire.tunnel import ClientEnd, EndpointEnd, TunnelEnd
from router.model.abuse import AbuseLimits
from router.model.body import FixedSource
from router.model.ends import Ends
from router.model.failure import Failure, Kind
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.strand import Waiter
from router.spi import ClientContext
from tests.protocols.wire.test_tls import Rig as TlsRig
from tests.protocols.wire.test_wire import Recorder
from tests.support.certs import Pki
from tests.support.fakes import FakeHost
from tests.support.fakewire import FakeWire

# -- the poller ----------------------------------------------------------------------------------------------


class Buggy:
    """A handler with a bug in one of its methods."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.aborted = 0

    def _maybe(self, where: str) -> None:
        if where == self.where:
            raise ZeroDivisionError(where)

    def on_readable(self) -> None:
        self._maybe("on_readable")

    def on_writable(self) -> None:
        self._maybe("on_writable")

    def on_again(self) -> None:
        self._maybe("on_again")

    def flush(self) -> None:
        self._maybe("flush")

    def abort(self) -> None:
        self.aborted += 1


@pytest.mark.parametrize("where", ["on_readable", "on_writable", "on_again", "flush"])
def test_a_bug_in_a_handler_ends_its_connection_alone(where: str) -> None:
    crashes: list[Exception] = []
    poller = Poller(crashes.append)
    ours, peer = socket.socketpair()
    other_ours, other_peer = socket.socketpair()
    handler, other = Buggy(where), Buggy("")
    poller.register(ours.fileno(), handler)
    poller.register(other_ours.fileno(), other)
    poller.interest(ours.fileno(), read=True, write=True)
    peer.send(b"x")
    for one in (handler, other):
        poller.again(one)
        poller.dirty(one)
    poller.turn()
    assert [str(crash) for crash in crashes] == [where]
    assert (handler.aborted, other.aborted) == (1, 0)
    poller.unregister(ours.fileno())
    poller.unregister(ours.fileno())  # once is enough
    poller.close()
    for sock in (ours, peer, other_ours, other_peer):
        sock.close()


# -- connections ---------------------------------------------------------------------------------------------


class WireRig:
    def __init__(self) -> None:
        self.host = FakeHost()
        self.poller = Poller(self.host.crashed)
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.protocol = Recorder()
        self.wire = Connection(self.poller, self.host.timers, ours)
        self.wire.start(self.protocol)

    def close(self) -> None:
        self.peer.close()
        self.poller.close()


@pytest.fixture
def rig() -> Iterator[WireRig]:
    made = WireRig()
    yield made
    made.close()


def test_ends_are_told_once_and_what_follows_is_nothing(rig: WireRig) -> None:
    rig.wire.abort("first")
    for end in (rig.wire.abort, rig.wire.reset, rig.wire.close, rig.wire.finish, rig.wire.pause, rig.wire.resume):
        end()
    rig.wire.write(b"late")
    rig.poller.turn()
    assert rig.protocol.heard == ["lost: first"]
    assert rig.host.timers.pending() == 0


def test_events_that_come_too_late_do_nothing(rig: WireRig) -> None:
    rig.wire.on_readable()  # nothing is there
    rig.wire.on_writable()
    rig.wire.finish()
    rig.wire.finish()
    rig.poller.turn()
    assert (rig.peer.recv(10), rig.protocol.data) == (b"", b"")


def test_a_peer_whose_name_nobody_knows(rig: WireRig) -> None:
    assert rig.wire.client_certificate is None
    rig.wire.abort()
    assert rig.wire.peer == "?"


def test_who_cannot_even_be_refused_is_closed() -> None:
    host: Any = FakeHost()
    guard = Guard(AbuseLimits(max_connections=1), host, Metrics(), ("connections",), "here")
    wires = [FakeWire() for _ in range(MAX_REFUSING + 1)]
    for wire in wires:
        guard.refuse(wire, b"503")  # type: ignore[arg-type]
    assert [wire.aborted for wire in wires] == [False] * MAX_REFUSING + [True]
    assert bytes(wires[0].out) == b"503"
    assert guard.refusing == MAX_REFUSING


def test_a_prologue_hurried_and_woken_for_nothing() -> None:
    host: Any = FakeHost()
    poller = Poller(host.crashed)
    proxy = ProxyProtocol(host, poller, Metrics(), "here")
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    done: list[Any] = []
    prologue = proxy.await_header(ours, Ends(), float("inf"), lambda _, ends: done.append(ends))
    prologue.on_readable()
    prologue.hurry(5.0)
    prologue.hurry(1.0)
    host.pass_time(1.5)
    assert done == [None]
    prologue.abort()
    assert done == [None]
    peer.close()
    poller.close()


# -- TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[TlsRig]:
    made = TlsRig(Pki(tmp_path))
    yield made
    made.peer.close()
    made.poller.close()


class Again(Recorder):
    """A protocol that wants its data in turns."""

    def __init__(self, wire: Any) -> None:
        super().__init__()
        self.wire = wire
        self.turns = 0

    def received(self, data: bytes) -> None:
        super().received(data)
        self.turns += 1
        if self.turns < 3:
            self.wire.again()


def test_a_close_notify_waits_for_a_protocol_that_is_not_done(tls: TlsRig) -> None:
    tls.shake()
    protocol = tls.protocol = Again(tls.wire)
    tls.wire.start(protocol)
    tls.tls.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        tls.tls.unwrap()
    tls.turn()
    for _ in range(4):
        tls.poller.turn()
    assert (protocol.data, protocol.turns, protocol.heard) == (b"last words", 3, ["eof"])


def test_our_half_ends_and_theirs_goes_on(tls: TlsRig) -> None:
    tls.wire.finish()  # not within a handshake
    tls.shake()
    tls.wire.write(b"bye")
    tls.wire.finish()
    tls.wire.finish()
    tls.turn()
    assert tls.tls.read(10) == b"bye"
    tls.tls.write(b"go on")
    tls.turn()
    assert tls.protocol.data == b"go on"


# -- credentials and certificates ----------------------------------------------------------------------------


def test_files_that_are_no_certificates_are_told_what_they_are(tmp_path: Path) -> None:
    cert, key = Pki(tmp_path).issue("x.test")
    der = ssl.PEM_cert_to_DER_cert(cert.read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    for pem, why in (
        (der, "looks like DER"),
        (key.read_bytes(), "is a private key"),
        (b" \n", "empty"),
        (b"x", "no certificate"),
    ):
        with pytest.raises(CredentialFault, match=why):
            certificates("cert", pem)


def test_a_key_that_is_too_short_or_broken(tmp_path: Path) -> None:
    cert, key = Pki(tmp_path).issue("x.test")
    broken = key.read_bytes().replace(b"\nM", b"\nX", 1)
    with pytest.raises(CredentialFault) as caught:
        server_context(KeyPair(cert.read_bytes(), broken))
    assert caught.value.role == "key"


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = bytes([len(body)]) if len(body) < 128 else b"\x81" + bytes([len(body)])
    return bytes([tag]) + size + body


SEQ, SET, INT, UTC, TEXT = 0x30, 0x31, 0x02, 0x17, 0x0C
NAME = der(SEQ, der(SET, der(SEQ, der(0x06, b"\x55\x04\x03"), der(TEXT, b"x"))))
DATES = der(SEQ, der(UTC, b"250101000000Z"), der(UTC, b"350101000000Z"))


def made(subject: bytes = NAME, dates: bytes = DATES, *more: bytes) -> bytes:
    tbs = der(SEQ, der(INT, b"\1"), der(SEQ, b"\5\0"), NAME, dates, subject, der(SEQ, b"\5\0"), *more)
    return der(SEQ, tbs, der(SEQ, b"\5\0"), der(0x03, b"\0"))


def named(value: bytes) -> bytes:
    return der(SEQ, der(SET, der(SEQ, der(0x06, b"\x55\x04\x03"), der(TEXT, value))))


@pytest.mark.parametrize(("value", "shown"), [(b"#x", r"CN=\#x"), (b" x", r"CN=\ x"), (b"x ", r"CN=x\ "), (b"a,b", r"CN=a\,b")])
def test_names_are_escaped(value: bytes, shown: str) -> None:
    assert x509.parse(made(named(value))).subject == shown


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        (der(SEQ, der(SEQ, der(INT, b"\1"))), "ends too early"),
        (made(dates=der(SEQ, der(UTC, b"250101000000Z"))), "not two dates"),
        (made(dates=der(SEQ, der(UTC, b"250101000000Z"), der(INT, b"1"))), "a date that is none"),
        (made(dates=der(SEQ)), "an empty element"),
        (made(subject=der(SET, b"\5\0")), "belongs"),
        (b"\x30\x05abc", "ends within"),
    ],
)
def test_certificates_that_are_none(certificate: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        x509.parse(certificate)
    assert x509.forwarded(certificate).startswith(b"Hash=")
    assert b";" not in x509.forwarded(certificate)


def test_a_certificate_without_a_subject() -> None:
    assert b"Subject" not in x509.forwarded(made(subject=der(SEQ)))


# -- ends of tunnels -----------------------------------------------------------------------------------------


def client_end() -> tuple[FakeWire, ClientEnd, list[str]]:
    wire, heard = FakeWire(), []
    end = ClientEnd(wire, heard.append, lambda: heard.append("finished"))  # type: ignore[arg-type]
    return wire, end, heard


def test_a_tunnel_whose_other_end_breaks_off_is_closed_once() -> None:
    wire, end, heard = client_end()
    end.begin(b"")
    source = FixedSource()
    end.source = source
    end.abort(Failure(Kind.RESET, "gone"))
    end.abort(Failure(Kind.RESET, "gone"))
    end.data(b"late", 4, False)
    end.data(b"later", 5, True)
    end.end(())
    assert (wire.closed, heard, bytes(wire.out), source.credited) == (True, ["finished"], b"", 9)


def test_credit_behind_the_end_does_not_read_on() -> None:
    wire, end, _ = client_end()
    end.begin(bytes(100_000))
    assert not wire.reading
    end.eof()
    end.eof()
    end.credit(100_000)
    assert not wire.reading
    end.lost("gone")


def test_half_of_a_tunnel_is_none() -> None:
    wire, end, heard = client_end()
    end.stop(None)
    assert wire.closed
    end.lost("gone")
    assert heard == ["gone"]
    bare = TunnelEnd(FakeWire())  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        bare.lost("gone")


def test_an_endpoint_that_ends_twice_concludes_once() -> None:
    class Concluded:
        times = 0

        def conclude(self, trailers: Any) -> None:
            self.times += 1

    exchange: Any = Concluded()
    end = EndpointEnd(FakeWire(), exchange, Waiter())  # type: ignore[arg-type]
    end.eof()
    end.eof()
    assert exchange.times == 1


# -- configuration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (ServerConfig, {"max_initial_line_kb": 0}),
        (ServerConfig, {"max_headers_kb": 1025}),
        (RouterConfig, {"max_headers_kb": -1}),
        (H2ServerConfig, {"initial_stream_window_bytes": 0}),
        (H2ServerConfig, {"max_frame_bytes": 16383}),
        (H2ServerConfig, {"window_update_ratio": 1.0}),
        (ClientConfig, {"window_update_ratio": 0.0}),
        (ClientConfig, {"header_table_bytes": 65537}),
        (Keepalive, {"time_ms": 99}),
    ],
)
def test_values_out_of_range_are_refused(make: Any, value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be between"):
        make(**value)


# -- small things --------------------------------------------------------------------------------------------


def test_secrets_are_equal_to_nothing_but_themselves() -> None:
    one, other = Sensitive((b"a", b"b")), Sensitive((b"a", b"b"))
    same = one
    assert one == same
    assert one != other
    assert one != (b"a", b"b")
    assert len({one, other}) == 2


def test_lines_that_are_remembered_are_few() -> None:
    known = Known()
    for at in range(3 * Known.LINES):
        parse_request(b"GET / HTTP/1.1\r\nhost: a\r\nx-%d: y" % at, known)
    assert len(known) <= Known.LINES


async def test_an_endpoint_that_does_not_speak_http2(nursery: trio.Nursery) -> None:
    """It closes before its SETTINGS, or says nothing until the time is over."""
    plugin: Any = H2.make(H2.config(), None)
    host = Host(nursery)
    poller = Poller(host.crashed)
    nursery.start_soon(poller.run)
    nursery.start_soon(host.timers.run)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    connect = plugin.connect(plugin.client_config(), ClientContext(host, poller, Metrics()))
    address = listener.socket.getsockname()[:2]

    async def closing() -> None:
        stream = await listener.accept()
        await stream.receive_some(10)
        await stream.aclose()

    nursery.start_soon(closing)
    with trio.fail_after(5), pytest.raises(OSError, match="does not speak HTTP/2"):
        await connect(*address)
    with trio.move_on_after(0.05) as scope:
        await connect(*address)
    assert scope.cancelled_caught
    silent = await listener.accept()
    got = b""
    with trio.fail_after(5):
        while b"close" not in got:
            got += await silent.receive_some(1000)  # GOAWAY
    await silent.aclose()
    await listener.aclose()
    poller.abort_all()
    nursery.cancel_scope.cancel()


def test_client_contexts_refuse_what_is_no_trust() -> None:
    with pytest.raises(CredentialFault, match="no certificate"):
        client_context(trust=b"nonsense")
