"""The conversation about one request, whatever protocols its two ends speak.

Theory of operation

1. An exchange is made by the connection that received the request. ``body`` is the request's source, or None when
   the head ended the request. ``reply`` is where the answer goes.
2. The endpoint's protocol answers with :meth:`Exchange.respond`, which returns the sink for the response's body. It
   calls :meth:`Exchange.conclude` when the response has ended, *before* the strand learns of it. Until then the
   exchange is not ``complete``, and counts as a failure.
3. Filters look at ``response``, ``trailers``, ``failure`` and ``complete`` after the inner service is over.
4. Response heads are changed by ``edits``, pure functions from head to head, applied in the order in which they
   were added (the innermost filter runs first, hence adds last and is applied last; filters that care say so).
5. A ``gate``, where there is one, decides whether the response goes to the client or is held until its verdict is known.
   An exchange of which nothing was sent to the client can be :meth:`renewed <renew>` for another attempt.
6. ``heard`` is told of the final response's head when it comes, with ``sent_at`` and ``responded_at`` set: how long the
   endpoint took is known then, and not when a long response has ended.
7. ``tighten`` only ever moves the deadline forward. Expiry cancels the strand with a DEADLINE failure.
8. A request for a tunnel (``request.tunnel``) has a body from the beginning, which is not read before the endpoint's protocol
   calls :meth:`Exchange.open` in place of ``respond``. From then on the two bodies are the tunnel's directions.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple, Protocol

from router.model.body import Sink, Source
from router.model.ends import Ends
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.host import Host
from router.model.strand import Strand
from router.model.timers import Bucket, Lane, take
from router.model.trace import Trace
from router.model.verdict import BY_COMPLETION, Classifier, Verdict

Edit = Callable[[ResponseHead], ResponseHead]
Gate = Callable[["Exchange", ResponseHead, bool], Sink]
"""Called in place of ``reply.start`` with the edited head and whether it ends the response; returns the body's sink."""
Heard = Callable[["Exchange"], None]
GRPC_OK = (b"grpc-status", b"0")


class Reply(Sink, Protocol):
    """The sending half towards the client."""

    @property
    def started(self) -> bool:
        """Whether the final response's head was sent."""
        ...

    @property
    def sent(self) -> int:
        """Bytes of the body so far."""
        ...

    @property
    def peer(self) -> str:
        """The client's address and port, as text."""
        ...

    @property
    def ends(self) -> Ends:
        """The addresses of the client's connection."""
        ...

    @property
    def carries_grpc(self) -> bool:
        """Whether a gRPC answer can be put into it: over HTTP/2, and as gRPC-Web anywhere."""
        ...

    @property
    def discreet(self) -> bool:
        """Whether the client is to learn nothing of why an exchange failed."""
        ...

    @property
    def client_certificate(self) -> bytes | None:
        """The client's verified certificate as a value of ``x-forwarded-client-cert``; None where there is none."""
        ...

    def inform(self, head: ResponseHead) -> None:
        """Send an informational (1xx) response where the client's protocol has them; else drop it."""

    def start(self, head: ResponseHead, end: bool) -> Sink:
        """Send the final response's head; returns the sink for its body (usually the reply itself)."""


class Attempt(NamedTuple):
    """What is kept of one attempt: the endpoint, what came of it, and when it began, was answered (0: never) and ended."""

    endpoint: str
    outcome: str
    began: float
    heard: float
    ended: float


class Routed:
    """The way of exchanges with one name: ``dentries`` led them to ``bound``, under the dtab ``table`` and their own,
    ``local``. ``text`` is room for what is written of that."""

    __slots__ = ("bound", "dentries", "local", "path", "table", "text")

    def __init__(
        self, path: Any, local: Any, table: str, bound: Any = None, dentries: list[dict[str, Any]] | None = None
    ) -> None:
        self.path = path
        self.local = local
        self.table = table
        self.bound = bound
        self.dentries = dentries or []
        self.text = ""

    def values(self) -> dict[str, Any]:
        """As fields of a record."""
        bound = self.bound
        return {
            "name": None if self.path is None else self.path.show(),
            "dtab": self.local.show() if self.local else None,
            "table": self.table,
            "route": self.dentries,
            "client": None if bound is None else bound.id.show(),
            "residual": bound.residual.show() if bound is not None and bound.residual else None,
        }


class Marks(Protocol):
    """Puts on responses what is known of them."""

    def head(self, exchange: Exchange, head: ResponseHead, end: bool) -> ResponseHead:
        """The head to send on; ``exchange.response`` is ``head``, ``end``: it is all there is."""
        ...

    def trailers(self, exchange: Exchange, trailers: Fields) -> Fields:
        """The trailers to send on; the exchange is complete."""
        ...


class Exchange:
    """One request and its answer.

    ``deadline`` and ``received_at`` are seconds of the host's clock. ``local_dtab``, ``path``, ``bound`` and
    ``endpoint`` are filled in on the way: the names that the request was given, for logs, headers and metrics.
    ``retries``: policy retries so far; ``tried``: the endpoints of the attempts before this one. ``classify`` is the
    classifier of the logical name, ``marks`` what is put on its responses. ``held`` is the response that a gate has not let
    through yet. ``judged``: the verdict, once somebody has asked for it. ``sent_at``: when the attempt began, or got its
    connection if it had to wait for one; kept only where ``heard`` is set. ``attempts``: a list where those are to be kept.
    ``record`` is called when the exchange is closed; whoever sets it sets ``attempts``.
    ``bucket``: where it waits for its deadline (see :func:`~router.model.timers.take`). ``lane``: where an attempt waits for
    its response's head, until that comes or :meth:`stop_waiting`. ``place``: the server's limit, once it has let the exchange
    in.
    ``trace``: where it belongs to a trace. ``note`` is free room for filters, by role.
    """

    __slots__ = (
        "attempt", "attempts", "body", "bound", "bucket", "classify", "complete", "deadline", "deadline_cause", "edits",
        "endpoint", "failure", "gate", "heard", "held", "host", "judged", "lane", "local_dtab", "marks", "note", "path",
        "place", "received_at", "record", "reply", "request", "responded_at", "response", "retries", "sent_at", "strand",
        "trace", "trailers", "tried",
    )  # fmt: skip

    def __init__(self, host: Host, request: RequestHead, body: Source | None, reply: Reply) -> None:
        self.host = host
        self.request = request
        self.body = body
        self.reply = reply
        self.strand: Strand | None = None
        self.received_at = host.timers.now()
        self.responded_at = self.sent_at = 0.0
        self.deadline = inf
        self.deadline_cause = ""
        self.bucket: Bucket | None = None  # of the timer wheel
        self.lane: dict[Exchange, float] | None = None
        self.place: Any = None
        self.path: Any = None
        self.local_dtab: Any = None
        self.bound: Any = None
        self.endpoint: Any = None
        self.response: ResponseHead | None = None
        self.trailers: Fields = ()
        self.failure: Failure | None = None
        self.complete = False
        self.retries = 0
        self.attempts: list[Attempt] | None = None
        self.record: Callable[[Exchange], None] | None = None
        self.trace: Trace | None = None
        self.tried: tuple[Any, ...] = ()
        self.classify: Classifier = BY_COMPLETION
        self.judged: Verdict | None = None
        self.gate: Gate | None = None
        self.heard: Heard | None = None
        self.marks: Marks | None = None
        self.held: Any = None
        self.edits: list[Edit] | None = None
        self.note: dict[str, Any] | None = None

    def now(self) -> float:
        """The host's clock, in seconds."""
        return self.host.timers.now()

    # -- the answer -----------------------------------------------------------------------------------------

    def edit(self, edit: Edit) -> None:
        """Let ``edit`` change the head of the final response."""
        if self.edits is None:
            self.edits = []
        self.edits.append(edit)

    def respond(self, head: ResponseHead, end: bool) -> Sink:
        """The final response has begun. Returns where its body goes."""
        edits = self.edits
        if edits is not None:
            for edit in edits:
                head = edit(head)
        self.response = head
        if self.marks is not None:
            self.response = head = self.marks.head(self, head, end)
        self.responded_at = self.host.timers.now()
        lane = self.lane
        if lane is not None:
            self.lane = None
            lane.pop(self, None)
        heard = self.heard
        if heard is not None:
            heard(self)
        gate = self.gate
        return self.reply.start(head, end) if gate is None else gate(self, head, end)

    def open(self, head: ResponseHead) -> Sink:
        """The tunnel that was asked for is open, says ``head``. Returns where its bytes go. Deadlines are for answers: from now
        on there is none."""
        bucket, self.bucket = self.bucket, None
        if bucket is not None:
            take(bucket, self)
        self.deadline, self.deadline_cause = inf, ""
        return self.respond(head, False)

    def conclude(self, trailers: Fields) -> Fields:
        """The response has ended as it should. Returns the trailers to send on."""
        self.trailers = trailers
        self.complete = True
        return trailers if self.marks is None else self.marks.trailers(self, trailers)

    @property
    def grpc_status(self) -> bytes | None:
        """The ``grpc-status`` of the trailers, or of the head of a Trailers-Only response."""
        for name, value in self.trailers:
            if name == b"grpc-status":
                return value
        return self.response.get(b"grpc-status") if self.response is not None else None

    @property
    def verdict(self) -> Verdict:
        """What the classifier says of the exchange or attempt, which must be over; asked once (``judged``)."""
        judged = self.judged
        if judged is None:
            judged = self.judged = self.classify(self)
        return judged

    def renew(self, request: RequestHead, edits: int) -> None:
        """Begin another attempt with ``request``: nothing was sent to the client. The first ``edits`` edits are kept."""
        if self.endpoint is not None:
            self.tried = (*self.tried, self.endpoint)
        self.request = request
        if self.held is not None:
            self.held.drop()
        self.endpoint = self.held = None
        self.forget()
        if self.edits is not None:
            del self.edits[edits:]
        if self.body is not None:
            self.body.again()

    def twin(self, request: RequestHead, edits: list[Edit], body: Source | None) -> Exchange:
        """An exchange of its own for a second attempt beside this one, answering to the same reply."""
        twin = Exchange(self.host, request, body, self.reply)
        twin.received_at, twin.deadline, twin.deadline_cause = self.received_at, self.deadline, self.deadline_cause
        twin.path, twin.local_dtab, twin.classify, twin.marks = self.path, self.local_dtab, self.classify, self.marks
        twin.attempts, twin.trace = self.attempts, self.trace
        twin.edits = list(edits)
        if self.endpoint is not None:
            twin.tried = (*self.tried, self.endpoint)
        return twin

    def forget(self) -> None:
        """What the attempt so far came to is not the exchange's outcome any more."""
        self.response = self.failure = self.judged = None
        self.trailers = ()
        self.complete = False
        self.responded_at = 0.0

    def adopt(self, twin: Exchange) -> None:
        """The twin's outcome is this exchange's."""
        self.response, self.trailers, self.complete = twin.response, twin.trailers, twin.complete
        self.responded_at, self.endpoint, self.bound = twin.responded_at, twin.endpoint, twin.bound
        self.failure, self.held, self.judged = twin.failure, twin.held, None

    # -- time -----------------------------------------------------------------------------------------------

    def tighten(self, deadline: float, cause: str, lane: Lane[Exchange] | None = None) -> None:
        """End the exchange at ``deadline`` unless it must end earlier; ``cause``: ``client``, ``route`` or ``router``.
        ``lane``: for limits of just that many seconds since a request's arrival; it calls :meth:`expire`."""
        if deadline >= self.deadline:
            return
        self.deadline = deadline
        self.deadline_cause = cause
        if self.bucket is not None:
            take(self.bucket, self)
        if lane is not None and lane.add(self, self.received_at):
            self.bucket = lane.waiting
        else:
            self.bucket = self.host.timers.put(deadline, self)

    def stop_waiting(self) -> None:
        """There is no attempt any more that waits for its head."""
        lane, self.lane = self.lane, None
        if lane is not None:
            lane.pop(self, None)

    def expire(self) -> None:
        """The deadline has come."""
        if self.strand is not None:
            self.strand.cancel(deadline_failure(self.deadline_cause, self.deadline - self.received_at))

    def close(self) -> None:
        """Drop timers and break reference cycles; called once, by the shell that made the exchange. Nothing is raised."""
        record, self.record = self.record, None
        if record is not None:
            try:
                record(self)
            except Exception as error:  # noqa: BLE001 - a bug in records is nobody's end
                self.host.crashed(error)
        bucket, self.bucket = self.bucket, None
        if bucket is not None:  # as take does it
            bucket.pop(self, None)
            if not bucket:
                bucket.clear()
        if self.lane is not None:
            self.stop_waiting()
        if self.body is not None:
            self.body.unjoin()
        self.strand = self.gate = None
        self.edits = None


def deadline_failure(cause: str, seconds: float) -> Failure:
    """No time left. A deadline that the client chose is the client's own business, never the endpoint's fault."""
    blame = Blame.CLIENT if cause == "client" else Blame.UPSTREAM
    return Failure(Kind.DEADLINE, f"exceeded {round(seconds * 1000)} ms {cause} timeout", blame, cause=cause)
