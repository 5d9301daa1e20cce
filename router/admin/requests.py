"""What endpoints are, and the bodies of requests, within a bound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Awaitable[Response]]


async def body_of(request: Request, limit: int) -> bytes | None:
    """The body, or None if it has more than ``limit`` bytes."""
    body = bytearray()
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > limit:
                return None
    return bytes(body)
