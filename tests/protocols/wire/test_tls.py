"""The TLS layer on a connection turned by hand, with ``ssl.SSLObject`` as its peer; and certificates read by hand."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509 as oracle
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from protocols.wire import x509
from protocols.wire.connection import LINGER
from protocols.wire.credentials import KeyPair, server_context
from protocols.wire.poller import Poller
from protocols.wire.tls import HANDSHAKE_BYTES, HANDSHAKE_TIMEOUT, MAX_ANSWERS, Context, TlsConnection
from tests.protocols.wire.test_wire import Recorder
from tests.support.certs import Pki
from tests.support.fakes import FakeHost


class Rig:
    """The server's side is what is tested; ``tls`` is the client's."""

    def __init__(self, pki: Pki, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.host = FakeHost()
        self.crashes: list[Exception] = []
        self.poller = Poller(self.crashes.append)
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        cert, key = pki.issue("x.test")
        context = Context(server_context(KeyPair(cert.read_bytes(), key.read_bytes()), alpn=("h2",)))
        self.ended: list[str] = []
        done: Callable[[TlsConnection], None] = lambda wire: self.ended.append(wire.fault)  # noqa: E731
        self.wire = TlsConnection(self.poller, self.host.timers, ours, context.accepting, done)
        self.protocol = Recorder()
        self.wire.begin()
        self.wire.start(self.protocol)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = pki.client(("h2",))
        client.maximum_version = version
        self.tls = client.wrap_bio(self.incoming, self.outgoing, server_hostname="x.test")

    def turn(self) -> None:
        """Everything that can cross, crosses."""
        data = self.outgoing.read()
        while data:
            try:
                data = data[self.peer.send(data) :]
            except BlockingIOError:
                pass
            self.poller.turn()
        self.poller.turn()
        try:
            while more := self.peer.recv(1 << 20):
                self.incoming.write(more)
                self.poller.turn()
        except BlockingIOError:
            pass

    def shake(self) -> None:
        for _ in range(4):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            self.turn()
        assert self.ended == [""]

    def read(self) -> bytes:
        data = b""
        try:
            while piece := self.tls.read(1 << 20):
                data += piece
        except ssl.SSLWantReadError:
            pass
        return data


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(Pki(tmp_path), request.param)
    yield made
    made.peer.close()
    made.poller.close()
    assert made.wire.gone
    assert len(made.ended) == 1
    assert sum(word.startswith("lost") for word in made.protocol.heard) == 1
    assert made.host.timers.pending() == 0
    assert not made.crashes


def test_both_directions(rig: Rig) -> None:
    rig.wire.write(b"before ")
    rig.shake()
    assert (rig.wire.alpn, rig.tls.selected_alpn_protocol()) == ("h2", "h2")
    rig.wire.write(b"and ")
    rig.wire.write(memoryview(b"after"))
    assert rig.wire.unsent == 9
    rig.turn()
    assert rig.read() == b"before and after"
    assert rig.wire.unsent == 0
    rig.tls.write(b"hello")
    rig.turn()
    assert rig.protocol.data == b"hello"


def test_many_records_in_a_read_are_one_call_and_many_writes_are_few_records(rig: Rig) -> None:
    rig.shake()
    calls: list[int] = []
    rig.protocol.received = lambda data: calls.append(len(data))  # type: ignore[method-assign]
    for at in range(100):
        rig.tls.write(bytes([at]) * 10)
    rig.turn()
    assert calls == [1000]
    for _ in range(1000):
        rig.wire.write(b"123456789")
    rig.poller.turn()
    sent = rig.peer.recv(1 << 20)
    assert 9000 < len(sent) < 9100
    rig.incoming.write(sent)
    assert rig.read() == b"123456789" * 1000


@pytest.mark.parametrize("size", [16384, 16385, 5_000_000])
def test_large_writes(rig: Rig, size: int) -> None:
    rig.shake()
    data = bytes(range(256)) * (size // 256 + 1)
    rig.wire.write(data)
    got = b""
    for _ in range(300):
        rig.turn()
        got += rig.read()
        if len(got) == len(data):
            break
    assert got == data
    assert not rig.wire.congested


def test_close_says_so_behind_what_was_written(rig: Rig) -> None:
    rig.shake()
    rig.wire.write(b"bye")
    rig.wire.close()
    rig.turn()
    assert rig.tls.read(100) == b"bye"
    assert rig.tls.read(100) == b""  # close_notify
    rig.peer.shutdown(socket.SHUT_WR)
    rig.turn()
    assert rig.protocol.heard == ["lost: closed"]


def test_the_peers_close_notify_is_an_end_and_it_can_still_be_answered(rig: Rig) -> None:
    rig.shake()
    with pytest.raises(ssl.SSLWantReadError):
        rig.tls.unwrap()
    rig.turn()
    assert rig.protocol.heard == ["eof"]
    rig.wire.write(b"answer")
    rig.poller.turn()
    assert len(rig.peer.recv(1000)) > 6


def test_an_end_without_close_notify_is_a_loss(rig: Rig) -> None:
    rig.shake()
    rig.peer.shutdown(socket.SHUT_WR)
    rig.turn()
    assert rig.protocol.heard == ["lost: connection truncated: it ended without close_notify"]


def test_a_record_that_was_tampered_with(rig: Rig) -> None:
    rig.shake()
    rig.tls.write(b"good")
    good = rig.outgoing.read()
    rig.tls.write(b"evil")
    evil = bytearray(rig.outgoing.read())
    evil[-1] ^= 1
    rig.peer.send(good + bytes(evil))
    rig.poller.turn()
    assert rig.protocol.data == b"good"
    assert rig.protocol.heard == ["lost: TLS failed: decryption failed or bad record mac"]


def test_a_slow_handshake(rig: Rig) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        rig.tls.do_handshake()
    hello = rig.outgoing.read()
    for byte in hello[:10]:
        rig.peer.send(bytes([byte]))
        rig.poller.turn()
        rig.host.pass_time(HANDSHAKE_TIMEOUT / 11)
        assert not rig.wire.gone
    rig.host.pass_time(HANDSHAKE_TIMEOUT / 5)
    assert rig.ended == ["no TLS handshake within 10 s"]
    assert rig.wire.gone


def test_a_handshake_without_end(rig: Rig) -> None:
    record = b"\x16\x03\1\x10\0" + b"\1\0\xff\xff" + bytes(4092)  # a ClientHello of 64 KiB, and more of them
    sent = 0
    while not rig.ended and sent < 2 * HANDSHAKE_BYTES:
        sent += rig.peer.send(record)
        rig.poller.turn()
    assert rig.ended[0]
    rig.host.pass_time(LINGER * 2)


def test_a_peer_that_does_not_speak_tls(rig: Rig) -> None:
    rig.peer.send(b"GET / HTTP/1.1\r\n\r\n")
    rig.poller.turn()
    assert rig.ended == ["the peer does not speak TLS"]
    assert (rig.wire.clear, rig.wire.first) == (True, b"GET / HTTP/1.1\r\n\r\n")
    rig.wire.write(b"what?")
    rig.wire.close()
    rig.poller.turn()
    assert rig.peer.recv(100) == b"what?"


def test_a_connection_that_ends_within_the_handshake(rig: Rig) -> None:
    rig.peer.send(b"\x16\x03\1")
    rig.peer.shutdown(socket.SHUT_WR)
    rig.poller.turn()
    rig.poller.turn()
    assert rig.ended == ["the peer closed the connection within the TLS handshake"]


def test_garbage_after_the_first_byte(rig: Rig) -> None:
    rig.peer.send(b"\x16garbage that is no record")
    rig.poller.turn()
    assert rig.ended[0].startswith("TLS handshake failed: ")
    rig.host.pass_time(LINGER * 2)


def test_reading_can_wait_for_the_protocol(tmp_path: Path) -> None:
    rig = Rig(Pki(tmp_path))
    rig.wire._upper = None
    rig.shake()
    rig.tls.write(b"first")
    rig.turn()
    rig.tls.write(b"second")
    rig.turn()
    rig.wire.start(rig.protocol)
    assert rig.protocol.data == b"first"
    rig.poller.turn()
    assert rig.protocol.data == b"firstsecond"
    rig.peer.close()
    rig.poller.close()


def test_answers_of_tls_that_nobody_reads_are_bounded(rig: Rig) -> None:
    rig.shake()
    rig.wire.write(bytes(4_000_000))  # more than the kernel takes: from now on nothing leaves
    rig.poller.turn()
    assert rig.wire.unsent
    for _ in range(MAX_ANSWERS + 1):
        rig.wire._out_bio.write(b"x")  # an alert of ours
        rig.wire._answer()
    assert rig.wire.fault == "too many TLS messages unread"


# -- certificates ---------------------------------------------------------------------------------------------

_AUTHORITY = trustme.CA()
_DER = ssl.PEM_cert_to_DER_cert(_AUTHORITY.issue_cert("a.test", common_name="a").cert_chain_pems[0].bytes().decode())
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=16)


@given(common=names, organization=names)
def test_subjects_are_what_rfc_4514_says(common: str, organization: str) -> None:
    made = _AUTHORITY.issue_cert("a.test", "*.b.test", "10.0.0.1", "::1", common_name=common, organization_name=organization)
    der = ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())
    expected = oracle.load_der_x509_certificate(der)
    parsed = x509.parse(der)
    assert parsed.subject == expected.subject.rfc4514_string()
    assert parsed.issuer == expected.issuer.rfc4514_string()
    assert parsed.not_after == expected.not_valid_after_utc.timestamp()
    assert parsed.not_before == expected.not_valid_before_utc.timestamp()
    assert (parsed.dns, parsed.ips) == (("a.test", "*.b.test"), ("10.0.0.1", "::1"))
    header = x509.forwarded(der)
    digest = expected.fingerprint(hashes.SHA256()).hex().upper()
    assert header.startswith(f'Hash={digest};DNS=a.test;DNS=*.b.test;Subject="'.encode())
    assert all(32 <= byte < 127 for byte in header)
    assert header.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') == 2


@given(cut=st.integers(0, 600), flip=st.integers(0, 600), byte=st.integers(0, 255))
def test_certificates_that_are_broken_are_refused_or_read(cut: int, flip: int, byte: int) -> None:
    data = bytearray(_DER)
    data[flip % len(data)] ^= byte
    for broken in (bytes(data), _DER[: cut % len(_DER)]):
        try:
            assert x509.parse(broken).show()
        except ValueError:
            pass


def test_values_cannot_end_their_element() -> None:
    assert x509._value("spiffe://a/b") == "spiffe://a/b"
    assert x509._value("a;Subject=admin") == '"a;Subject=admin"'
    assert x509._value('a",\r\nx: y') == '"a\\",%0D%0Ax: y"'
    assert x509._value("é%") == '"%C3%A9%25"'
