"""What an endpoint asks of those who would try again: gRPC's pushback (gRFC A6) and ``Retry-After`` (RFC 9110 §10.2.3)."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from router.model.exchange import Exchange
from router.model.headers import ResponseHead

PUSHBACK = b"grpc-retry-pushback-ms"
RETRY_AFTER = b"retry-after"
NEVER = -1.0


def asked_wait(exchange: Exchange) -> float | None:
    """Seconds to wait before another attempt, negative for never, None where the response does not say."""
    response = exchange.response
    if response is None or not exchange.complete:
        return None
    if exchange.request.grpc:
        said = [value for name, value in (*response.fields, *exchange.trailers) if name == PUSHBACK]
        return _pushback(said) if said else None
    return retry_after(response)


def _pushback(values: list[bytes]) -> float:
    """A signed 32-bit number of milliseconds; anything else, and more than one, means never."""
    value = values[0]
    if len(values) > 1 or not value.removeprefix(b"-").isdigit() or len(value) > 11:
        return NEVER
    number = int(value)
    return number / 1000 if 0 <= number < 2**31 else NEVER


def retry_after(response: ResponseHead) -> float | None:
    """Seconds from now, or None where there is no usable ``Retry-After``."""
    value = response.get(RETRY_AFTER)
    if value is None:
        return None
    if value.isdigit():
        return float(value) if len(value) < 10 else None
    try:
        when = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    return max(0.0, when.timestamp() - time.time())
