"""The two function types of the router.

A *service* conducts an exchange: its coroutine returns when both directions are over, or raises a ``Failure``.
A *filter* makes a service from the next one, once, when a target is bound::

    def total_timeout(seconds):
        def filter_(next_service):
            def total_timeout_service(exchange):
                exchange.tighten(exchange.received_at + seconds, "route")
                return next_service(exchange)
            return total_timeout_service
        return filter_

A filter that has nothing to do after the next service is a plain function that returns the next one's coroutine, as above: it
costs a call, whereas a coroutine of its own is paid again with every resumption of the strand. Such a service may raise when it
is called, so that whoever calls one awaits it in the same expression.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from router.model.exchange import Exchange

Conducting: TypeAlias = Coroutine[Any, Any, None]
Service: TypeAlias = Callable[[Exchange], Conducting]
Filter: TypeAlias = Callable[[Service], Service]
