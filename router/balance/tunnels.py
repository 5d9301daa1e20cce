"""An endpoint that is also reached by CONNECT: beside the pool of its sessions one of plain connections, each a tunnel's.

Load, breaker and limits are the endpoint's, whatever carries an exchange. Both pools open connections by the same rules
(:mod:`router.balance.pool`); a tunnel's is never kept.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

import attrs

from router.balance.pool import Pool, PoolSettings
from router.model.exchange import Exchange
from router.model.headers import CONNECT

MAX_TUNNELS = 4096  # at once, of one endpoint
SPARE = 1.0  # seconds that a connection is kept whose client went away while it was opened


class Sessions(Protocol):
    """How an endpoint is reached, as its balancer sees it: a :class:`Pool`, or several."""

    @property
    def sessions(self) -> int:
        """How many connections there are."""
        ...

    def conduct(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """Conduct an exchange over a session."""
        ...

    def hurry(self) -> None:
        """The next exchange may connect, whatever the back-off says."""

    def close(self) -> None:
        """Open no more; sessions end with their last exchange, waiters fail."""


def for_tunnels(settings: PoolSettings) -> PoolSettings:
    """The settings of the second pool, by those of the first."""
    most = settings.max_connections if settings.per_connection == 1 else MAX_TUNNELS
    return attrs.evolve(settings, per_connection=1, max_connections=most, min_size=0, surplus_idle=SPARE)


class WithTunnels:
    """Both pools; see :class:`Sessions`."""

    def __init__(self, pool: Pool, tunnels: Pool) -> None:
        self._pool = pool
        self._tunnels = tunnels

    @property
    def sessions(self) -> int:
        """See :class:`Sessions`."""
        return self._pool.sessions + self._tunnels.sessions

    def conduct(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """See :class:`Sessions`."""
        pool = self._tunnels if exchange.request.tunnel == CONNECT else self._pool
        return pool.conduct(exchange)

    def hurry(self) -> None:
        """See :class:`Sessions`."""
        self._pool.hurry()
        self._tunnels.hurry()

    def close(self) -> None:
        """See :class:`Sessions`."""
        self._pool.close()
        self._tunnels.close()
