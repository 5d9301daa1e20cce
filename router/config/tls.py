"""The keys ``tls`` of servers and clients. Nothing is opened here; files know where in the configuration they are named."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import attrs

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_IANA = {"CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305"}


@attrs.frozen
class FileName:
    """The name of a file, and where it stands in the configuration (lines and columns from 1; 0: nowhere)."""

    text: str
    line: int = attrs.field(default=0, eq=False)
    column: int = attrs.field(default=0, eq=False)


def openssl_name(cipher: str) -> str:
    """OpenSSL's name of a cipher suite that is named as IANA does (``TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256``)."""
    exchange, with_, rest = cipher.removeprefix("TLS_").partition("_WITH_")
    if not with_:
        return cipher
    rest = _IANA.get(rest, rest.replace("AES_", "AES").replace("_CBC", "").replace("_", "-"))
    return "-".join([*([] if exchange == "RSA" else [exchange.replace("_", "-")]), rest])


def _ciphers(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    known = {cipher["name"] for cipher in context.get_ciphers()}
    for cipher in value:
        try:
            if cipher not in known:  # those of TLS 1.3 are always on and cannot be set
                context.set_ciphers(openssl_name(cipher))
        except ssl.SSLError:
            raise ValueError(f"this OpenSSL has no cipher {cipher!r} (see openssl ciphers -v)") from None


def _versions(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    for version in value:
        if version not in VERSIONS:
            raise ValueError(f"{version!r} is not one of {', '.join(VERSIONS)}; older ones are broken (RFC 8996)")


class _Versioned:
    """What ``protocols`` comes to."""

    protocols: tuple[str, ...]

    @property
    def versions(self) -> tuple[ssl.TLSVersion, ssl.TLSVersion] | None:
        """The oldest and the newest; None where nothing is said."""
        chosen = sorted([VERSIONS[name] for name in self.protocols])
        return (chosen[0], chosen[-1]) if chosen else None


def _trusted(instance: Any, attribute: attrs.Attribute[Any], value: bool) -> None:
    if instance is not None and value and instance.ca_cert_path is None:
        raise ValueError("requireClientAuth needs caCertPath: whom to believe")


@attrs.frozen
class ServerTls(_Versioned):
    """``tls`` of servers. ``ciphers``: names of OpenSSL or of IANA; ``protocols``: ``TLSv1.2``, ``TLSv1.3``."""

    cert_path: FileName
    key_path: FileName
    intermediate_certs_path: FileName | None = None
    ca_cert_path: FileName | None = None
    require_client_auth: bool = attrs.field(default=False, validator=_trusted)
    ciphers: tuple[str, ...] = attrs.field(default=(), validator=_ciphers)
    protocols: tuple[str, ...] = attrs.field(default=(), validator=_versions)

    @property
    def cipher_list(self) -> str:
        """As OpenSSL wants it; empty where nothing is said."""
        return ":".join([openssl_name(cipher) for cipher in self.ciphers])


@attrs.frozen
class ClientAuth:
    """``clientAuth``: what we show to endpoints that ask."""

    cert_path: FileName
    key_path: FileName
    intermediate_certs_path: FileName | None = None


def _named(instance: Any, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if instance is not None and instance.enabled and not value and not instance.disable_validation:
        raise ValueError("tls needs a commonName, or disableValidation: true")


def _one_trust(instance: Any, attribute: attrs.Attribute[Any], value: FileName | None) -> None:
    if instance is not None and value is not None and instance.trust_certs:
        raise ValueError("there are both trustCerts and trustCertsBundle; the latter is enough")


def _sensible(instance: Any, attribute: attrs.Attribute[Any], value: ClientAuth | None) -> None:
    if instance is not None and value is not None and instance.disable_validation:
        raise ValueError("clientAuth with disableValidation: true would show our certificate to anybody")


@attrs.frozen
class ClientTls(_Versioned):
    """``tls`` of clients. ``common_name``: whom the endpoint's certificate must be for, and SNI; captures are filled in."""

    enabled: bool = True
    disable_validation: bool = False
    common_name: str | None = attrs.field(default=None, validator=_named)
    trust_certs: tuple[FileName, ...] = ()
    trust_certs_bundle: FileName | None = attrs.field(default=None, validator=_one_trust)
    client_auth: ClientAuth | None = attrs.field(default=None, validator=_sensible)
    protocols: tuple[str, ...] = attrs.field(default=(), validator=_versions)

    def filled(self, fill: Callable[[str], str]) -> ClientTls:
        """With the captures of a prefix in the name."""
        return self if self.common_name is None else attrs.evolve(self, common_name=fill(self.common_name))

    @property
    def trust(self) -> tuple[FileName, ...]:
        """Whom to believe; the system's roots where it is empty."""
        return self.trust_certs if self.trust_certs_bundle is None else (self.trust_certs_bundle,)
