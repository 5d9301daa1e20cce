"""What the client of an exchange that is over was told."""

from __future__ import annotations

from router.model.exchange import Exchange


def status_of(exchange: Exchange) -> int | None:
    """The HTTP status that the client got, or was to get."""
    failure = exchange.failure
    if failure is not None and not exchange.reply.started and not exchange.complete:
        return 200 if exchange.request.grpc else failure.answer.http
    return None if exchange.response is None else exchange.response.status


def grpc_status_of(exchange: Exchange) -> int | None:
    """The gRPC status that the client got."""
    if not exchange.request.grpc:
        return None
    failure = exchange.failure
    if failure is not None and not exchange.complete:
        return int(failure.answer.grpc)
    status = exchange.grpc_status
    return int(status) if status is not None and status.isdigit() else None
