"""Classifiers of h2 routers: by HTTP status, and gRPC streams (by their request's content type) by their grpc-status.

For a gRPC stream UNAVAILABLE is what a 5xx is for others. What broke off is judged alike, whatever it was.
"""

from __future__ import annotations

from collections.abc import Callable

from router.classifiers.grpc import UNAVAILABLE, ByGrpcStatus
from router.classifiers.http import ALL, IDEMPOTENT, NONE, READ, AllSuccessful, ByStatus, Config
from router.model.exchange import Exchange
from router.model.headers import ResponseHead
from router.model.verdict import Classifier, Verdict
from router.spi import Plugin


class ByEither:
    """Failures of ``methods`` are retryable."""

    def __init__(self, methods: frozenset[bytes]) -> None:
        self._plain = ByStatus(methods)
        self._grpc = ByGrpcStatus((0,), (UNAVAILABLE,) if b"POST" in methods else ())

    def __call__(self, exchange: Exchange) -> Verdict:
        return self._grpc(exchange) if exchange.request.grpc and exchange.complete else self._plain(exchange)

    def holds(self, exchange: Exchange, head: ResponseHead, end: bool) -> bool:
        """See :class:`Classifier`."""
        return self._grpc.holds(exchange, head, end) if exchange.request.grpc else self._plain.holds(exchange, head, end)


_H2 = frozenset({"h2", "grpc"})


def _plugin(name: str, make: Callable[[], Classifier]) -> Plugin:
    return Plugin(f"io.l5d.h2.{name}", Config, lambda config, context: make(), _H2)


NON_RETRYABLE_5XX = _plugin("nonRetryable5XX", lambda: ByEither(NONE))
RETRYABLE_READ_5XX = _plugin("retryableRead5XX", lambda: ByEither(READ))
RETRYABLE_IDEMPOTENT_5XX = _plugin("retryableIdempotent5XX", lambda: ByEither(IDEMPOTENT))
RETRYABLE_ALL_5XX = _plugin("retryableAll5XX", lambda: ByEither(ALL))
ALL_SUCCESSFUL = _plugin("allSuccessful", AllSuccessful)
