"""Linkerd's ``timestampHeader``: when the request arrived, in milliseconds of the epoch (``x-request-start`` of New Relic)."""

from __future__ import annotations

from router.model.exchange import Exchange
from router.model.service import Service


def timestamp(name: str | None, next_service: Service) -> Service:
    """Set the field ``name``, in the place of what the client says."""
    if name is None:
        return next_service
    field = name.lower().encode()

    async def timestamp_service(exchange: Exchange) -> None:
        waited = exchange.now() - exchange.received_at
        arrived = (exchange.host.wall_ns() - int(waited * 1e9)) // 1_000_000
        head = exchange.request
        fields = [other for other in head.fields if other[0] != field]
        exchange.request = head.with_fields((*fields, (field, b"%d" % arrived)))
        exchange.request.shared = False
        await next_service(exchange)

    return timestamp_service
