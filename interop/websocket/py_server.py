"""`python py_server.py PORT`: an echo server on the library websockets."""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        if isinstance(message, str) and message.startswith("close "):
            await ws.close(int(message.partition(" ")[2]))
        else:
            await ws.send(message)


async def main() -> None:
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=4 << 20) as server:
        await server.serve_forever()


asyncio.run(main())
