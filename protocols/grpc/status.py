"""gRPC's status numbers, and what other protocols' endings mean to a gRPC client."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Status codes (grpc/grpc doc/statuscodes.md). Those marked * only applications may produce (gRFC A54)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3  # *
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5  # *
    ALREADY_EXISTS = 6  # *
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9  # *
    ABORTED = 10  # *
    OUT_OF_RANGE = 11  # *
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15  # *
    UNAUTHENTICATED = 16


_FROM_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 431: 13, 502: 14, 503: 14, 504: 14}


def from_http(status: int) -> Status:
    """The status of a response that has no ``grpc-status`` (gRPC's http-grpc-status-mapping)."""
    return Status(_FROM_HTTP.get(status, 2))
