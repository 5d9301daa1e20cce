"""What the Python backends share: `--port`, `--name`, how long an answer takes, and what signals mean.

An answer takes `--work-ms`; SIGUSR1 makes that `--slow-ms`, SIGUSR2 makes it `--work-ms` again. SIGTERM drains.
"""

from __future__ import annotations

import argparse
import asyncio
import signal


class Backend:
    """The settings of one backend, on the running event loop; `drained` is set by SIGTERM."""

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--port", type=int, required=True)
        parser.add_argument("--name", required=True)
        parser.add_argument("--work-ms", type=int, default=60)
        parser.add_argument("--slow-ms", type=int, default=200)
        options = parser.parse_args()
        self.port: int = options.port
        self.name: str = options.name
        self.drained = asyncio.Event()
        self._work = options.work_ms
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.drained.set)
        loop.add_signal_handler(signal.SIGUSR1, self._take, options.slow_ms)
        loop.add_signal_handler(signal.SIGUSR2, self._take, options.work_ms)

    def _take(self, milliseconds: int) -> None:
        self._work = milliseconds

    async def work(self) -> None:
        """Take as long as an answer takes at present."""
        await asyncio.sleep(self._work / 1000)
