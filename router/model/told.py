"""What the client of an exchange that is over was told: the status of HTTP, and that of gRPC."""

from __future__ import annotations

from router.model.exchange import Exchange
from router.model.headers import Fields, RequestHead, ResponseHead


def status_of(exchange: Exchange) -> int | None:
    """The HTTP status that the client got, or was to get."""
    failure = exchange.failure
    if failure is not None and not exchange.reply.started and not exchange.complete:
        return 200 if exchange.request.grpc else failure.answer.http
    return None if exchange.response is None else exchange.response.status


def grpc_status_of(exchange: Exchange) -> int | None:
    """The gRPC status that the client got."""
    failure = exchange.failure
    if failure is not None and not exchange.complete:
        return int(failure.answer.grpc) if exchange.request.grpc else None
    return told_of(exchange.request, exchange.response, exchange.trailers)[1]


def told_of(request: RequestHead, response: ResponseHead | None, trailers: Fields) -> tuple[int | None, int | None]:
    """Both, where the endpoint's answer is what the client got."""
    if response is None:
        return None, None
    if not request.grpc:
        return response.status, None
    said = next((value for name, value in trailers if name == b"grpc-status"), None) or response.get(b"grpc-status")
    return response.status, int(said) if said is not None and said.isdigit() else None
