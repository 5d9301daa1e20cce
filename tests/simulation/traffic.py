"""Clients that come at random moments whether or not earlier ones were served, and what they saw."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from router.model.exchange import Exchange
from router.model.failure import Failure
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.service import Service
from router.model.strand import Strand
from tests.simulation.world import World

Seen = tuple[float, float, bool]
"""One request: when it began and ended (seconds), and whether it succeeded. Plain, so that collections pass over it."""


class _Reply:
    """The client's side of an exchange without a body."""

    __slots__ = ("head", "source", "started")
    carries_grpc = False
    discreet = False

    def __init__(self) -> None:
        self.source: Any = None
        self.started = False
        self.head: ResponseHead | None = None

    def inform(self, head: ResponseHead) -> None:
        pass

    def start(self, head: ResponseHead, end: bool) -> _Reply:
        assert not self.started, "a response that begins twice"
        self.started, self.head = True, head
        return self

    def data(self, chunk: Any, size: int, end: bool) -> None:
        raise AssertionError("simulated answers have no body")

    def end(self, trailers: Fields) -> None:
        pass

    def abort(self, failure: Failure) -> None:
        pass


class Traffic:
    """``rate(time)``: requests a second; ``patience``: the deadline of each, in seconds from its arrival. ``seen`` grows
    in the order in which requests end."""

    def __init__(self, world: World, service: Service, rate: Callable[[float], float], patience: float | None) -> None:
        self._world = world
        self._service = service
        self._rate = rate
        self._patience = patience
        self._head = RequestHead(b"GET", b"http", b"web", b"/")
        self._head.shared = True
        self.seen: list[Seen] = []
        self.begun = 0
        self._until = 0.0
        self._rng = Random(world.seed + 1)  # its own, so that the same requests come whatever else happens

    def begin(self, until: float) -> None:
        """Send requests until then."""
        self._until = until
        self._world.after(0.0, self._next)

    def _next(self, _: Any) -> None:
        world = self._world
        if self.begun:
            self._send()
        when = world.time + self._rng.expovariate(self._rate(world.time))
        if when < self._until:
            self.begun += 1
            world.at(when, self._next)

    def _send(self) -> None:
        exchange = Exchange(self._world.host, self._head, None, _Reply())
        strand = Strand(self._world.host, self._conduct(exchange))
        exchange.strand = strand
        if self._patience is not None:
            exchange.tighten(exchange.received_at + self._patience, "client")
        strand.start()

    async def _conduct(self, exchange: Exchange) -> None:
        good = False
        reply: Any = exchange.reply
        try:
            await self._service(exchange)
            good = exchange.complete and reply.head.status < 500
        except Failure:
            pass
        finally:
            self.seen.append((exchange.received_at, self._world.time, good))
            exchange.close()
