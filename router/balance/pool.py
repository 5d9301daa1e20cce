"""The sessions to one endpoint.

Theory of operation

1. A session that can take another exchange is on a stack, the one used last on top, so that few connections stay warm and
   the others grow idle. Taking one is synchronous: an exchange that finds one never leaves its strand.
2. Otherwise the exchange queues, and connections are opened until there is one per ``per_connection`` waiters, at most
   ``max_connections`` in all. A peer that allows fewer streams than hoped for only makes the queue wait, or more
   connections open; it never makes an exchange fail.
3. A connection that cannot be opened fails those who waited for it: with other sessions there one, else those beyond what
   the connections still being opened will carry. A bug in a protocol's connect counts as such a failure, and is reported.
4. A closed pool fails whoever comes.
5. Bounds: ``MAX_WAITERS`` in the queue (beyond it: OVERLOADED), ``CONNECT_TIMEOUT`` seconds for an attempt to connect.
"""

from __future__ import annotations

import os

import trio

from router.model.exchange import Exchange, deadline_failure
from router.model.failure import Blame, Failure, Kind
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.strand import Waiter
from router.spi import Connect, Session

MAX_WAITERS = 10_000
CONNECT_TIMEOUT = 1.0


class Pool:
    """Sessions of one endpoint; ``conduct`` is the service."""

    def __init__(
        self,
        host: Host,
        connect: Connect,
        address: tuple[str, int],
        per_connection: int,
        max_connections: int,
        metrics: Metrics,
    ) -> None:
        self._host = host
        self._connect = connect
        self.address = address
        self._per_connection = per_connection
        self._max = max_connections
        self._open: list[Session] = []
        self._sessions: set[Session] = set()
        self._waiters: dict[int, Waiter[Session]] = {}
        self._connecting = 0
        self._closed = False
        self._connects = metrics.counter("connects")
        self._failures = metrics.counter("connect_failures")

    @property
    def sessions(self) -> int:
        """How many connections there are."""
        return len(self._sessions)

    @property
    def waiting(self) -> int:
        """How many exchanges wait for a connection."""
        return len(self._waiters)

    async def conduct(self, exchange: Exchange) -> None:
        """Conduct an exchange over a session."""
        session = self._ready()
        while session is None:
            session = await self._wait()
            exchange.sent_at = exchange.now()
            if exchange.sent_at >= exchange.deadline:  # the wheel has not turned yet, but it will: do not begin what is over
                raise deadline_failure(exchange.deadline_cause, exchange.deadline - exchange.received_at)
            if not session.free:
                session = self._ready()
        await session.conduct(exchange)

    def _ready(self) -> Session | None:
        stack = self._open
        while stack:
            session = stack[-1]
            if session.free:
                return session
            stack.pop()
        return None

    async def _wait(self) -> Session:
        if self._closed:
            raise _removed()
        if len(self._waiters) >= MAX_WAITERS:
            raise Failure(Kind.OVERLOADED, "too many requests wait for a connection", retryable=True, rejected=True)
        waiter: Waiter[Session] = Waiter()
        self._waiters[id(waiter)] = waiter
        self._grow()
        try:
            return await waiter
        finally:
            self._waiters.pop(id(waiter), None)

    def _grow(self) -> None:
        """Open as many connections as the queue asks for."""
        wanted = -(-len(self._waiters) // self._per_connection)
        while self._connecting < wanted and self._connecting + len(self._sessions) < self._max and not self._closed:
            self._connecting += 1
            self._host.nursery.start_soon(self._open_one)

    async def _open_one(self) -> None:
        host, port = self.address
        error: BaseException | None = None
        session: Session | None = None
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                session = await self._connect(host, port)
        except (OSError, trio.TooSlowError, Failure) as problem:
            error = problem
        except Exception as bug:  # noqa: BLE001 - it ends the exchanges that waited, not the worker
            self._host.crashed(bug)
            error = bug
        finally:
            self._connecting -= 1
        if session is None:
            self._failures.value += 1
            self._connect_failed(error)
        elif self._closed:
            session.close()
        else:
            self._connects.value += 1
            self._sessions.add(session)
            session.changed = self._changed
            self._changed(session)

    def _connect_failed(self, error: BaseException | None) -> None:
        if isinstance(error, Failure):
            why = error.why
        else:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or "timed out"
        host, port = self.address
        text = f"Unable to establish connection to {host}:{port}.\n{why}"
        waiters = list(self._waiters.values())
        surplus = 1 if self._sessions else max(0, len(waiters) - self._connecting * self._per_connection)
        for waiter in waiters[:surplus]:
            self._waiters.pop(id(waiter), None)
            waiter.throw(Failure(Kind.CONNECT, text, Blame.UPSTREAM, retryable=True))
        if self._waiters:
            self._grow()

    def _changed(self, session: Session) -> None:
        """A session can take more, or has ended."""
        if session.closed:
            self._sessions.discard(session)
            if session in self._open:
                self._open.remove(session)
        elif session.free and session not in self._open:
            self._open.append(session)
        while self._waiters and session.free:
            self._waiters.pop(next(iter(self._waiters))).wake(session)
        if self._waiters:
            self._grow()

    def close(self) -> None:
        """Open no more; sessions end with their last exchange, waiters fail."""
        self._closed = True
        for session in list(self._sessions):
            session.drain()
        for waiter in list(self._waiters.values()):
            waiter.throw(_removed())
        self._waiters.clear()

    def abort(self) -> None:
        """Close every session now."""
        self._closed = True
        for session in list(self._sessions):
            session.close()


def _removed() -> Failure:
    return Failure(Kind.NO_ENDPOINTS, "the endpoint was removed", Blame.UPSTREAM, retryable=True)
