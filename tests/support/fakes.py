"""Fakes for tests of filters, balancers and binders: a host with a still clock, replies, sessions, services."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from router.model.ends import Ends
from router.model.events import Events
from router.model.exchange import Exchange
from router.model.failure import Failure
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.lag import LoopLag
from router.model.strand import Strand, Waiter
from router.model.timers import Timers
from router.model.turn import Turn

NOON = 1_700_000_000_000_000_000  # when a fake host's clock begins, in nanoseconds of the epoch


class FakeHost:
    """Timers on a clock that is moved by hand; crashes fail the test."""

    def __init__(self) -> None:
        self.time = 0.0
        self.timers = Timers(lambda: self.time, self.crashed)
        self.turn = Turn()
        self.lag = LoopLag(self.timers)
        self.nursery: Any = None
        self.events = Events()
        self.wall_ns = lambda: NOON + int(self.time * 1e9)

    def crashed(self, error: Exception) -> None:
        raise AssertionError("a strand crashed") from error

    def spawn(self, *args: Any) -> None:
        raise AssertionError("nothing here waits for trio")

    def pass_time(self, seconds: float) -> None:
        self.turn.end(self.crashed)
        self.time += seconds
        self.timers.expire()


class RecordingReply:
    """A reply that keeps what it is given."""

    def __init__(self) -> None:
        self.source: Any = None
        self.sent = 0
        self.peer = "192.0.2.1:40000"
        self.started = False
        self.head: ResponseHead | None = None
        self.body = b""
        self.trailers: Fields | None = None
        self.aborted: Failure | None = None
        self.client_certificate: bytes | None = None
        self.ends = Ends(("192.0.2.1", 40000), ("192.0.2.2", 80))
        self.carries_grpc = True
        self.discreet = False

    def inform(self, head: ResponseHead) -> None:
        pass

    def start(self, head: ResponseHead, end: bool) -> Any:
        self.started, self.head = True, head
        if end:
            self.trailers = ()
        return self

    def data(self, chunk: Any, size: int, end: bool) -> None:
        self.body += bytes(chunk)
        if end:
            self.trailers = ()

    def end(self, trailers: Fields) -> None:
        self.trailers = trailers

    def abort(self, failure: Failure) -> None:
        self.aborted = failure


class Call:
    """One exchange on a strand, and how it ended."""

    def __init__(self, host: Any, service: Any, head: RequestHead | None = None, local: Any = None) -> None:
        self.reply = RecordingReply()
        self.exchange = Exchange(host, head or RequestHead(b"GET", b"http", b"web", b"/"), None, self.reply)
        self.exchange.local_dtab = local
        self.failure: Failure | None = None
        self.done = False
        self._service = service
        self.strand = Strand(host, self._run())
        self.exchange.strand = self.strand
        self.strand.start()

    async def _run(self) -> None:
        try:
            await self._service(self.exchange)
        except Failure as failure:
            self.failure = failure
        finally:
            self.done = True
            self.exchange.close()


Serve = Callable[[Exchange], Coroutine[Any, Any, None]]


def answering(status: int = 200, fields: Fields = ()) -> Serve:
    """A service that answers at once."""

    async def service(exchange: Exchange) -> None:
        exchange.conclude(())
        exchange.respond(ResponseHead(status, fields), True)

    return service


def waiting(waiter: Waiter[Any]) -> Serve:
    """A service that waits for ``waiter`` and then answers."""

    async def service(exchange: Exchange) -> None:
        await waiter
        exchange.conclude(())
        exchange.respond(ResponseHead(200), True)

    return service


class FakeSession:
    """A session with room for ``limit`` exchanges, each of which ends when the test says so."""

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self.closed = False
        self.draining = False
        self.begun = 0
        self.changed: Callable[[Any], None] = lambda session: None
        self.running: list[Waiter[None]] = []

    @property
    def free(self) -> int:
        return 0 if self.closed or self.draining else self.limit - len(self.running)

    @property
    def active(self) -> int:
        return len(self.running)

    async def conduct(self, exchange: Exchange) -> None:
        assert self.free, "a session was given more than it has room for"
        waiter: Waiter[None] = Waiter()
        self.running.append(waiter)
        self.begun += 1
        try:
            await waiter
            exchange.conclude(())
            exchange.respond(ResponseHead(200), True)
        finally:
            self.running.remove(waiter)
            if self.draining and not self.running:
                self.close()
            elif self.free:
                self.changed(self)

    def finish(self) -> None:
        self.running[0].wake(None)

    def drain(self) -> None:
        self.draining = True
        if self.running:
            self.changed(self)
        else:
            self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.changed(self)
            for waiter in list(self.running):
                from router.model.failure import Blame, Kind

                waiter.throw(Failure(Kind.RESET, "closed", Blame.UPSTREAM))
