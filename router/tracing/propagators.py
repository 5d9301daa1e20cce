"""The kinds of ``tracePropagator``: Linkerd's ``io.l5d.default`` and ``io.l5d.zipkin``, and ``w3c``, waypost's own."""

from __future__ import annotations

from typing import Any

import attrs

from router.spi import Plugin
from router.tracing.forms import B3_MULTI, L5D, W3C, Form


@attrs.frozen
class Config:
    """No keys."""


def _plugin(kind: str, form: Form) -> Plugin:
    def make(config: Config, context: Any) -> Form:
        return form

    return Plugin(kind, Config, make)


DEFAULT = _plugin("io.l5d.default", L5D)
ZIPKIN = _plugin("io.l5d.zipkin", B3_MULTI)
OF_W3C = _plugin("w3c", W3C)
