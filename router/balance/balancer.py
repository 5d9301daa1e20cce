"""The endpoints of one bound name, and the choice among them.

Addresses come from the bound name's activity. Endpoints (host and port) that survive a change keep their loads and
connections, also when their weight or metadata changes; each change makes a new immutable picker. Exchanges that come before
the first answer wait for it: at most ``MAX_WAITERS`` of them, and no longer than the binding timeout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from math import inf
from typing import Any

from dtab import Activity, Addr, AddrBound, AddrFailed, AddrPending, Endpoint, Failed, Ok, State
from router.balance.breaker import ALIVE, Breaker, BreakerSettings, cause_of
from router.balance.endpoints import keep_known
from router.balance.roster import Roster
from router.balance.tunnels import Sessions
from router.model.exchange import GRPC_OK, Attempt, Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.metrics import Metrics
from router.model.service import Service
from router.model.strand import Waiter
from router.model.timers import Timer, Timers
from router.model.verdict import SUCCESS
from router.spi import Balancing, Fresh, Pick, Target

MAX_WAITERS = 10_000
SHOWN = 20  # addresses that a failure lists
PICKS = 3  # picks to find an endpoint that was not tried yet, before all are looked through


class EndpointTarget:
    """One endpoint: its load (exchanges under way), its weight, its pool, its breaker, the balancer's own figures about it."""

    __slots__ = (
        "_fresh", "available", "breaker", "endpoint", "full", "joined", "leaves", "load", "metric", "pool", "service", "shown",
        "weight",
    )  # fmt: skip

    def __init__(
        self, endpoint: Endpoint, pool: Sessions, settings: BreakerSettings | None, fresh: Fresh | None = None
    ) -> None:
        self.endpoint = endpoint
        self.shown = endpoint.show()
        self.pool = pool
        self.weight = self.full = endpoint.weight
        self.joined, self.leaves = -inf, inf
        self.load = 0
        self.metric: Any = None
        self.available = True
        self._fresh = fresh
        self.service: Service = pool.conduct
        self.breaker = None if settings is None else Breaker(settings, self, self.show)

    def show(self) -> str:
        """The address, for events."""
        return self.shown

    def fresh(self) -> None:
        """The balancer's figures are out of date."""
        if self._fresh is not None:
            self._fresh(self)

    def hurry(self) -> None:
        """See :class:`~router.balance.breaker.Switched`."""
        self.pool.hurry()

    def close(self) -> None:
        """Take nothing new; exchanges under way finish."""
        self.available = False
        self.pool.close()
        if self.breaker is not None:
            self.breaker.retire()


class Balancer:
    """Conducts exchanges with the endpoints of one name; ``conduct`` is the service."""

    def __init__(
        self,
        addr: Activity[Addr],
        balancing: Balancing,
        make_pool: Callable[[Endpoint], Sessions],
        timers: Timers,
        metrics: Metrics,
        breakers: BreakerSettings | None = None,
        roster: Roster = Roster(),  # noqa: B008 - frozen
        timeout: float = 10.0,
    ) -> None:
        self._make_picker = balancing.make_picker
        self._ended = balancing.ended
        self._fresh = balancing.fresh
        self._make_pool = make_pool
        self._breakers = breakers
        self._roster = roster
        self._timers = timers
        self._timer: Timer | None = None
        self._timeout = timeout
        self._known: Addr = AddrPending()
        self._targets: dict[tuple[str, int], EndpointTarget] = {}
        self._pick: Pick = balancing.make_picker(())
        self._waiters: dict[int, Waiter[None]] = {}
        metrics.gauge("endpoints", lambda: len(self._targets))
        metrics.gauge("connections", lambda: sum(target.pool.sessions for target in self._targets.values()))
        metrics.gauge("load", lambda: sum(target.load for target in self._targets.values()))
        self._observation = addr.observe(self._news)

    @property
    def known(self) -> Addr:
        """What discovery has said last, bad news after good ones left out."""
        return self._known

    @property
    def targets(self) -> list[EndpointTarget]:
        """The endpoints in use."""
        return list(self._targets.values())

    async def conduct(self, exchange: Exchange) -> None:
        """Pick an endpoint and let it conduct the exchange."""
        target = self._pick() if not exchange.tried else self._pick_another(exchange.tried)
        if target is None:
            await self._wait(exchange)
            target = self._pick()
            if target is None:
                raise self._no_endpoints()
        assert isinstance(target, EndpointTarget)
        exchange.endpoint = target.endpoint
        target.load += 1
        breaker = target.breaker
        epoch = 0 if breaker is None else breaker.epoch if breaker.state is ALIVE else breaker.begins()
        started = 0.0 if self._ended is None and exchange.attempts is None else exchange.host.timers.now()
        try:
            await target.service(exchange)
        except Failure as failure:
            if failure.kind is Kind.CONNECT:
                failure.why = self._whereabouts(exchange, failure.why)
            exchange.failure = failure
            raise
        finally:
            target.load -= 1
            if breaker is not None:
                breaker.ended(exchange, epoch)
            if exchange.attempts is not None:
                trailers, heard = exchange.trailers, exchange.responded_at
                usual = trailers and trailers[0] == GRPC_OK and exchange.failure is None
                outcome = "ok" if usual else _outcome(exchange)
                exchange.attempts.append(_attempt((target.shown, outcome, started, heard, exchange.host.timers.now())))
            if self._ended is not None:
                until = exchange.responded_at or exchange.now()
                self._ended(target, until - started, exchange.judged is SUCCESS or _went_well(exchange))

    def _pick_another(self, tried: tuple[Any, ...]) -> Target | None:
        """Avoid endpoints that failed this request already, as long as there is another one."""
        for _ in range(PICKS):
            target = self._pick()
            if not isinstance(target, EndpointTarget) or target.endpoint not in tried:
                return target
        others = (other for other in self._targets.values() if other.available and other.endpoint not in tried)
        return next(others, target)

    async def _wait(self, exchange: Exchange) -> None:
        """Wait for the first answer of discovery."""
        if not isinstance(self._known, AddrPending):
            return
        if len(self._waiters) >= MAX_WAITERS:
            raise Failure(Kind.OVERLOADED, "too many requests wait for addresses", retryable=True, rejected=True)
        waiter: Waiter[None] = Waiter()
        self._waiters[id(waiter)] = waiter
        timer = exchange.host.timers.after(self._timeout, self._expire, (waiter, exchange))
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.pop(id(waiter), None)

    def _expire(self, waiting: tuple[Waiter[None], Exchange]) -> None:
        waiter, exchange = waiting
        why = f"Exceeded {self._timeout:g}.seconds binding timeout while resolving name: {exchange.path.show()}"
        waiter.throw(Failure(Kind.BINDING_TIMEOUT, why, Blame.ROUTER, retryable=True))

    def _whereabouts(self, exchange: Exchange, why: str) -> str:
        """What could not be connected to, and what else there was to choose from."""
        shown = ", ".join([target.endpoint.show() for target in islice(self._targets.values(), SHOWN)])
        more = len(self._targets) - SHOWN
        shown += f", and {more} more" if more > 0 else ""
        names = [("service name", exchange.path), ("client name", exchange.bound and exchange.bound.id)]
        lines = [f"{title}: {name.show()}" for title, name in names if name is not None]
        return "\n".join([why, "", *lines, f"addresses: [{shown}]", f"selected address: {exchange.endpoint.show()}"])

    def _no_endpoints(self) -> Failure:
        known = self._known
        why = f": {known.cause}" if isinstance(known, AddrFailed) else ""
        return Failure(Kind.NO_ENDPOINTS, f"no endpoints are available{why}", Blame.UPSTREAM, retryable=True)

    def _news(self, state: State[Addr]) -> None:
        if isinstance(state, Ok):
            news: Addr = state.value
        else:
            news = AddrFailed(str(state.error)) if isinstance(state, Failed) else AddrPending()
        known = keep_known(self._known, news)
        if known != self._known:
            self._known = known
            self._update(known.endpoints if isinstance(known, AddrBound) else frozenset())
        if not isinstance(known, AddrPending):
            waiters, self._waiters = self._waiters, {}
            for waiter in waiters.values():
                waiter.wake(None)

    def _update(self, endpoints: frozenset[Endpoint]) -> None:
        """Keep what survives, make a new picker, then close what is gone: exchanges that fail by that may pick anew at once."""
        before, self._targets = self._targets, {}
        now = self._timers.now()
        for endpoint in sorted(endpoints, key=lambda endpoint: (endpoint.host, endpoint.port, endpoint.weight, endpoint.meta)):
            key = (endpoint.host, endpoint.port)
            target = before.get(key) or self._targets.get(key)
            if target is None:
                target = EndpointTarget(endpoint, self._make_pool(endpoint), self._breakers, self._fresh)
                self._roster.joins(target, now, alone=not before)
            target.endpoint, target.full, target.leaves = endpoint, endpoint.weight, inf
            self._targets[key] = target
        self._part_with({key: target for key, target in before.items() if key not in self._targets}, now)

    def _part_with(self, leaving: dict[tuple[str, int], EndpointTarget], now: float) -> None:
        """Go on without those of ``leaving`` that do not stay on probation."""
        staying = {key: target for key, target in leaving.items() if self._roster.stays(target, now)}
        self._targets.update(staying)
        self._remake()
        for key, target in leaving.items():
            if key not in staying:
                target.close()

    def _remake(self) -> None:
        """Make a picker of the present targets and weights, and look again when those change by themselves."""
        now = self._timers.now()
        for target in self._targets.values():
            self._roster.weigh(target, now)
        self._pick = self._make_picker(tuple(self._targets.values()))
        if self._timer is not None:
            self._timer.cancel()
        due = self._roster.due(list(self._targets.values()), now)
        self._timer = None if due is None else self._timers.after(due, self._look_again)

    def _look_again(self, _: Any) -> None:
        leaving = {key: target for key, target in self._targets.items() if target.leaves < inf}
        self._targets = {key: target for key, target in self._targets.items() if key not in leaving}
        self._part_with(leaving, self._timers.now())

    def close(self) -> None:
        """Stop watching; exchanges under way finish."""
        self._observation.close()
        if self._timer is not None:
            self._timer.cancel()
        self._pick = self._make_picker(())
        for target in self._targets.values():
            target.close()


_attempt = partial(tuple.__new__, Attempt)  # without the call in Python that a NamedTuple makes


def _outcome(exchange: Exchange) -> str:
    """What came of an attempt, in the words of events."""
    if exchange.complete and exchange.failure is None and exchange.grpc_status == b"0":
        return "ok"
    return cause_of(exchange)


def _went_well(exchange: Exchange) -> bool | None:
    """Whether the endpoint did what it could; None where it was not given the time (see :data:`router.spi.Ended`)."""
    if (exchange.judged or exchange.verdict) is SUCCESS:
        return True
    failure = exchange.failure
    if failure is None or (failure.blame is Blame.UPSTREAM and not failure.rejected):
        return False
    return True if exchange.responded_at else None
