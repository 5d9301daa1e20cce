"""What all kinds of balancers are configured with."""

from __future__ import annotations

from typing import Any

import attrs


def positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    """A validator: more than nothing."""
    if value <= 0:
        raise ValueError(f"must be more than 0, not {value:g}")


def _effort(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 1 <= value <= 100:
        raise ValueError(f"must be between 1 and 100, not {value}")


@attrs.frozen
class Common:
    """``enable_probation``: endpoints that discovery drops stay in use while they work. ``slow_start_secs``: for that long
    the weight of an endpoint that joins others grows from a tenth; 0: it is used in full at once (waypost's own key)."""

    enable_probation: bool = attrs.field(default=False, kw_only=True)
    slow_start_secs: float = attrs.field(default=0.0, kw_only=True, validator=attrs.validators.ge(0))


@attrs.frozen
class WithEffort(Common):
    """``max_effort``: how often to draw again when both endpoints drawn are unavailable, before an available one is sought from
    a random place on. Only when there is none an unavailable one is picked."""

    max_effort: int = attrs.field(default=5, validator=_effort)
