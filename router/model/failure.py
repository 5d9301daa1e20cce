"""What went wrong, who is to blame, and the one table of answers.

A failure is raised by whoever finds it, passes through the filters (which judge ``exchange.outcome``, not the
exception alone), and is rendered once, by the protocol of the client. No other place decides a status code.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What went wrong."""

    MALFORMED = "malformed"  # the request cannot be understood (a bad dtab header, bad framing)
    UNIDENTIFIED = "unidentified"  # no identifier gave the request a name
    UNBOUND = "unbound"  # the name is bound to nothing
    NO_ENDPOINTS = "no_endpoints"  # the name is bound, but has no address
    BINDING_TIMEOUT = "binding_timeout"  # discovery did not answer in time
    CONNECT = "connect"  # no connection to the endpoint
    OVERLOADED = "overloaded"  # a limit of ours
    RESET = "reset"  # the exchange was ended by a peer
    PROTOCOL = "protocol"  # a peer broke its protocol
    DEADLINE = "deadline"  # no time left
    TOO_LARGE = "too_large"  # a message beyond a limit
    UNSUPPORTED = "unsupported"  # the way from this client to this backend does not exist
    LOOP = "loop"  # the request came by too often
    BUG = "bug"  # a fault of ours


class Blame(Enum):
    """Whose fault it is. What clients are blamed for never counts against an endpoint."""

    CLIENT = "client"
    ROUTER = "router"
    UPSTREAM = "upstream"


class Answer(NamedTuple):
    """How a failure looks on the wire: HTTP status, gRPC status, and the HTTP/2 code where a stream is reset.

    ``reset``: an HTTP/2 client that does not speak gRPC sees a reset and not a status, as with Linkerd 1.x.
    """

    http: int
    grpc: int
    h2: int
    reset: bool = False


# HTTP/2 error codes (RFC 9113 §7) that the table needs.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR = 0x0, 0x1, 0x2
REFUSED_STREAM, CANCEL, CONNECT_ERROR, ENHANCE_YOUR_CALM = 0x7, 0x8, 0xA, 0xB

# HTTP statuses are those of Linkerd 1.x, gRPC statuses never those that gRFC A54 reserves for applications.
ANSWERS: dict[Kind, Answer] = {
    Kind.MALFORMED: Answer(400, 13, PROTOCOL_ERROR),
    Kind.UNIDENTIFIED: Answer(400, 14, REFUSED_STREAM, reset=True),
    Kind.UNBOUND: Answer(502, 14, INTERNAL_ERROR),
    Kind.NO_ENDPOINTS: Answer(502, 14, INTERNAL_ERROR),
    Kind.BINDING_TIMEOUT: Answer(502, 14, INTERNAL_ERROR),
    Kind.CONNECT: Answer(502, 14, INTERNAL_ERROR),
    Kind.OVERLOADED: Answer(503, 14, REFUSED_STREAM, reset=True),
    Kind.RESET: Answer(502, 14, INTERNAL_ERROR, reset=True),
    Kind.PROTOCOL: Answer(502, 13, INTERNAL_ERROR),
    Kind.DEADLINE: Answer(503, 4, INTERNAL_ERROR, reset=True),
    Kind.TOO_LARGE: Answer(413, 8, INTERNAL_ERROR),
    Kind.UNSUPPORTED: Answer(502, 12, INTERNAL_ERROR),
    Kind.LOOP: Answer(400, 14, REFUSED_STREAM),
    Kind.BUG: Answer(500, 13, INTERNAL_ERROR),
}

# RST_STREAM code of an upstream -> gRPC status of the answer (gRPC over HTTP/2, "Errors"; C-core agrees).
RESET_TO_GRPC = {REFUSED_STREAM: 14, CANCEL: 1, ENHANCE_YOUR_CALM: 8, 0xC: 7}
# HTTP status of a response without grpc-status -> what gRPC clients take it for (gRPC's http-grpc-status-mapping); others are
# UNKNOWN. Such a response goes through as it is: it must be translated once, and clients do.
HTTP_TO_GRPC = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 431: 13, 502: 14, 503: 14, 504: 14}
# The codes of an upstream that mean something to its client too. The others speak of our own hop, and two would mislead:
# NO_ERROR within a body looks like its end, HTTP_1_1_REQUIRED asks the client for another protocol.
_TOLD = frozenset((REFUSED_STREAM, CANCEL, CONNECT_ERROR, ENHANCE_YOUR_CALM))


class Failure(Exception):  # noqa: N818 - the field's word; it is an outcome before it is an error
    """The end of an exchange other than by a response of the endpoint.

    ``why`` is one or more lines of plain text for people. ``retryable``: the request was provably not processed, or
    is safe and met the end of a connection that had been kept for it.
    ``rejected``: a limit refused it, which says nothing about the endpoint's health. ``code``: the HTTP/2 error code
    with which a peer reset the stream, where there is one. ``cause``: of a missed deadline, whose it was (``client``,
    ``route``, ``attempt``, ``router``); of a refusal, what refused it. ``status``: what HTTP clients get instead of the
    table's answer. ``retry_after``: seconds after which a client that was refused may try again, where that can be said.
    """

    __slots__ = ("blame", "cause", "code", "kind", "rejected", "retry_after", "retryable", "status", "why")

    def __init__(
        self,
        kind: Kind,
        why: str,
        blame: Blame = Blame.ROUTER,
        *,
        retryable: bool = False,
        rejected: bool = False,
        code: int | None = None,
        cause: str = "",
    ) -> None:
        super().__init__(kind, why)
        self.kind = kind
        self.why = why
        self.blame = blame
        self.retryable = retryable
        self.rejected = rejected
        self.code = code
        self.cause = cause
        self.status: int | None = None
        self.retry_after: float | None = None

    def __str__(self) -> str:
        return f"{self.kind.value} ({self.blame.value}): {self.why}"

    @property
    def answer(self) -> Answer:
        """The row of :data:`ANSWERS`; a peer's reset code goes on translated (gRPC), or where it is end to end (HTTP/2).

        REFUSED_STREAM goes on only while it proves that nothing was processed: clients replay what it ends (RFC 9113 §8.7).
        """
        row = ANSWERS[self.kind]
        if self.status is not None:
            return row._replace(http=self.status, reset=False)
        if self.kind is not Kind.RESET or self.code is None:
            return row
        told = self.code in _TOLD and (self.code != REFUSED_STREAM or self.retryable)
        return row._replace(grpc=RESET_TO_GRPC.get(self.code, 13), h2=self.code if told else INTERNAL_ERROR)


def client_gone(why: str, code: int | None = None) -> Failure:
    """The client reset its stream or closed its connection: nobody is left to answer."""
    return Failure(Kind.RESET, why, Blame.CLIENT, code=code)
