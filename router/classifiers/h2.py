"""Classifiers of h2 routers. A gRPC stream (by its request's content type) is judged by its grpc-status."""

from __future__ import annotations

import attrs

from router.classifiers.grpc import by_status
from router.model.exchange import Exchange
from router.spi import Classifier, Plugin


@attrs.frozen
class Config:
    """Nothing to configure."""


_grpc_ok = by_status((0,))


def non_retryable_5xx(exchange: Exchange) -> bool:
    """Success is a response that ended with a status below 500; for gRPC, one that ended with grpc-status 0."""
    if exchange.request.grpc:
        return _grpc_ok(exchange)
    response = exchange.response
    return exchange.complete and response is not None and response.status < 500


def all_successful(exchange: Exchange) -> bool:
    """Success is any response that ended."""
    return exchange.complete


def _make_non_retryable_5xx(config: Config, context: None) -> Classifier:
    return non_retryable_5xx


def _make_all_successful(config: Config, context: None) -> Classifier:
    return all_successful


_H2 = frozenset({"h2", "grpc"})

NON_RETRYABLE_5XX = Plugin("io.l5d.h2.nonRetryable5XX", Config, _make_non_retryable_5xx, _H2)
ALL_SUCCESSFUL = Plugin("io.l5d.h2.allSuccessful", Config, _make_all_successful, _H2)
