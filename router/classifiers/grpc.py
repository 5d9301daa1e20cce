"""Classifiers of gRPC streams, by the grpc-status in the trailers or in the head of a Trailers-Only response.

A stream without grpc-status, or with an HTTP status of 400 and above, is a failure that is not retryable, except that
``compliant`` follows gRPC's own table of what HTTP statuses and resets mean.

A stream that broke off has the status by which its client would learn of that: UNAVAILABLE for a lost connection,
DEADLINE_EXCEEDED for an attempt that took too long. ``alwaysRetryable`` and ``retryableStatusCodes``, whose users said what may
be sent again, go by it, as gRPC's own retry policies do; with ``default`` and ``compliant`` such a stream, which may have been
processed, is not sent again, as in Linkerd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from router.classifiers.http import another_may_do
from router.model.exchange import Exchange
from router.model.failure import HTTP_TO_GRPC, REFUSED_STREAM
from router.model.headers import CONNECT, ResponseHead
from router.model.verdict import FAILURE, RETRYABLE, SUCCESS, Classifier, Verdict
from router.spi import Plugin

UNAVAILABLE = 14
_AS_UNAVAILABLE = frozenset([status for status, code in HTTP_TO_GRPC.items() if code == UNAVAILABLE])
_NO_STATUSES: frozenset[int] = frozenset()


def _codes(_: object, attribute: attrs.Attribute[Any], value: tuple[int, ...]) -> None:
    for code in value:
        if code < 0:
            raise ValueError(f"{attribute.name} must be gRPC status codes (0 is OK), not {code}")


@attrs.frozen
class Config:
    """``success_status_codes``: the gRPC status codes that count as success."""

    success_status_codes: tuple[int, ...] = attrs.field(default=(0,), converter=tuple, validator=_codes)


@attrs.frozen
class RetryableConfig:
    """And ``retryable_status_codes``: those that may be sent again."""

    retryable_status_codes: tuple[int, ...] = attrs.field(converter=tuple, validator=_codes)
    success_status_codes: tuple[int, ...] = attrs.field(default=(0,), converter=tuple, validator=_codes)


class ByGrpcStatus:
    """``retryable`` are status codes, or None for all that are no success; ``compliant`` and ``broken`` (whether broken streams
    have a status): see above."""

    def __init__(
        self, successes: Iterable[int], retryable: Iterable[int] | None, *, compliant: bool = False, broken: bool = False
    ) -> None:
        self._successes = _written(successes)
        self._retryable = None if retryable is None else _written(retryable)
        self._retries = self._retryable is None or bool(self._retryable)
        self._statuses = _AS_UNAVAILABLE if compliant else _NO_STATUSES
        self._compliant = compliant
        self._broken = broken

    def __call__(self, exchange: Exchange) -> Verdict:
        response = exchange.response
        if response is None or not exchange.complete:
            return RETRYABLE if self._broke_off(exchange) else FAILURE
        if response.status == 101 or exchange.request.tunnel == CONNECT:  # a tunnel, of which there is no more to tell
            return SUCCESS
        if response.status >= 400:
            return RETRYABLE if response.status in self._statuses else FAILURE
        status = exchange.grpc_status
        return SUCCESS if status in self._successes else self._failed(status)

    def _broke_off(self, exchange: Exchange) -> bool:
        """Whether it may be sent again."""
        failure = exchange.failure
        if failure is None or not another_may_do(failure):
            return False
        status = b"%d" % failure.answer.grpc
        listed = self._broken and status not in self._successes and self._failed(status) is RETRYABLE
        return listed or (self._compliant and failure.code == REFUSED_STREAM)

    def _failed(self, status: bytes | None) -> Verdict:
        if status is None or (self._retryable is not None and status not in self._retryable):
            return FAILURE
        return RETRYABLE

    def holds(self, exchange: Exchange, head: ResponseHead, end: bool) -> bool:
        """See :class:`Classifier`. A client that is still sending may wait for the head: it is not made to."""
        if head.status >= 400:
            return head.status in self._statuses
        if end:
            status = head.get(b"grpc-status")
            return status not in self._successes and self._failed(status) is RETRYABLE
        return self._retries and (exchange.body is None or exchange.body.ended)


def _written(codes: Iterable[int]) -> frozenset[bytes]:
    return frozenset([b"%d" % code for code in codes])


_H2 = frozenset({"h2", "grpc"})


def _plugin(name: str, make: Callable[[Any], Classifier], config: type[Any] = Config) -> Plugin:
    return Plugin(f"io.l5d.h2.grpc.{name}", config, lambda given, context: make(given), _H2)


DEFAULT = _plugin("default", lambda config: ByGrpcStatus(config.success_status_codes, (UNAVAILABLE,)))
COMPLIANT = _plugin("compliant", lambda config: ByGrpcStatus(config.success_status_codes, (UNAVAILABLE,), compliant=True))
ALWAYS_RETRYABLE = _plugin("alwaysRetryable", lambda config: ByGrpcStatus(config.success_status_codes, None, broken=True))
NEVER_RETRYABLE = _plugin("neverRetryable", lambda config: ByGrpcStatus(config.success_status_codes, ()))
RETRYABLE_STATUS_CODES = _plugin(
    "retryableStatusCodes",
    lambda config: ByGrpcStatus(config.success_status_codes, config.retryable_status_codes, broken=True),
    RetryableConfig,
)
