"""The two function types of the router.

A *service* conducts an exchange: it returns when both directions are over, or raises a ``Failure``.
A *filter* makes a service from the next one, once, when a target is bound::

    def attempt_timeout(seconds):
        def filter_(next_service):
            async def attempt_timeout_service(exchange):
                exchange.tighten(exchange.now() + seconds, "attempt")
                await next_service(exchange)
            return attempt_timeout_service
        return filter_
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from router.model.exchange import Exchange

Service: TypeAlias = Callable[[Exchange], Coroutine[Any, Any, None]]
Filter: TypeAlias = Callable[[Service], Service]
