"""SSL contexts from PEM texts: what is wrong with a certificate, a key or a bundle is found before it is used.

TLS 1.2 and 1.3, forward secrecy and AEAD only by default (hence nothing that RFC 9113 §9.2.2 forbids to HTTP/2), no
compression, no renegotiation. Sessions are resumed by tickets, whose keys belong to the context: a reload ends them, so
that nobody resumes what the new files would refuse.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, NoReturn

from protocols.wire import x509

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
OLDEST = ssl.TLSVersion.TLSv1_2

Versions = tuple[ssl.TLSVersion, ssl.TLSVersion]


class CredentialFault(Exception):  # noqa: N818 - the field's word
    """Files that cannot be used. ``role``: which one to look at (``cert``, ``key``, ``chain``, ``trust``)."""

    def __init__(self, role: str, why: str) -> None:
        super().__init__(why)
        self.role = role
        self.why = why


class KeyPair(NamedTuple):
    """PEM texts: a certificate (others behind it are its chain), its private key, more intermediate certificates."""

    cert: bytes
    key: bytes
    chain: bytes = b""


def server_context(
    pair: KeyPair,
    *,
    trust: bytes = b"",
    require: bool = False,
    ciphers: str = "",
    versions: Versions | None = None,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """The context of a listener. With ``require`` clients must have a certificate that ``trust`` vouches for.

    Raises :class:`CredentialFault`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, ciphers, versions, alpn)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    _load_pair(context, pair)
    if trust:
        _load_trust(context, trust)
    if require:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    *,
    trust: bytes = b"",
    pair: KeyPair | None = None,
    verify: bool = True,
    versions: Versions | None = None,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """The context of connections to endpoints. Without ``trust`` the system's roots. Raises :class:`CredentialFault`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context, "", versions, alpn)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust:
        _load_trust(context, trust)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if pair is not None:
        _load_pair(context, pair)
    return context


def _harden(context: ssl.SSLContext, ciphers: str, versions: Versions | None, alpn: Sequence[str]) -> None:
    context.minimum_version, context.maximum_version = versions or (OLDEST, ssl.TLSVersion.MAXIMUM_SUPPORTED)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(ciphers or CIPHERS)
    if alpn:
        context.set_alpn_protocols(list(alpn))


# -- certificates and keys --------------------------------------------------------------------------------------


def expiry(pair: KeyPair) -> float:
    """When the first certificate of the chain ends to be valid, in seconds of the epoch. Raises CredentialFault."""
    dates = [one.not_after for one in certificates("cert", pair.cert)]
    if pair.chain:
        dates += [one.not_after for one in certificates("chain", pair.chain)]
    return min(dates)


def certificates(role: str, pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM text; none at all is a fault."""
    blocks = x509.pem_blocks(pem)
    if not blocks:
        raise CredentialFault(role, f"no certificate in PEM (BEGIN CERTIFICATE){_instead(pem)}")
    try:
        return [x509.parse(ssl.PEM_cert_to_DER_cert(block.decode("ascii"))) for block in blocks]
    except ValueError as error:
        raise CredentialFault(role, f"a certificate that cannot be read: {error}") from None


def _instead(pem: bytes) -> str:
    if b"PRIVATE KEY-----" in pem:
        return "; this is a private key"
    if pem[:1] == b"\x30":
        return "; this looks like DER: convert it with openssl x509 -inform der"
    return "" if pem.strip() else "; the file is empty"


def _load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    expiry(pair)  # for what it finds
    if b"PRIVATE KEY-----" not in pair.key:
        what = "; this is a certificate" if b"BEGIN CERTIFICATE-----" in pair.key else ""
        raise CredentialFault("key", f"no private key in PEM (BEGIN PRIVATE KEY){what}")
    with ExitStack() as stack:
        chain = stack.enter_context(_as_file(pair.cert + b"\n" + pair.chain))
        key = stack.enter_context(_as_file(pair.key))
        try:
            context.load_cert_chain(chain, key, password=_encrypted)
        except ssl.SSLError as error:
            raise _pair_fault(error) from None


def _encrypted() -> NoReturn:
    raise CredentialFault("key", "the private key is encrypted; waypost has no way to ask for its password")


def _pair_fault(error: ssl.SSLError) -> CredentialFault:
    if error.reason == "KEY_VALUES_MISMATCH":
        return CredentialFault("key", "the private key does not belong to the certificate")
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return CredentialFault("cert", f"too weak a certificate: {_words(error)}")
    return CredentialFault("key", f"certificate and key cannot be used: {_words(error)}")


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _load_trust(context: ssl.SSLContext, trust: bytes) -> None:
    certificates("trust", trust)
    try:
        context.load_verify_locations(cadata="\n".join([block.decode("ascii") for block in x509.pem_blocks(trust)]))
    except ssl.SSLError as error:
        raise CredentialFault("trust", f"certificates that cannot be used: {_words(error)}") from None


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A name under which ``data`` can be opened: what was checked is what is loaded, whatever happens to the file."""
    fd = os.memfd_create("waypost", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
