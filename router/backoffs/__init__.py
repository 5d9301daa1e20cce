"""Kinds of ``backoff``: Linkerd's ``constant`` and ``jittered``, and ``fullJitter``. Milliseconds in the file."""

from __future__ import annotations

from typing import Any

import attrs

from router.model.backoff import Backoff, constant, decorrelated, full_jitter
from router.spi import Plugin

MAX_MS = 3_600_000


def _milliseconds(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 0 <= value <= MAX_MS:
        raise ValueError(f"must be between 0 and {MAX_MS}, not {value}")


@attrs.frozen
class Constant:
    """``ms``: always that long."""

    ms: int = attrs.field(default=0, validator=_milliseconds)


def _not_below_min(instance: Jittered | None, attribute: attrs.Attribute[Any], value: int) -> None:
    _milliseconds(instance, attribute, value)
    if instance is not None and value < instance.min_ms:
        raise ValueError(f"must not be below minMs, which is {instance.min_ms}, not {value}")


@attrs.frozen
class Jittered:
    """``min_ms``: the first wait (its bound with full jitter). ``max_ms``: the longest."""

    min_ms: int = attrs.field(validator=_milliseconds)
    max_ms: int = attrs.field(validator=_not_below_min)


def _constant(config: Constant, context: None) -> Backoff:
    return constant(config.ms / 1000)


def _jittered(config: Jittered, context: None) -> Backoff:
    return decorrelated(config.min_ms / 1000, config.max_ms / 1000)


def _full_jitter(config: Jittered, context: None) -> Backoff:
    return full_jitter(config.min_ms / 1000, config.max_ms / 1000)


CONSTANT = Plugin("constant", Constant, _constant)
JITTERED = Plugin("jittered", Jittered, _jittered)
FULL_JITTER = Plugin("fullJitter", Jittered, _full_jitter)
