"""What is said of certificates, keys and settings before anything runs, and where."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dtab import read_path
from router.cli import main
from router.config.load import effective, load_file, load_text
from router.config.plugins import Registry
from router.config.schema import ClientBase
from router.config.tls import openssl_name
from router.model.metrics import Metrics
from router.tls import Credentials, problems
from tests.support.certs import Pki
from tests.support.fakes import FakeHost

REGISTRY = Registry()
EXAMPLES = Path(os.environ.get("WAYPOST_LINKERD_CONFIGS", str(Path(__file__).parents[3] / "shared" / "linkerd1-configs")))


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    made = Pki(tmp_path)
    made.issue("router.test")
    return made


def server(folder: Path, **changes: str) -> str:
    keys = {"certPath": f"{folder}/server.crt", "keyPath": f"{folder}/server.key"} | changes
    lines = "".join([f"      {key}: {value}\n" for key, value in keys.items()])
    return f"routers:\n- protocol: http\n  servers:\n  - port: 0\n    tls:\n{lines}"


def client(tls: str) -> str:
    return f"routers:\n- protocol: http\n  client:\n    tls: {{{tls}}}\n"


def told(text: str) -> list[str]:
    loaded = load_text(text, "t.yaml", REGISTRY)
    found = list(loaded.problems) if loaded.config is None else problems(loaded.config)
    return [f"{one.line}:{one.column} {one.message}" for one in found]


def test_what_is_good(pki: Pki) -> None:
    assert told(server(pki.folder)) == []
    more = {"caCertPath": str(pki.ca), "intermediateCertsPath": str(pki.ca), "requireClientAuth": "true"}
    assert told(server(pki.folder, **more, ciphers="[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]", protocols="[TLSv1.2]")) == []
    assert told(client("commonName: x, protocols: [TLSv1.3]")) == []


def test_files(pki: Pki) -> None:
    folder = pki.folder
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_text("hello")
    (folder / "cut.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    (folder / "cut.key").write_text("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n")
    shutil.copy(folder / "server.key", folder / "first.key")
    pki.issue("other.test", file="other")
    file = lambda name: str(folder / name)  # noqa: E731
    for changes, line, message in (
        ({"certPath": file("none")}, 6, "none: cannot be read: No such file or directory"),
        ({"certPath": str(folder)}, 6, "cannot be read: Is a directory"),
        ({"certPath": file("empty")}, 6, "empty: no certificate in PEM (BEGIN CERTIFICATE); the file is empty"),
        ({"certPath": file("server.key")}, 6, "no certificate in PEM (BEGIN CERTIFICATE); this is a private key"),
        ({"certPath": file("cut.crt")}, 6, "cut.crt: a certificate that cannot be read: "),
        ({"keyPath": file("text")}, 7, "text: no private key in PEM (BEGIN PRIVATE KEY)"),
        ({"keyPath": file("server.crt")}, 7, "no private key in PEM (BEGIN PRIVATE KEY); this is a certificate"),
        ({"keyPath": file("cut.key")}, 7, "cut.key: certificate and key cannot be used: "),
        ({"keyPath": file("other.key")}, 7, "other.key: the private key does not belong to the certificate"),
        ({"caCertPath": file("text")}, 8, "text: no certificate in PEM (BEGIN CERTIFICATE)"),
        ({"intermediateCertsPath": file("none")}, 8, "none: cannot be read"),
    ):
        (problem,) = told(server(folder, **changes))
        column = 7 + len(next(iter(changes))) + 2
        assert problem.startswith(f"{line}:{column} "), problem
        assert message in problem


def test_an_encrypted_key_asks_nobody(pki: Pki) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((pki.folder / "server.key").read_bytes(), None)
    (pki.folder / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    (problem,) = told(server(pki.folder))
    assert "the private key is encrypted" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (server(Path("/"), requireClientAuth="true"), "8:26 requireClientAuth needs caCertPath: whom to believe"),
        (
            server(Path("/"), ciphers="[RC4-MD5, nonsense]"),
            "8:16 this OpenSSL has no cipher 'RC4-MD5' (see openssl ciphers -v)",
        ),
        (server(Path("/"), protocols="[TLSv1.1]"), "8:18 'TLSv1.1' is not one of TLSv1.2, TLSv1.3; older ones are broken"),
        (server(Path("/"), certificate="x"), "8:7 unknown key 'certificate' in tls"),
        (client("trustCertsBundle: x"), "4:10 tls needs a commonName, or disableValidation: true"),
        (client("commonName: x, trustCerts: [a], trustCertsBundle: b"), "4:61 there are both trustCerts and trustCertsBundle"),
        (client("disableValidation: true, clientAuth: {certPath: a, keyPath: b}"), "4:48 clientAuth with disableValidation"),
        (client("commonName: x, trustCertsBundle: /none"), "4:44 /none: cannot be read: No such file or directory"),
        (client("commonName: x, trustCerts: [/no, /none]"), "4:39 /no: cannot be read: No such file or directory"),
        (client("commonName: x, clientAuth: {certPath: /none, keyPath: b}"), "4:49 /none: cannot be read"),
    ],
)
def test_settings(text: str, problem: str) -> None:
    (found,) = told(text)
    assert found.startswith(problem)


def test_the_command_tells_too(pki: Pki, tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(server(pki.folder))
    assert CliRunner().invoke(main, ["check", str(file)]).exit_code == 0
    (tmp_path / "server.key").unlink()
    for command in (["check"], ["run", "--log-format", "text"]):
        done = CliRunner().invoke(main, [*command, str(file)])
        assert done.exit_code == 1
        assert f"t.yaml:7:16: error: {tmp_path}/server.key: cannot be read: No such file or directory" in done.stderr
    assert CliRunner().invoke(main, ["explain", str(file), "/svc/web"]).exit_code == 0


@pytest.mark.parametrize(
    ("iana", "openssl"),
    [
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", "ECDHE-RSA-AES256-SHA384"),
        ("TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA"),
        ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        ("ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES128-SHA"),
    ],
)
def test_names_of_ciphers(iana: str, openssl: str) -> None:
    assert openssl_name(iana) == openssl


def test_files_are_looked_at_once_they_stand_still(pki: Pki) -> None:
    host: Any = FakeHost()
    loaded = load_text(server(pki.folder), "t.yaml", REGISTRY)
    assert loaded.config is not None
    credentials = Credentials(host, Metrics())
    credentials.server(loaded.config.routers[0].servers[0].base.tls, ("h2",), Metrics())
    assert credentials.changed() == []
    (pki.folder / "server.crt").write_text("half")
    assert credentials.changed() == []  # it may be being written
    (pki.folder / "server.crt").write_text("half of it")
    assert credentials.changed() == []
    assert len(credentials.changed()) == 1
    assert credentials.changed() == []  # told once
    (pki.folder / "server.crt").unlink()
    credentials.changed()
    assert len(credentials.changed()) == 1
    credentials.close()
    assert host.timers.pending() == 0


# -- Linkerd's own examples -----------------------------------------------------------------------------------


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples of Linkerd 1.x are not here (WAYPOST_LINKERD_CONFIGS)")
@pytest.mark.parametrize("name", ["tls", "mutualTls", "disable-tls"])
def test_linkerds_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = Pki(tmp_path)
    for file, cert, key in (("one", "cert", "key"), ("two", "clientCert", "clientKey")):
        made = pki.issue("foo", file=file)
        made[0].rename(tmp_path / f"{cert}.pem")
        made[1].rename(tmp_path / f"{key}.pem")
    for file in ("cacert", "caCert", "ca-chain", "intermediateCa"):
        shutil.copy(pki.ca, tmp_path / f"{file}.pem")
    (tmp_path / "linkerd" / "examples" / "io.l5d.fs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "t.yaml"
    file.write_text((EXAMPLES / "linkerd" / f"{name}.yaml").read_text().replace("/foo/", f"{tmp_path}/"))
    loaded = load_file(str(file), REGISTRY)
    assert loaded.config is not None, loaded.render()
    assert problems(loaded.config) == []
    configured = loaded.config.routers[0].base.client
    if name == "mutualTls":
        (base,) = effective(configured, read_path("/#/io.l5d.fs/web"), ClientBase)
        assert (base.tls.common_name, base.tls.client_auth.key_path.text) == ("foo", f"{tmp_path}/clientKey.pem")
    elif name == "tls":
        (base,) = effective(configured, read_path("/#/io.l5d.fs/web"), ClientBase)
        assert base.tls.common_name == "web"
    else:
        (on,) = effective(configured, read_path("/$/inet/www.google.com/443"), ClientBase)
        (off,) = effective(configured, read_path("/$/inet/localhost/7777"), ClientBase)
        assert (on.tls.common_name, on.tls.enabled, off.tls.enabled) == ("www.google.com", True, False)
