"""What a plugin looks like: an entry point, a kind, a config class and a function that makes the thing.

Entry points are ``"<kind>" = "<module>:<PLUGIN>"`` in the groups of :data:`GROUPS`; the object is a :class:`Plugin`.
Built-ins register in the same way, in this distribution's metadata. The config class is an attrs class whose
attributes are the YAML keys in snake case (``root_dir`` is written ``rootDir``); what it does not have is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from random import random
from typing import Any, Protocol, runtime_checkable

import attrs

from dtab import Addr, Namer, Path
from router.model.backoff import Backoff
from router.model.exchange import Exchange
from router.model.expiry import NO_LIMITS, SessionLimits
from router.model.failure import Failure
from router.model.headers import RequestHead
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.service import Service
from router.model.stack import Module
from router.model.trace import Span
from router.model.verdict import Classifier

GROUPS = {
    "protocol": "waypost.protocols",
    "identifier": "waypost.identifiers",
    "namer": "waypost.namers",
    "interpreter": "waypost.interpreters",
    "balancer": "waypost.balancers",
    "classifier": "waypost.classifiers",
    "accrual": "waypost.accruals",
    "backoff": "waypost.backoffs",
    "telemeter": "waypost.telemeters",
    "propagator": "waypost.propagators",
    "transformer": "waypost.transformers",
}


@attrs.frozen
class Plugin:
    """One kind of thing.

    ``make(config, context)`` returns the thing; what the context is, each category's protocol below says.
    ``protocols``: the router protocols with which an identifier or classifier can be used (empty: all).
    ``recorder`` and ``tracer``, of telemeters: make the :class:`Recorder` and the :class:`Tracer` of a worker, of the config.
    """

    kind: str
    config: type[Any]
    make: Callable[[Any, Any], Any]
    protocols: frozenset[str] = frozenset()
    recorder: Callable[[Any], Recorder] | None = None
    tracer: Callable[[Any], Tracer] | None = None


# -- identifiers: make(config, IdentifierContext) -> Identifier ------------------------------------------------


@attrs.frozen
class IdentifierContext:
    """``prefix``: the router's dstPrefix, put in front of every name."""

    prefix: Path


Identifier = Callable[[RequestHead], "Path | tuple[Path, RequestHead] | str"]
"""Gives a request its name: a path; or a path and the head to go on with (``consume``); or, when it has none, why."""


# -- namers: make(config, NamerContext) -> Namer ------------------------------------------------------------------


@attrs.frozen
class NamerContext:
    """``host`` runs what must wait; ``metrics`` is the namer's own scope."""

    host: Host
    metrics: Metrics


MakeNamer = Callable[[Any, NamerContext], Namer]


@attrs.frozen
class Watched:
    """What a namer knows of one name, now.

    ``name``: below the namer's prefix. ``source``: what is watched. ``state``: in the namer's words (``pending``, ``bound``,
    ``neg``, ``failed``, ``directory``). ``since``: when that last changed; ``error``, ``error_at``: what went wrong last, which
    may be over (empty and 0: nothing yet). Seconds of the epoch. ``addr``: what the name is bound to.
    """

    name: str
    source: str
    state: str
    since: float
    error: str = ""
    error_at: float = 0.0
    addr: Addr | None = None


@runtime_checkable
class Watching(Protocol):
    """A namer that can tell what it watches."""

    def watched(self) -> Iterable[Watched]:
        """The names that are in use, and the places that were looked at on the way to them."""
        ...


@runtime_checkable
class Enumerating(Protocol):
    """A namer that can tell what names there are."""

    def names(self) -> Iterable[Path]:
        """All of them, below the namer's prefix, in use or not; within a bound. Called in a thread."""
        ...


# -- classifiers: make(config, None) -> Classifier --------------------------------------------------------------


MakeClassifier = Callable[[Any, None], Classifier]


# -- balancers: make(config, BalancerContext) -> Balancing, one for each bound name ------------------------------


@attrs.frozen
class BalancerContext:
    """``now``: the worker's clock, in seconds. ``random``: uniform in [0, 1); tests pass their own."""

    now: Callable[[], float]
    random: Callable[[], float] = random


class Target(Protocol):
    """What a balancer chooses among: an endpoint with its load (exchanges under way) and its service.

    ``metric`` belongs to the balancer (None at first) and survives changes of the address set, as the load does.
    """

    load: int
    weight: float
    service: Service
    metric: Any

    @property
    def available(self) -> bool:
        """Whether it should be picked at all, given anything better."""
        ...

    def show(self) -> str:
        """The address, as text."""
        ...


Pick = Callable[[], "Target | None"]
"""Choose a target for one attempt, synchronously; None when there is none."""

MakePicker = Callable[[Sequence[Target]], Pick]
"""Make a picker from an immutable snapshot of targets; called again at each change."""

Ended = Callable[[Target, float, "bool | None"], None]
"""An exchange with the target is over: seconds from the pick to the response head (to the end where none came), and whether it
was a success; None where it was ended early by somebody else, so that the seconds are the least that it would have taken.
Called after the load was taken back."""

Fresh = Callable[[Target], None]
"""The target was ejected and is to be tried again: what was measured of it is out of date."""


@attrs.frozen
class Balancing:
    """A balancer's policy for one bound name. ``ended`` and ``fresh`` are None where the policy does not care."""

    make_picker: MakePicker
    ended: Ended | None = None
    fresh: Fresh | None = None


# -- accruals: make(config, AccrualContext) -> Accrual ---------------------------------------------------------


@attrs.frozen
class AccrualContext:
    """``now``: the worker's clock, in seconds."""

    now: Callable[[], float]


class AccrualPolicy(Protocol):
    """Counts the failures of one endpoint."""

    def success(self) -> None:
        """An exchange succeeded."""

    def failure(self) -> bool:
        """An exchange failed: whether the endpoint is to be ejected now."""
        ...

    def revived(self) -> None:
        """The endpoint works again; begin anew."""


@attrs.frozen
class Accrual:
    """``policy()`` makes the policy of one endpoint; ``backoff()`` begins the waits, in seconds, of its ejections."""

    policy: Callable[[], AccrualPolicy]
    backoff: Backoff


# -- telemeters: make(config, TelemeterContext) -> Telemeter, in the supervisor ----------------------------------


@attrs.frozen
class TelemeterContext:
    """``snapshot()``: all metrics of all workers now, and the histograms of the last minute, both as
    ``router.telemeters.snapshot.Snapshot``."""

    snapshot: Callable[[], Awaitable[tuple[Any, Any]]]


@attrs.frozen
class Telemeter:
    """``endpoints``: by path of the admin interface, what makes its text of a request's Host. ``run`` pushes until cancelled;
    what it raises is told, and it is started again."""

    endpoints: Mapping[str, Callable[[str], Awaitable[str]]] = attrs.field(factory=dict)
    run: Callable[[], Awaitable[None]] | None = None


class Recorder(Protocol):
    """Keeps records of requests, JSON texts, in a worker. ``sample``: of which share, drawn when they come; ``capacity``: how
    many it keeps."""

    sample: float
    capacity: int

    def keep(self, record: str) -> None:
        """Called when a request is over."""

    @property
    def recent(self) -> list[tuple[float, str]]:
        """What is kept, the oldest first, each with the seconds of the epoch."""
        ...


class Tracer(Protocol):
    """Sends the spans of a worker somewhere. ``name``: for metrics and events; ``rate``: the share of traces that it wants.

    A batch is encoded a few spans at a time, since calls wait meanwhile, and delivered at once.
    """

    name: str
    rate: float

    def encode(self, spans: Sequence[Span]) -> Any:
        """A piece of a batch."""
        ...

    async def deliver(self, pieces: Sequence[Any]) -> None:
        """The batch, all that ``encode`` made of it. Runs as a trio task that is cancelled when it takes too long; what it
        raises costs the batch."""


# -- propagators: make(config, None) -> a form in which trace contexts are written, router.tracing.forms.Form ----


# -- protocols: the plugin's ``make`` returns a ProtocolPlugin (config and context are None) --------------------


class Session(Protocol):
    """One connection to an endpoint, as the pool sees it.

    ``free``: how many more exchanges can begin right now; 0 when busy, draining or closed. ``changed`` is set by the
    pool and called with the session whenever ``free`` rises from 0 or the session ends (``closed`` is then True).
    ``draining``: it takes nothing new any more, by its own wish or the peer's.
    """

    closed: bool
    draining: bool
    changed: Callable[[Session], None]

    @property
    def free(self) -> int:
        """See above."""
        ...

    @property
    def active(self) -> int:
        """How many exchanges are under way."""
        ...

    @property
    def begun(self) -> int:
        """A figure that each exchange raises; tells whether there were any since the last look."""
        ...

    def conduct(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """Conduct one exchange (a :data:`~router.model.service.Service`). Call only while ``free`` is positive, and
        start the coroutine at once. Raises :class:`~router.model.stale.StaleConnection` where the connection had ended
        and the exchange can be repeated on another one."""
        ...

    def drain(self) -> None:
        """Take nothing new; close when the last exchange is over."""

    def close(self) -> None:
        """Close now; exchanges under way fail."""


Connect = Callable[[str, int], Awaitable[Session]]
"""Open a session to (IP address, port). Runs as a trio task; raises OSError or a Failure."""

Render = Callable[[Exchange, Failure], None]
"""Answer an exchange that failed: before the head a whole response, after it a visible end. Never raises."""


Upgrade = Callable[[Any, RequestHead, bytes, bytes], None]
"""Go on with a connection (a wire) whose client asked for another protocol by Upgrade: the request, which becomes the first
exchange; the payload of its settings; the bytes read behind it."""


@attrs.frozen
class ServerContext:
    """What a protocol's server needs: ``service`` conducts, ``render`` answers failures, ``metrics`` is the server's
    scope (``rt/<label>/server/<ip>/<port>``). ``upgrades``: what the listener's connections can be upgraded to, by token; each
    server adds what it takes. ``session`` limits the life of its connections. ``tunnels``: what kinds clients may ask for."""

    host: Host
    poller: Any
    service: Service
    render: Render
    metrics: Metrics
    upgrades: dict[bytes, Upgrade] = attrs.field(factory=dict)
    session: SessionLimits = NO_LIMITS
    tunnels: frozenset[bytes] = frozenset()


@attrs.frozen
class ClientContext:
    """What a protocol's client needs. ``tls``: how endpoints are reached with TLS, for :func:`protocols.wire.dial.dial`;
    None: in clear. ``metrics``: the scope of all sessions of the router (``rt/<label>/client``); ``sessions``: those that are
    open, kept by the protocols that have gauges of them."""

    host: Host
    poller: Any
    metrics: Metrics
    tls: Any = None
    sessions: set[Any] = attrs.field(factory=set)


class Server(Protocol):
    """The connections of one listener that speak one protocol (``alpn``: its name in ALPN).

    ``patience``: seconds after which a connection whose protocol is not known yet is this one's, if it is the router's own.
    """

    alpn: str
    patience: float

    def admit(self, wire: Any, connections: int, *, tell: bool) -> bool:
        """Whether the listener, which has that many ``connections``, takes one more; the router's own protocol is asked.

        Else it was refused: in words only if ``tell``, since a client that awaits TLS could not read them.
        """
        ...

    def recognises(self, data: bytes) -> bool | None:
        """Whether a connection that begins like this speaks it; None while that cannot be told."""
        ...

    def adopt(self, wire: Any, data: bytes, since: float) -> None:
        """Serve a connection (a :class:`protocols.wire.connection.Connection`) that came at ``since``, by the host's clock,
        and of which ``data`` was read already."""

    def refuse(self, wire: Any, why: str) -> None:
        """Tell the peer of a connection why it is not served, and close it."""

    def drain(self) -> None:
        """Tell every connection to finish: GOAWAY in two steps, ``Connection: close``."""

    def end_tunnels(self) -> None:
        """End the tunnels that are open: their peers cannot be told to finish."""

    @property
    def connections(self) -> int:
        """How many are open."""
        ...


@attrs.frozen
class ProtocolPlugin:
    """A protocol of routers: ``http``, ``h2``, ``grpc``.

    ``router_config``, ``server_config`` and ``client_config`` are attrs classes with the keys that this protocol adds
    to a router, to its servers and to its clients. ``serve(server_config, ServerContext)`` makes a :class:`Server`;
    ``connect(client_config, ClientContext)`` makes a :data:`Connect`. ``port``: the default of a server.
    ``identifier`` and ``classifier`` are default kinds. ``server_modules`` and ``client_modules`` are this protocol's own
    layers of the server and client stacks (gRPC's deadlines); ``edge_modules`` stand above the server's counters, where other
    forms of the protocol become its own (gRPC-Web). Servers have those of all protocols that they speak.
    ``alpn``: the protocol's name in ALPN. ``also``: the protocols whose clients a router of this one serves as well, each
    recognised by its first bytes. ``per_connection``: how many exchanges a new connection to an endpoint can be expected to
    carry at once; ``max_connections``: per endpoint, unless configured; ``surplus_idle``: after so many seconds without an
    exchange all connections to an endpoint but one are closed, unless configured (None: never).
    """

    name: str
    port: int
    identifier: str
    classifier: str
    router_config: type[Any]
    server_config: type[Any]
    client_config: type[Any]
    serve: Callable[[Any, ServerContext], Server]
    connect: Callable[[Any, ClientContext], Connect]
    render: Render
    server_modules: tuple[Module, ...] = ()
    edge_modules: tuple[Module, ...] = ()
    client_modules: tuple[Module, ...] = ()
    alpn: str = ""
    also: tuple[str, ...] = ()
    per_connection: int = 1
    max_connections: int = 1
    surplus_idle: float | None = None
