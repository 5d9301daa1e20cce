"""``grpc-timeout``: one to eight digits and a unit (gRPC over HTTP/2, "Requests")."""

from __future__ import annotations

import re

_parse = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LIMIT = 10**8


def parse_timeout(value: bytes) -> float | None:
    """Seconds, or None for what is not a timeout."""
    match = _parse(value)
    return int(match[1]) * _UNITS[match[2]] if match is not None else None


def show_timeout(seconds: float) -> bytes:
    """The finest unit that holds it, rounded down, so that nobody gets more time than there is."""
    if seconds <= 0:
        return b"0n"
    micros = int(seconds * 1e6)
    if micros < _LIMIT:
        return b"%du" % micros
    millis = micros // 1000
    if millis < _LIMIT:
        return b"%dm" % millis
    return b"%dS" % min(millis // 1000, _LIMIT - 1)
