"""``grpc-timeout``: one to eight digits and a unit (gRPC over HTTP/2, "Requests")."""

from __future__ import annotations

import re

_parse = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_SECONDS = {b"H": 3600, b"M": 60, b"S": 1}
_PER_SECOND = {b"m": 1e3, b"u": 1e6, b"n": 1e9}  # to divide by: a thousandth is no float, and 1900 of them are more than 1.9
_LIMIT = 10**8


def parse_timeout(value: bytes) -> float | None:
    """Seconds, or None for what is not a timeout."""
    match = _parse(value)
    if match is None:
        return None
    number, unit = int(match[1]), match[2]
    return number / _PER_SECOND[unit] if unit in _PER_SECOND else float(number * _SECONDS[unit])


def show_timeout(seconds: float) -> bytes:
    """Rounded down, so that nobody gets more time than there is; see :func:`coarse` for a second and more."""
    if seconds < 1:
        if seconds <= 0:
            return b"0n"
        return b"%du" % int(seconds * 1e6)
    millis, _ = coarse(seconds)
    if millis < _LIMIT:
        return b"%dm" % millis
    return b"%dS" % min(millis // 1000, _LIMIT - 1)


def coarse(seconds: float) -> tuple[int, int]:
    """Milliseconds rounded down to four digits, and the step to the next such figure: requests that have about the same time
    left (within a thousandth) are told the same, and their header blocks repeat. For a second and more."""
    millis = int(seconds * 1000)
    step = 10 ** max(0, len(str(millis)) - 4)
    return millis - millis % step, step
