"""An HTTP/1.1 backend for requests without content on 127.0.0.1: keep-alive; each answer says who `served-by`.

On SIGTERM it accepts nothing new, closes what is idle, and ends each connection with the answer under way.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from backend import Backend


class Server:
    """Its open connections, of which some are idle."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._idle: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until SIGTERM and the last answer."""
        backend = self._backend
        server = await asyncio.start_server(self._accept, "127.0.0.1", backend.port)
        await backend.drained.wait()
        server.close()
        for writer in self._idle:
            writer.close()
        if self._open:
            await asyncio.wait(self._open, timeout=5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        with suppress(OSError, asyncio.IncompleteReadError):
            while not self._backend.drained.is_set():
                self._idle.add(writer)
                await reader.readuntil(b"\r\n\r\n")
                self._idle.discard(writer)
                await self._answer(writer)
        self._idle.discard(writer)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        await self._backend.work()
        last = "connection: close\r\n" if self._backend.drained.is_set() else ""
        head = f"HTTP/1.1 200 OK\r\nserved-by: {self._backend.name}\r\n{last}content-length: 3\r\n\r\n"
        writer.write(head.encode() + b"ok\n")
        await writer.drain()


async def main() -> None:
    await Server(Backend()).run()


asyncio.run(main())
