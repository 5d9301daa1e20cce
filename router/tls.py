"""TLS of a configuration: its files read and judged, SSL contexts made of them, and made anew when the files change.

Theory of operation

1. Contexts are shared by whoever has the same files and settings; names of endpoints are not part of them. A file is read
   once for each attempt to make a context, so that what was checked is what is used.
2. Every ``PERIOD`` seconds the files' state (identity, size, time, through links) is looked at. A change that has stood still
   for one period makes a new context, in a thread; when that works it takes the place of the old one, for new connections.
   Otherwise the old one stays, an event and a counter say so, and nothing happens until the files change again.
3. Bounds: a context per listener and per distinct ``tls`` of a client and protocol, ``MAX_FILE`` bytes a file.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import trio

from protocols.wire.credentials import CredentialFault, KeyPair, client_context, expiry, server_context
from protocols.wire.dial import Secure
from protocols.wire.tls import Context
from router.config.errors import Problem
from router.config.schema import Config
from router.config.tls import ClientAuth, ClientTls, FileName, ServerTls
from router.model.host import Host
from router.model.metrics import Metrics

PERIOD = 1.0
MAX_FILE = 1 << 20
# How often the event of a refused certificate is repeated, in seconds, for each client configuration.
QUIET = 60.0


class FileFault(Exception):  # noqa: N818 - what CredentialFault is called too
    """A file that cannot be used, and why."""

    def __init__(self, file: FileName, why: str) -> None:
        super().__init__(f"{file.text}: {why}")
        self.file = file


# -- files to contexts ------------------------------------------------------------------------------------------


def _read(file: FileName) -> bytes:
    try:
        with open(file.text, "rb") as opened:
            data = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise FileFault(file, f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise FileFault(file, f"is larger than {MAX_FILE} bytes")
    return data


def _pair(tls: ServerTls | ClientAuth) -> KeyPair:
    chain = tls.intermediate_certs_path
    return KeyPair(_read(tls.cert_path), _read(tls.key_path), b"" if chain is None else _read(chain))


def _blamed(tls: ServerTls | ClientAuth | None, trust: tuple[FileName, ...], fault: CredentialFault) -> FileFault:
    """The file that a fault is about."""
    files: dict[str, FileName | None] = {"trust": trust[0] if trust else None}
    if tls is not None:
        files |= {"cert": tls.cert_path, "key": tls.key_path, "chain": tls.intermediate_certs_path}
    file = files[fault.role]
    assert file is not None
    return FileFault(file, fault.why)


def make_server(tls: ServerTls, alpn: Iterable[str]) -> tuple[ssl.SSLContext, float]:
    """The context of a listener, and when its certificate expires. Raises :class:`FileFault`."""
    pair = _pair(tls)
    trust = b"" if tls.ca_cert_path is None else _read(tls.ca_cert_path)
    try:
        context = server_context(
            pair,
            trust=trust,
            require=tls.require_client_auth,
            ciphers=tls.cipher_list,
            versions=tls.versions,
            alpn=tuple(alpn),
        )
        return context, expiry(pair)
    except CredentialFault as fault:
        raise _blamed(tls, () if tls.ca_cert_path is None else (tls.ca_cert_path,), fault) from None


def make_client(tls: ClientTls, alpn: str) -> tuple[ssl.SSLContext, float]:
    """The context of connections to endpoints, and when our own certificate expires (0: none). Raises :class:`FileFault`."""
    pair = None if tls.client_auth is None else _pair(tls.client_auth)
    trusted = [_read(file) for file in tls.trust]
    try:
        context = client_context(
            trust=b"\n".join(trusted),
            pair=pair,
            verify=not tls.disable_validation,
            versions=tls.versions,
            alpn=(alpn,) if alpn else (),
        )
        return context, 0.0 if pair is None else expiry(pair)
    except CredentialFault as fault:
        raise _blamed(tls.client_auth, tls.trust, fault) from None


def problems(config: Config) -> list[Problem]:
    """What is wrong with the files that a configuration names, each at the line that names it."""
    found: dict[tuple[str, int, int], Problem] = {}
    for make in _makers(config):
        try:
            make()
        except FileFault as fault:
            file = fault.file
            found[str(fault), file.line, file.column] = Problem(str(fault), file.line, file.column)
    return sorted(found.values(), key=lambda problem: (problem.line, problem.column))


def _makers(config: Config) -> Iterator[Callable[[], object]]:
    if (admin := config.admin.tls) is not None:
        yield lambda: make_server(admin, ())
    for router in config.routers:
        for server in router.servers:
            if server.base.tls is not None:
                yield lambda tls=server.base.tls: make_server(tls, ())  # type: ignore[misc]
        for _, values in router.base.client.configs:
            tls = values.get("tls")
            if tls is not None and tls.enabled:
                yield lambda tls=tls: make_client(tls, "")  # type: ignore[misc]


# -- contexts that follow their files ---------------------------------------------------------------------------


@attrs.define(eq=False)
class _Watched:
    """A context with the files it was made of."""

    files: tuple[str, ...]
    make: Callable[[], tuple[ssl.SSLContext, float]]
    context: Context
    expires_at: float
    state: Any  # of the files when they were read last
    seen: Any  # when they were looked at last


class Credentials:
    """The contexts of a worker."""

    def __init__(self, host: Host, metrics: Metrics) -> None:
        self._host = host
        self._watched: list[_Watched] = []
        self._clients: dict[tuple[Any, ...], Context] = {}
        self._metrics = metrics
        self._timer: Any = None

    def server(self, tls: ServerTls, alpn: tuple[str, ...], metrics: Metrics) -> Context:
        """The context of a listener; its scope gets the date of expiry. Raises :class:`FileFault`."""
        watched = self._watch(_files(tls, tls.ca_cert_path), lambda: make_server(tls, alpn))
        metrics.gauge("tls/expires_at", lambda: watched.expires_at)
        return watched.context

    def client(self, tls: ClientTls, alpn: str) -> Secure:
        """How endpoints are reached under a configuration. Raises :class:`FileFault`."""
        key = (attrs.evolve(tls, common_name="-"), alpn)
        context = self._clients.get(key)
        if context is None:
            own = () if tls.client_auth is None else _files(tls.client_auth)
            watched = self._watch((*own, *[file.text for file in tls.trust]), lambda: make_client(tls, alpn))
            context = self._clients[key] = watched.context
            if tls.client_auth is not None:
                self._metrics.scope("client", tls.client_auth.cert_path.text).gauge("expires_at", lambda: watched.expires_at)
        return Secure(context, tls.common_name or "", alpn, self._teller(), verify=not tls.disable_validation)

    def _teller(self) -> Callable[[str, str], None]:
        """Tells of refused certificates, once in a while: each attempt to connect fails anew."""
        quiet_until = 0.0

        def tell(address: str, why: str) -> None:
            nonlocal quiet_until
            now = self._host.timers.now()
            if now >= quiet_until:
                quiet_until = now + QUIET
                self._host.events.warn("certificate_not_accepted", address=address, why=why)

        return tell

    def _watch(self, files: tuple[str, ...], make: Callable[[], tuple[ssl.SSLContext, float]]) -> _Watched:
        state = _state(files)
        context, expires_at = make()
        watched = _Watched(files, make, Context(context), expires_at, state, state)
        self._watched.append(watched)
        if self._timer is None:
            self._timer = self._host.timers.after(PERIOD, self._tick)
        return watched

    def _tick(self, _: Any) -> None:
        self._timer = self._host.timers.after(PERIOD, self._tick)
        for watched in self.changed():
            self._host.nursery.start_soon(self.reload, watched)

    def changed(self) -> list[_Watched]:
        """Look at the files; returns what is to be made anew: what has changed and then stood still."""
        found = []
        for watched in self._watched:
            state = _state(watched.files)
            if state != watched.state and state == watched.seen:
                watched.state = state
                found.append(watched)
            watched.seen = state
        return found

    async def reload(self, watched: _Watched) -> None:
        """Make a context anew and use it for what comes, if it is good."""
        files = ",".join(watched.files)
        try:
            context, expires_at = await trio.to_thread.run_sync(watched.make)
        except FileFault as fault:
            self._metrics.counter("reload_failures").value += 1
            self._host.events.fail("certificate_reload_failed", files=files, why=str(fault))
            return
        watched.context.current, watched.expires_at = context, expires_at
        self._metrics.counter("reloads").value += 1
        self._host.events.emit("certificate_reloaded", files=files, expires_at=int(expires_at))

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()


def _files(tls: ServerTls | ClientAuth, more: FileName | None = None) -> tuple[str, ...]:
    return tuple([file.text for file in (tls.cert_path, tls.key_path, tls.intermediate_certs_path, more) if file is not None])


def _state(files: tuple[str, ...]) -> list[tuple[int, ...] | None]:
    """What tells one version of files from another."""
    states: list[tuple[int, ...] | None] = []
    for name in files:
        try:
            stat = os.stat(name)
        except OSError:
            states.append(None)
        else:
            states.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return states
