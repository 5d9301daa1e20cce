"""Endpoints and clients that do whatever a schedule says, and that keep account of every byte: for the property test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from router.model.answers import render_h2
from router.model.body import Chunk, Source
from router.model.exchange import Exchange
from router.model.failure import REFUSED_STREAM, Blame, Failure, Kind, client_gone
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.service import Service
from router.model.strand import Strand, Waiter
from tests.simulation.world import World

PADDING = 3  # what flow control counts beyond the bytes
GRPC = (b"content-type", b"application/grpc")


class Account:
    """Flow control of all streams together: what was received and what was credited for it."""

    def __init__(self) -> None:
        self.received = self.credited = 0


class Half(Source):
    """A receiving half that pushes into its sink what the other side sends."""

    def __init__(self, account: Account) -> None:
        super().__init__()
        self.account = account
        self.open = True
        self._owed = 0

    def receive(self, chunk: bytes, end: bool) -> None:
        """Bytes have come."""
        size = len(chunk) + PADDING
        self.account.received += size
        self._owed += size
        self.push(chunk, size, end)

    def credit(self, size: int) -> None:
        self._owed -= size
        assert self._owed >= 0, "more credit than bytes"
        self.account.credited += size

    def stop(self, failure: Failure | None) -> None:
        self.open = False

    def unjoin(self) -> None:
        """What is held and was never read is credited, as connections do."""
        held = self.held()
        if held:
            self.credit(held)
        super().unjoin()


class Late:
    """The crediting of a sink: at once, or after ``delay`` seconds, or at the release, whichever is first."""

    def __init__(self, world: World, delay: float) -> None:
        self._world = world
        self._delay = delay
        self._queue: list[tuple[Source, int]] = []

    def add(self, source: Source | None, size: int) -> None:
        if source is None or not size:
            return
        if self._delay:
            self._queue.append((source, size))
            self._world.after(self._delay, self._next)
        else:
            source.credit(size)

    def _next(self, _: Any) -> None:
        if self._queue:
            source, size = self._queue.pop(0)
            source.credit(size)

    def release(self) -> None:
        while self._queue:
            self._next(None)


# -- endpoints ---------------------------------------------------------------------------------------------------


class Upstream(Half):
    """One attempt at an endpoint: the sink of its request, the source of its response."""

    def __init__(self, session: ChaosSession, exchange: Exchange, answer: str) -> None:
        super().__init__(session.net.account)
        self.source: Source | None = None
        self.session, self.exchange, self.answer = session, exchange, answer
        self.over: Waiter[None] = Waiter()
        self.requested = b""
        self._credit = Late(session.net.world, 0.01 if answer.endswith("late") else 0.0)
        self._mark = b"<%d>" % next(session.net.marks)  # whose answer it is

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        self.requested += bytes(chunk)
        self._credit.add(self.source, size)

    def end(self, trailers: Fields) -> None:
        pass

    def abort(self, failure: Failure) -> None:
        pass

    def begin(self) -> None:
        """Do what the schedule says, now and later."""
        begins, more, ends = (0.005, lambda: self.head(200)), (0.01, lambda: self.body(False)), (0.02, lambda: self.body(True))
        steps: list[tuple[float, Callable[[], None]]] = {
            "ok": [(0.005, lambda: self.head(200, True))],
            "body": [begins, more, ends],
            "body late": [begins, more, ends],
            "trailers": [
                (0.005, lambda: self.head(200)),
                (0.01, lambda: self.body(False)),
                (0.02, lambda: self.trailers(b"0")),
            ],
            "bad trailers": [begins, (0.005, lambda: self.trailers(b"14"))],
            "at once": [(0.0, lambda: self.head(200, True))],
            "slow": [(0.4, lambda: self.head(200, True))],
            "never": [],
            "500": [(0.002, lambda: self.head(500, True))],
            "503 body late": [(0.002, lambda: self.head(503)), (0.01, lambda: self.body(True))],
            "503 endless": [(0.002, lambda: self.head(503)), more],
            "429": [(0.002, lambda: self.head(429, True))],
            "reset": [(0.003, lambda: self.reset(2))],
            "reset within": [(0.003, lambda: self.head(200)), more, (0.02, lambda: self.reset(2))],
            "refused": [(0.001, lambda: self.reset(REFUSED_STREAM, retryable=True))],
            "goaway": [(0.001, self.session.goaway)],
            "lost": [(0.004, self.session.lost)],
        }[self.answer]
        for delay, step in steps:
            self.session.net.world.after(delay, self._step, step)

    def _step(self, step: Callable[[], None]) -> None:
        if self.open and not self.over.woken:
            step()

    def head(self, status: int, end: bool = False) -> None:
        fields = (GRPC,) if self.exchange.request.grpc else ()
        if end:
            self.exchange.conclude(((b"grpc-status", b"0"),) if fields else ())
            self.exchange.respond(ResponseHead(status, fields), True)
            self.over.wake(None)
        else:
            self.join(self.exchange.respond(ResponseHead(status, fields), False))

    def body(self, end: bool) -> None:
        if end:
            self.exchange.conclude(())
        self.receive(self._mark, end)
        if end:
            self.over.wake(None)

    def trailers(self, status: bytes) -> None:
        fields = ((b"grpc-status", status),)
        self.exchange.conclude(fields)
        self.finish(fields)
        self.over.wake(None)

    def reset(self, code: int, *, retryable: bool = False) -> None:
        self.over.throw(Failure(Kind.RESET, "reset by the endpoint", Blame.UPSTREAM, code=code, retryable=retryable))

    def release(self) -> None:
        """The attempt is over."""
        client: Any = self.exchange.reply
        assert client.uploaded.startswith(self.requested), "not what the client sent"
        self.open = False
        self._credit.release()
        self.unjoin()
        source, self.source = self.source, None
        if source is not None:
            source.sink = None


class ChaosSession:
    """A connection to an endpoint: a :class:`router.spi.Session`."""

    def __init__(self, net: Chaos, streams: int) -> None:
        self.net, self.streams = net, streams
        self.closed = self.draining = False
        self.changed: Callable[[Any], None] = lambda session: None
        self.running: dict[Upstream, None] = {}
        self.begun = 0
        net.sessions.append(self)

    @property
    def free(self) -> int:
        return 0 if self.closed or self.draining else self.streams - len(self.running)

    @property
    def active(self) -> int:
        return len(self.running)

    async def conduct(self, exchange: Exchange) -> None:
        self.begun += 1
        assert self.free, "an exchange on a session without room"
        stream = Upstream(self, exchange, next(self.net.answers))
        self.running[stream] = None
        if exchange.body is not None:
            exchange.body.join(stream)
        try:
            stream.begin()
            await stream.over
        finally:
            stream.release()
            del self.running[stream]
            if self.draining and not self.running:
                self.close()
            elif self.free:
                self.changed(self)

    def goaway(self) -> None:
        self.draining = True
        self.changed(self)
        for stream in list(self.running):
            stream.reset(REFUSED_STREAM, retryable=True)
        if not self.running:
            self.close()

    def lost(self) -> None:
        if not self.closed:
            self.closed = True
            self.changed(self)
        for stream in list(self.running):
            stream.reset(2)

    def drain(self) -> None:
        self.draining = True
        self.changed(self)
        if not self.running:
            self.close()

    def close(self) -> None:
        self.lost()


class Chaos:
    """All endpoints: how connections and attempts go, in the order in which they are made."""

    def __init__(self, world: World, connects: Iterator[str], answers: Iterator[str], streams: int) -> None:
        self.world, self.connects, self.answers, self.streams = world, connects, answers, streams
        self.account = Account()
        self.sessions: list[ChaosSession] = []
        self.marks = iter(range(1 << 30))

    async def connect(self, host: str, port: int) -> ChaosSession:
        """A :data:`router.spi.Connect`."""
        how = next(self.connects)
        await self.world.sleep({"slow": 0.3, "hang": 60.0}.get(how, 0.001))
        if how == "refused":
            raise OSError(111, "Connection refused")
        session = ChaosSession(self, self.streams)
        if how == "dies":
            self.world.after(0.002, lambda _: session.lost())
        return session


# -- clients -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Plan:
    """One request: when it comes, and what its client does. ``chunks``: moments of its body's pieces, in seconds from the
    head; None: no body. ``gone``: when the client resets it. ``patience``: its deadline. ``late``: it reads slowly."""

    at: float
    method: bytes
    grpc: bool
    chunks: tuple[float, ...] | None
    gone: float | None
    patience: float | None
    late: bool


class Client(Half):
    """One request and its answer; what the front of a connection does for it."""

    carries_grpc = True
    discreet = False

    def __init__(self, world: World, account: Account, service: Service, plan: Plan) -> None:
        super().__init__(account)
        self.world, self.service, self.plan = world, service, plan
        self.source: Source | None = None
        self.started = self.ended = self.broken = False
        self.done = 0
        self.over_at = 0.0
        self.status = 0
        self.got = b""
        self.uploaded = b""
        self.finished = False
        self.exchange: Any = None
        self._credit = Late(world, 0.05 if plan.late else 0.0)
        world.at(plan.at, self._begin)

    def _begin(self, _: Any) -> None:
        plan, world = self.plan, self.world
        fields = (GRPC,) if plan.grpc else ()
        head = RequestHead(b"POST" if plan.grpc else plan.method, b"http", b"web", b"/", fields)
        self.exchange = Exchange(world.host, head, None if plan.chunks is None else self, self)
        self.exchange.strand = Strand(world.host, self._serve(self.exchange))
        if plan.patience is not None:
            self.exchange.tighten(self.exchange.received_at + plan.patience, "client")
        for at, when in enumerate(plan.chunks or ()):
            world.after(when, self._more, (b"%d," % at, at + 1 == len(plan.chunks or ())))
        if plan.gone is not None:
            world.after(plan.gone, self._leave)
        self.exchange.strand.start()

    def _more(self, what: tuple[bytes, bool]) -> None:
        if self.open and not self.done:
            self.uploaded += what[0]
            self.receive(*what)

    def _leave(self, _: Any) -> None:
        if not self.done:
            self.open = False
            self.exchange.strand.cancel(client_gone("stream reset by the client", 8))
            assert self.done, "an exchange that outlives its client"

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self.service(exchange)
            assert exchange.complete, "a service that returned without an answer"
        except Failure as error:
            exchange.failure = error
            render_h2(exchange, error)
        finally:
            self.done += 1
            self.over_at = self.world.time
            self._credit.release()
            exchange.close()
            source, self.source = self.source, None
            if source is not None:
                source.sink = None

    # -- the reply ------------------------------------------------------------------------------------------

    def inform(self, head: ResponseHead) -> None:
        pass

    def start(self, head: ResponseHead, end: bool) -> Client:
        assert not self.started, "a second response"
        assert not self.finished, "a response after the end"
        self.started, self.status = True, head.status
        self.finished = end
        return self

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        assert self.started, "a body before its head"
        assert not self.finished, "a body after the end"
        self.got += bytes(chunk)
        self.finished = end
        self._credit.add(self.source, size)

    def end(self, trailers: Fields) -> None:
        assert self.started, "an end before the head"
        assert not self.finished, "a second end"
        self.finished = True

    def abort(self, failure: Failure) -> None:
        if not self.finished:
            self.finished = self.broken = True
