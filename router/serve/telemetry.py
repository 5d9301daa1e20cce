"""The telemeters of the configuration in use: what they serve at the admin interface, and what they push."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from router.config.schema import Chosen
from router.spi import Telemeter, TelemeterContext

if TYPE_CHECKING:
    from router.serve.supervisor import Supervisor

AGAIN = 10.0  # seconds after which a telemeter that failed is started anew


class Telemetry:
    """``endpoints``: by path, what the telemeters serve, a text for a request's Host."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._configured: Sequence[Chosen] | None = None
        self._telemeters: list[Telemeter] = []
        self._changed = trio.Event()
        self.endpoints: dict[str, Callable[[str], Awaitable[str]]] = {}

    def use(self, configured: Sequence[Chosen]) -> None:
        """From now on these."""
        if configured == self._configured:
            return
        self._configured = configured
        context = TelemeterContext(self._supervisor.gatherer.snapshot)
        self._telemeters = [chosen.plugin.make(chosen.config, context) for chosen in configured]
        self.endpoints = {path: text for telemeter in self._telemeters for path, text in telemeter.endpoints.items()}
        self._changed.set()

    async def run(self) -> None:
        """Push what is to be pushed, until cancelled."""
        while True:
            self._changed = trio.Event()
            async with trio.open_nursery() as nursery:
                for telemeter in self._telemeters:
                    if telemeter.run is not None:
                        nursery.start_soon(self._push, telemeter.run)
                await self._changed.wait()
                nursery.cancel_scope.cancel()

    async def _push(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - a collector's trouble is not the router's
                self._supervisor.events.warn("telemeter_trouble", cause=str(error) or repr(error), again_in_s=AGAIN)
            await trio.sleep(AGAIN)
