"""Classifiers by HTTP status: 5xx and what ended without a response are failures.

They differ in the methods whose failures may be sent again. Unlike Linkerd's they make no exception of chunked bodies: what
the replay buffer holds can be sent again however it was framed.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import ResponseHead
from router.model.verdict import FAILURE, RETRYABLE, SUCCESS, Classifier, Verdict
from router.spi import Plugin

NONE: frozenset[bytes] = frozenset()
READ = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
IDEMPOTENT = READ | {b"PUT", b"DELETE"}
ALL = IDEMPOTENT | {b"POST", b"PATCH"}
# Ends of an attempt that another attempt may avoid. Deadlines among them are the attempt's own: after the client's or the
# route's there is no time for another.
_EXCEPTIONS = frozenset((Kind.CONNECT, Kind.RESET, Kind.PROTOCOL, Kind.DEADLINE))


@attrs.frozen
class Config:
    """Nothing to configure."""


def signalled(head: ResponseHead) -> bool:
    """Whether a failure says of itself that it may be sent again (``l5d-retryable: true``)."""
    value = head.get(b"l5d-retryable")
    return value is not None and value.lower() == b"true"


def another_may_do(failure: Failure | None) -> bool:
    """Whether what ended an attempt without a response is the endpoint's, and may not happen again."""
    return failure is not None and failure.blame is not Blame.CLIENT and failure.kind in _EXCEPTIONS


class ByStatus:
    """Failures of ``methods`` are retryable, and of any method where the response says so."""

    def __init__(self, methods: frozenset[bytes]) -> None:
        self.methods = methods

    def __call__(self, exchange: Exchange) -> Verdict:
        response = exchange.response
        if exchange.complete and response is not None:
            if response.status < 500:
                return SUCCESS
            return RETRYABLE if exchange.request.method in self.methods or signalled(response) else FAILURE
        return RETRYABLE if exchange.request.method in self.methods and another_may_do(exchange.failure) else FAILURE

    def holds(self, exchange: Exchange, head: ResponseHead, end: bool) -> bool:
        """See :class:`Classifier`."""
        return head.status >= 500 and (exchange.request.method in self.methods or signalled(head))


class AllSuccessful:
    """Any response that ended is a success."""

    def __call__(self, exchange: Exchange) -> Verdict:
        return SUCCESS if exchange.complete else FAILURE

    def holds(self, exchange: Exchange, head: ResponseHead, end: bool) -> bool:
        """See :class:`Classifier`."""
        return False


_HTTP = frozenset({"http"})


def _plugin(name: str, make: Callable[[], Classifier]) -> Plugin:
    return Plugin(f"io.l5d.http.{name}", Config, lambda config, context: make(), _HTTP)


NON_RETRYABLE_5XX = _plugin("nonRetryable5XX", lambda: ByStatus(NONE))
RETRYABLE_READ_5XX = _plugin("retryableRead5XX", lambda: ByStatus(READ))
RETRYABLE_IDEMPOTENT_5XX = _plugin("retryableIdempotent5XX", lambda: ByStatus(IDEMPOTENT))
RETRYABLE_ALL_5XX = _plugin("retryableAll5XX", lambda: ByStatus(ALL))
ALL_SUCCESSFUL = _plugin("allSuccessful", AllSuccessful)
