"""Certificates for tests, by trustme: a CA, what it issues, and files of both."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import trustme


class Pki:
    """A CA whose files are in ``folder``."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / f"{name}.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, *names: str, file: str = "server", **options: Any) -> tuple[Path, Path]:
        """(certificate, key) files of a certificate for ``names``; ``expired`` makes it one of last year."""
        if options.pop("expired", False):
            now = dt.datetime.now(dt.UTC)
            options["not_before"], options["not_after"] = now - dt.timedelta(days=400), now - dt.timedelta(days=40)
        made = self.authority.issue_cert(*names, **options)
        cert, key = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        cert.write_bytes(b"".join([blob.bytes() for blob in made.cert_chain_pems]))
        key.write_bytes(made.private_key_pem.bytes())
        return cert, key

    def server(self, *names: str, file: str = "backend", alpn: tuple[str, ...] = (), **options: Any) -> ssl.SSLContext:
        """The context of a server of the test's own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(*names, file=file, **options))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def client(self, alpn: tuple[str, ...] = (), pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """The context of a client that believes in this CA."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if pair is not None:
            context.load_cert_chain(*pair)
        return context
