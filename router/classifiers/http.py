"""Classifiers of http routers."""

from __future__ import annotations

import attrs

from router.model.exchange import Exchange
from router.spi import Classifier, Plugin


@attrs.frozen
class Config:
    """Nothing to configure."""


def non_retryable_5xx(exchange: Exchange) -> bool:
    """Success is a response that ended with a status below 500."""
    response = exchange.response
    return exchange.complete and response is not None and response.status < 500


def all_successful(exchange: Exchange) -> bool:
    """Success is any response that ended."""
    return exchange.complete


def _make_non_retryable_5xx(config: Config, context: None) -> Classifier:
    return non_retryable_5xx


def _make_all_successful(config: Config, context: None) -> Classifier:
    return all_successful


_HTTP = frozenset({"http"})

NON_RETRYABLE_5XX = Plugin("io.l5d.http.nonRetryable5XX", Config, _make_non_retryable_5xx, _HTTP)
ALL_SUCCESSFUL = Plugin("io.l5d.http.allSuccessful", Config, _make_all_successful, _HTTP)
