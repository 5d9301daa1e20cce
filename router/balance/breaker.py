"""The circuit breaker of one endpoint: ejected when its failures are too many, tried again with one exchange at a time.

Theory of operation

1. ALIVE: every exchange that says something about the endpoint goes to the accrual policy. When that has enough the
   endpoint is EJECTED: not ``available`` to pickers, for the next wait of its back-off.
2. After the wait it is OPEN to one probe: available until the next exchange comes, which makes it PROBED, and unavailable
   again. A good probe revives it, with a fresh policy and back-off; a bad one ejects it for the next wait. One that takes
   longer than ``PROBE_PATIENCE`` (a stream, perhaps) proves nothing: another may come.
3. When all endpoints are ejected pickers pick one anyway. Such an exchange revives the endpoint if it is good. The first to
   revive while no other is ALIVE opens the others to a probe: what failed them all was likely one cause, and is over; left to
   their back-offs they would leave all the load to the first.
4. An exchange counts only within the state in which it began: a success from before an ejection proves nothing.
5. Failures are verdicts other than SUCCESS, whatever made them: a status, a gRPC status in trailers, a reset, a timeout, a
   refused connection. What says nothing about the endpoint's health counts neither way: whatever the client is to blame for,
   limits and faults of ours, and answers that say "overloaded", for which retries, back-off and balancing are the cure.
6. ``fail_fast``: one connection that cannot be opened is enough, for waits of its own (Finagle's: 1 s doubling to 32 s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Protocol

import attrs

from router.model.backoff import Backoff, equal_jitter
from router.model.exchange import Exchange
from router.model.failure import ENHANCE_YOUR_CALM, REFUSED_STREAM, Blame, Failure, Kind
from router.model.headers import ResponseHead
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.verdict import SUCCESS
from router.spi import Accrual

PROBE_PATIENCE = 10.0
FAIL_FAST_MIN, FAIL_FAST_MAX = 2.0, 64.0  # equal jitter halves them at least
_OVERLOADED_CODES = frozenset((REFUSED_STREAM, ENHANCE_YOUR_CALM))


class State(Enum):
    """See the theory of operation."""

    ALIVE = "alive"
    EJECTED = "ejected"
    OPEN = "open to a probe"
    PROBED = "probed"


ALIVE, EJECTED, OPEN, PROBED = State.ALIVE, State.EJECTED, State.OPEN, State.PROBED


class Switched(Protocol):
    """What a breaker switches off and on; ``fresh`` is called when it is to be tried again."""

    available: bool

    def fresh(self) -> None:
        """What was known before the ejection is out of date."""

    def hurry(self) -> None:
        """Try to connect again, whatever waits there are."""


class BreakerStats:
    """What the breakers of one client count, by Linkerd's names."""

    def __init__(self, metrics: Metrics) -> None:
        scope = metrics.scope("failure_accrual")
        self.removals, self.revivals = scope.counter("removals"), scope.counter("revivals")
        self.probes, self.removed_for = scope.counter("probes"), scope.counter("removed_for_ms")


@attrs.frozen
class BreakerSettings:
    """What the breakers of one client have in common. ``client``: its name, for events."""

    host: Host
    accrual: Accrual
    stats: BreakerStats
    client: str
    fail_fast: bool = False
    breakers: dict[Breaker, None] = attrs.field(factory=dict, init=False)  # those in use


class Breaker:
    """One endpoint's breaker; ``show``: the endpoint as text."""

    __slots__ = ("_cause", "_failures", "_policy", "_settings", "_show", "_since", "_target", "_timer", "_waits", "epoch",
                 "state", "until")  # fmt: skip

    def __init__(self, settings: BreakerSettings, target: Switched, show: Callable[[], str]) -> None:
        self.state = ALIVE
        self.epoch = 0
        self.until = 0.0  # the host's clock; the end of the present ejection
        self._settings = settings
        self._target = target
        self._show = show
        self._policy = settings.accrual.policy()
        self._waits: Iterator[float] | None = None
        self._timer: Any = None
        self._since = 0.0
        self._failures = 0
        self._cause = ""
        settings.breakers[self] = None

    # -- exchanges ------------------------------------------------------------------------------------------

    def begins(self) -> int:
        """An exchange begins; returns what :meth:`ended` wants to have back. Needed only while not ALIVE."""
        if self.state is OPEN:
            self._settings.stats.probes.value += 1
            self._timer = self._settings.host.timers.after(PROBE_PATIENCE, self._reopen)
            self._go(PROBED, available=False)
        return self.epoch

    def ended(self, exchange: Exchange, epoch: int) -> None:
        """An exchange is over."""
        if epoch != self.epoch:
            return
        if (exchange.judged or exchange.verdict) is SUCCESS:
            if self.state is ALIVE:
                self._policy.success()
            else:
                self._revive()
        elif says_something(exchange):
            self._failed(exchange)
        elif self.state is PROBED:
            self.close()
            self._reopen(None)

    def _failed(self, exchange: Exchange) -> None:
        self._failures += 1
        self._cause = cause_of(exchange)
        if self.state is ALIVE:
            failure = exchange.failure
            if self._settings.fail_fast and failure is not None and failure.kind is Kind.CONNECT:
                self._eject(equal_jitter(FAIL_FAST_MIN, FAIL_FAST_MAX))
            elif self._policy.failure():
                self._eject(self._settings.accrual.backoff)
        elif self.state is PROBED:
            self.close()
            self._eject(None)

    # -- states ---------------------------------------------------------------------------------------------

    def _go(self, state: State, *, available: bool) -> None:
        self.state = state
        self.epoch += 1
        self._target.available = available

    def _eject(self, backoff: Backoff | None) -> None:
        """For the first wait of ``backoff``, or the next one of the ejection before."""
        settings = self._settings
        if backoff is not None:
            self._waits = backoff()
        assert self._waits is not None
        wait = next(self._waits)
        now = settings.host.timers.now()
        if self.state is ALIVE:
            self._since = now
            settings.stats.removals.value += 1
        self.until = now + wait
        self._timer = settings.host.timers.at(self.until, self._reopen)
        self._go(EJECTED, available=False)
        settings.host.events.warn(
            "endpoint_ejected", client=settings.client, endpoint=self._show(), cause=self._cause, failures=self._failures,
            for_s=round(wait, 3),
        )  # fmt: skip

    def _reopen(self, _: Any) -> None:
        self._timer = None
        self._target.fresh()
        self._go(OPEN, available=True)

    def _revive(self) -> None:
        settings = self._settings
        self.close()
        if not any(peer.state is ALIVE for peer in settings.breakers):
            for peer in settings.breakers:
                peer.open()
        settings.stats.revivals.value += 1
        gone = settings.host.timers.now() - self._since
        settings.stats.removed_for.value += round(gone * 1000)
        self._policy.revived()
        self._failures = 0
        self._go(ALIVE, available=True)
        settings.host.events.emit("endpoint_revived", client=settings.client, endpoint=self._show(), after_s=round(gone, 3))

    def open(self) -> None:
        """If ejected, let a probe come now, and try to connect if that is what it takes."""
        if self.state is EJECTED:
            self._target.hurry()
            self.close()
            self._reopen(None)

    def retire(self) -> None:
        """The endpoint is gone: exchanges under way prove nothing any more."""
        self._settings.breakers.pop(self, None)
        self.close()
        self.epoch += 1

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def says_something(exchange: Exchange) -> bool:
    """Whether an exchange that was no success is one of the endpoint's failures."""
    failure = exchange.failure
    if failure is not None:
        return failure.blame is Blame.UPSTREAM and not failure.rejected and failure.code not in _OVERLOADED_CODES
    response = exchange.response
    return response is None or not _overloaded(exchange, response)


def _overloaded(exchange: Exchange, response: ResponseHead) -> bool:
    status = response.status
    if status == 429 or exchange.grpc_status == b"8":
        return True
    if b"grpc-retry-pushback-ms" in response or any(name == b"grpc-retry-pushback-ms" for name, _ in exchange.trailers):
        return True
    return (status == 503 and b"retry-after" in response) or b"finagle-http-nack" in response


def cause_of(exchange: Exchange) -> str:
    """A few words for an event: what made the exchange a failure."""
    failure: Failure | None = exchange.failure
    if failure is not None:
        return failure.kind.value if failure.code is None else f"{failure.kind.value} {failure.code:#x}"
    status = exchange.grpc_status
    if status is not None:
        return f"grpc-status {status.decode('ascii', 'replace')}"
    return "no response" if exchange.response is None else f"status {exchange.response.status}"
