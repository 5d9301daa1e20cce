"""What an endpoint asks of those who would try again: gRPC's pushback (gRFC A6) and ``Retry-After`` (RFC 9110 §10.2.3)."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from router.model.exchange import Exchange
from router.model.metrics import Counter

PUSHBACK = b"grpc-retry-pushback-ms"
RETRY_AFTER = b"retry-after"
NEVER = -1.0
LONGEST = 300.0  # seconds: who asks for more gets no other attempt, and the client learns what was asked for


def asked_wait(exchange: Exchange, malformed: Counter) -> float | None:
    """Seconds to wait before another attempt, negative for never, None where the response does not say (or not readably, which
    is counted)."""
    wait = _asked(exchange, malformed)
    return NEVER if wait is not None and wait > LONGEST else wait


def _asked(exchange: Exchange, malformed: Counter) -> float | None:
    response = exchange.response
    if response is None or not exchange.complete:
        return None
    if exchange.request.grpc:
        said = [value for name, value in (*response.fields, *exchange.trailers) if name == PUSHBACK]
        return _pushback(said, malformed) if said else None
    value = response.get(RETRY_AFTER)
    return None if value is None else _retry_after(value, exchange.host.wall_ns() / 1e9, malformed)


def _pushback(values: list[bytes], malformed: Counter) -> float:
    """A signed 32-bit number of milliseconds; anything else, and more than one, means never."""
    value = values[0]
    if len(values) > 1 or not value.removeprefix(b"-").isdigit() or len(value) > 11:
        malformed.value += 1
        return NEVER
    number = int(value)
    return number / 1000 if 0 <= number < 2**31 else NEVER


def _retry_after(value: bytes, now: float, malformed: Counter) -> float | None:
    """Seconds from ``now`` (of the epoch): a number of them, or a date in any of the three forms, which are all of GMT."""
    if value.isdigit() and len(value) < 10:
        return float(value)
    try:
        when = parsedate_to_datetime(value.decode("ascii"))
        return max(0.0, (when.replace(tzinfo=UTC) if when.tzinfo is None else when).timestamp() - now)
    except (ValueError, OverflowError):  # an offset or a year beyond all bounds overflows
        malformed.value += 1
        return None
