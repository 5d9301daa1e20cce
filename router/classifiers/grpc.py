"""Classifiers of gRPC streams, by the grpc-status in the trailers or in the head of a Trailers-Only response.

A stream without grpc-status, or with an HTTP status of 400 and above, is a failure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from router.model.exchange import Exchange
from router.spi import Classifier, Plugin


def _codes(_: object, attribute: attrs.Attribute[Any], value: tuple[int, ...]) -> None:
    for code in value:
        if code < 0:
            raise ValueError(f"{attribute.name} must be gRPC status codes (0 is OK), not {code}")


@attrs.frozen
class Config:
    """``success_status_codes``: the gRPC status codes that count as success."""

    success_status_codes: tuple[int, ...] = attrs.field(default=(0,), converter=tuple, validator=_codes)


def by_status(codes: Iterable[int]) -> Classifier:
    """A classifier with these codes as successes."""
    successes = frozenset([b"%d" % code for code in codes])

    def classify(exchange: Exchange) -> bool:
        response = exchange.response
        if not exchange.complete or response is None or response.status >= 400:
            return False
        return exchange.grpc_status in successes

    return classify


def _make(config: Config, context: None) -> Classifier:
    return by_status(config.success_status_codes)


_H2 = frozenset({"h2", "grpc"})

# They agree on what a success is and differ in what may be retried, which is the retry filter's business.
DEFAULT = Plugin("io.l5d.h2.grpc.default", Config, _make, _H2)
NEVER_RETRYABLE = Plugin("io.l5d.h2.grpc.neverRetryable", Config, _make, _H2)
