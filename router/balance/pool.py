"""The sessions to one endpoint.

Theory of operation

1. A session that can take another exchange is on a stack, the one used last on top, so that few connections stay warm and
   the others grow idle. Taking one is synchronous: an exchange that finds one never leaves its strand.
2. Otherwise the exchange queues, and connections are opened: one for as many waiters as a connection carries (as many as the
   last one that opened could, at most ``per_connection``), at most ``max_connections``, no faster than
   :mod:`router.balance.pace` allows. A peer that allows fewer streams than hoped for only makes the queue wait, or more
   connections open; it never makes an exchange fail.
3. A connection that cannot be opened fails everybody who waits if nobody else could serve them: no session, no other attempt.
   While such an endpoint is in its back-off, exchanges fail at once, and while one connection is tried again, those beyond what
   it would carry: another endpoint may have them. A bug in a protocol's connect counts as such a failure, and is reported.
   An endpoint that accepts a connection and lets nothing in (it drains, or allows no stream) has not let us connect.
4. Sessions leave by their own ends (the peer's close, GOAWAY), by ``SessionLimits``, and when they are idle for
   ``surplus_idle`` while there are more than ``min_size``: they drain, so that no exchange is lost to it. What drains takes
   nothing new. Connections that multiplex do not count while they drain (at most ``max_connections`` of them), since one
   long stream would keep a place for ever.
5. A request whose connection was stale (:mod:`router.model.stale`) is repeated here, unseen by balancers and breakers: where
   it never left, on any other session, each of which ends by it or serves; where it may have arrived, once, and not on a
   session that was idle as the stale one was, if another can be opened.
6. A closed pool fails whoever comes.
7. Bounds: ``max_waiters`` in the queue (beyond it: OVERLOADED), ``connect_timeout`` for an attempt to connect,
   ``MAX_ATTEMPTS`` attempts at once.
"""

from __future__ import annotations

import errno
import os
from typing import Any

import attrs
import trio

from router.balance.pace import Pace
from router.balance.pool_stats import PoolStats
from router.model.backoff import Backoff, equal_jitter
from router.model.exchange import Exchange, deadline_failure
from router.model.expiry import NO_LIMITS, Expiry, SessionLimits
from router.model.failure import Blame, Failure, Kind
from router.model.host import Host
from router.model.stale import StaleConnection
from router.model.strand import Waiter
from router.model.timers import Timer
from router.spi import Connect, Session

RECONNECT_MIN, RECONNECT_MAX = 0.1, 1.0  # seconds; equal jitter halves them at least
TELL_EVERY = 10.0  # seconds between two events about the same endpoint
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))  # with us, not there


@attrs.frozen
class PoolSettings:
    """What the pools of one client have in common. Seconds; ``surplus_idle`` None: for ever."""

    per_connection: int = 1
    max_connections: int = 4096
    min_size: int = 0
    max_waiters: int = 10_000
    surplus_idle: float | None = None
    session: SessionLimits = NO_LIMITS
    connect_timeout: float = 1.0
    backoff: Backoff = attrs.field(factory=lambda: equal_jitter(RECONNECT_MIN, RECONNECT_MAX))


class Pool:
    """Sessions of one endpoint; ``conduct`` is the service."""

    def __init__(
        self, host: Host, connect: Connect, address: tuple[str, int], settings: PoolSettings, stats: PoolStats
    ) -> None:
        self._host = host
        self._connect = connect
        self.address = address
        self._settings = settings
        self._stats = stats
        self._open: list[Session] = []
        self._stacked: set[Session] = set()
        self._sessions: dict[Session, tuple[Expiry, ...]] = {}
        self._waiters: dict[int, Waiter[Session]] = {}
        self._carries = settings.per_connection
        self._pace = Pace(host.timers.now, settings.backoff)
        self._alarm: Timer | None = None
        self._why = ""  # the last attempt failed
        self._blame = Blame.UPSTREAM
        self._unreachable = False  # an event has said so
        self._told = -TELL_EVERY
        self._closed = False
        stats.pools.add(self)

    @property
    def sessions(self) -> int:
        """How many connections there are."""
        return len(self._sessions)

    @property
    def idle(self) -> int:
        """How many connections have nothing to do."""
        return sum(not session.active for session in self._sessions)

    @property
    def waiting(self) -> int:
        """How many exchanges wait for a connection."""
        return len(self._waiters)

    @property
    def connecting(self) -> int:
        """How many connections are being opened."""
        return self._pace.connecting

    # -- exchanges ------------------------------------------------------------------------------------------

    async def conduct(self, exchange: Exchange) -> None:
        """Conduct an exchange over a session."""
        session = self._ready()
        if session is None:
            session = await self._acquire(exchange)
        try:
            await session.conduct(exchange)
        except StaleConnection as stale:
            await self._repeat(exchange, stale)

    def _ready(self) -> Session | None:
        stack = self._open
        while stack:
            session = stack[-1]
            if session.free:
                return session
            self._stacked.discard(stack.pop())
        return None

    async def _acquire(self, exchange: Exchange) -> Session:
        """A session that was not on the stack."""
        session: Session | None = None
        while session is None:
            session = await self._wait()
            exchange.sent_at = exchange.now()
            if exchange.sent_at >= exchange.deadline:  # the wheel has not turned yet, but it will: do not begin what is over
                raise deadline_failure(exchange.deadline_cause, exchange.deadline - exchange.received_at)
            if not session.free:
                session = self._ready()
        return session

    async def _repeat(self, exchange: Exchange, failure: StaleConnection) -> None:
        """See rule 5."""
        sent = 0
        while True:
            sent += failure.sent
            if sent > 1 or self._closed or not _rewind(exchange):
                raise failure
            self._stats.replays.value += 1
            session = self._ready() if not failure.sent or not self._can_open() else None
            if session is None:
                session = await self._acquire(exchange)
            try:
                return await session.conduct(exchange)
            except StaleConnection as again:
                failure = again

    async def _wait(self) -> Session:
        refusal = self._refusal()
        if refusal is not None:
            raise refusal
        waiter: Waiter[Session] = Waiter()
        self._waiters[id(waiter)] = waiter
        self._stats.waited.value += 1
        self._grow()
        try:
            return await waiter
        finally:
            self._waiters.pop(id(waiter), None)

    def _refusal(self) -> Failure | None:
        """Why an exchange cannot even wait."""
        waiting = len(self._waiters)
        if self._closed:
            return _removed()
        if waiting >= self._settings.max_waiters:
            self._stats.too_many.value += 1
            return Failure(Kind.OVERLOADED, "too many requests wait for a connection", retryable=True, rejected=True)
        if self._pace.failing and not self._serving():
            tried = self._pace.connecting
            if waiting >= tried * self._carries if tried else self._pace.waiting:
                return self._unreachable_failure()
        return None

    # -- opening --------------------------------------------------------------------------------------------

    def _serving(self) -> bool:
        """Whether there is a session that takes, or will take, further exchanges."""
        return any(not (session.draining or session.closed) for session in self._sessions)

    def _taken(self) -> int:
        """How many of ``max_connections`` are in use."""
        sessions, most = len(self._sessions), self._settings.max_connections
        if self._settings.per_connection > 1:
            sessions -= min(most, sum(session.draining for session in self._sessions))
        return sessions + self._pace.connecting

    def _can_open(self) -> bool:
        """Whether a connection is being opened, or could be now."""
        pace = self._pace
        return pace.connecting > 0 or (pace.may_begin() and self._taken() < self._settings.max_connections)

    def _grow(self) -> None:
        """Open as many connections as the queue asks for and the pace allows."""
        pace, most = self._pace, self._settings.max_connections
        wanted = -(-len(self._waiters) // self._carries)
        while pace.connecting < wanted and not self._closed and self._taken() < most:
            if not pace.may_begin():
                break
            pace.connecting += 1
            self._host.nursery.start_soon(self._open_one)
        if pace.waiting and wanted and self._alarm is None:
            self._alarm = self._host.timers.at(pace.until, self._try_again)

    def _try_again(self, _: Any) -> None:
        self._alarm = None
        if self._waiters:
            self._grow()

    async def _open_one(self) -> None:
        host, port = self.address
        error: BaseException | None = None
        session: Session | None = None
        started = self._host.timers.now()
        try:
            with trio.fail_after(self._settings.connect_timeout):
                session = await self._connect(host, port)
        except (OSError, trio.TooSlowError, Failure) as problem:
            error = problem
        except Exception as bug:  # noqa: BLE001 - it ends the exchanges that waited, not the worker
            self._host.crashed(bug)
            error = bug
        finally:
            self._pace.connecting -= 1
        took = (self._host.timers.now() - started) * 1000.0
        if session is None:
            self._stats.failed(took)
            self._connect_failed(_reason(error), ours=isinstance(error, OSError) and error.errno in _EXHAUSTED)
        elif self._closed:
            self._stats.cancelled.value += 1
            session.close()
        else:
            self._stats.connected(took)
            self._opened(session)

    def _opened(self, session: Session) -> None:
        self._adopt(session)
        if session.closed or session.draining:
            self._connect_failed("the endpoint ended the connection at once")
            self._changed(session)
            return
        room = session.free
        if room:
            self._pace.succeeded()
            self._carries = min(self._settings.per_connection, room)
            if self._unreachable:
                self._unreachable = False
                self._host.events.emit("endpoint_reachable", client=self._stats.client, endpoint=self._show())
        else:
            self._pace.failed()
        self._changed(session)

    def _adopt(self, session: Session) -> None:
        session.changed = self._changed
        timers, settings = self._host.timers, self._settings
        limits: list[Expiry] = []
        if settings.session != NO_LIMITS:
            limits.append(Expiry(timers, settings.session, session, lambda why: self._expire(session, why)))
        if settings.surplus_idle is not None:
            surplus = SessionLimits(idle=settings.surplus_idle)
            limits.append(Expiry(timers, surplus, session, lambda why: self._spare(session, why)))
        self._sessions[session] = tuple(limits)

    def _connect_failed(self, why: str, *, ours: bool = False) -> None:
        """``ours``: not the endpoint's fault, nor held against it: the next exchange tries again."""
        self._why, self._blame = why, Blame.ROUTER if ours else Blame.UPSTREAM
        if not ours:
            self._pace.failed()
        now = self._host.timers.now()
        if ours and now - self._told >= TELL_EVERY:
            self._told = now
            self._host.events.warn("connecting_impossible", client=self._stats.client, endpoint=self._show(), cause=why)
        elif not ours and not self._unreachable and now - self._told >= TELL_EVERY:
            self._unreachable, self._told = True, now
            self._host.events.warn("endpoint_unreachable", client=self._stats.client, endpoint=self._show(), cause=why)
        if not self._pace.connecting and not self._serving():
            self._fail_waiters()
        elif self._waiters:
            self._grow()

    def _fail_waiters(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            waiter.throw(self._unreachable_failure())

    def _show(self) -> str:
        host, port = self.address
        return f"{host}:{port}"

    def _unreachable_failure(self) -> Failure:
        text = f"Unable to establish connection to {self._show()}.\n{self._why}"
        return Failure(Kind.CONNECT, text, self._blame, retryable=True)

    # -- sessions -------------------------------------------------------------------------------------------

    def _changed(self, session: Session) -> None:
        """A session can take more, or has ended."""
        if session.closed:
            self._forget(session)
        elif session not in self._stacked and session.free:
            self._open.append(session)
            self._stacked.add(session)
        waiters = self._waiters
        if waiters:
            while waiters and session.free:
                waiters.pop(next(iter(waiters))).wake(session)
            if self._waiters:
                self._grow()

    def _forget(self, session: Session) -> None:
        for expiry in self._sessions.pop(session, ()):
            expiry.close()
        if session in self._stacked:
            self._stacked.discard(session)
            self._open.remove(session)
        if not self._sessions:
            self._pace.restart()
            if self._closed:
                self._stats.pools.discard(self)

    def _expire(self, session: Session, why: str) -> None:
        self._stats.expired(why)
        session.drain()

    def _spare(self, session: Session, why: str) -> None:
        """A session is idle: it goes if there are enough others."""
        if sum(not other.draining for other in self._sessions) > self._settings.min_size:
            self._expire(session, why)

    def hurry(self) -> None:
        """The next exchange may connect, whatever the back-off says: there are signs of life."""
        self._pace.hurry()

    def close(self) -> None:
        """Open no more; sessions end with their last exchange, waiters fail."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if not self._sessions:
            self._stats.pools.discard(self)
        for session in list(self._sessions):
            session.drain()
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            waiter.throw(_removed())


def _rewind(exchange: Exchange) -> bool:
    """Make the request's body ready to be sent again; whether that is possible."""
    body = exchange.body
    if body is None:
        return True
    if body.replay is None or body.replay.spoiled:
        return False
    body.again()
    return True


def _reason(error: BaseException | None) -> str:
    if isinstance(error, Failure):
        return error.why
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or "timed out"


def _removed() -> Failure:
    return Failure(Kind.CONNECT, "the endpoint was removed", Blame.UPSTREAM, retryable=True)
