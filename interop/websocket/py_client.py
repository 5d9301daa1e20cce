"""`python py_client.py PORT`: every case on the library websockets; a JSON object of outcomes, "" for a good one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

sys.path.insert(0, str(Path(__file__).parents[2]))
from interop.websocket import cases


async def text(ws: ClientConnection) -> None:
    await ws.send(cases.TEXT)
    assert await ws.recv() == cases.TEXT


async def binary(ws: ClientConnection) -> None:
    data = os.urandom(cases.BIG)
    await ws.send(data)
    assert await ws.recv() == data


async def fragmented(ws: ClientConnection) -> None:
    await ws.send(cases.PIECES)
    assert await ws.recv() == "".join(cases.PIECES)


async def many(ws: ClientConnection) -> None:
    for number in range(cases.MANY):
        await ws.send(str(number))
    assert [await ws.recv() for _ in range(cases.MANY)] == [str(number) for number in range(cases.MANY)]


async def ping(ws: ClientConnection) -> None:
    await (await ws.ping(b"are you there?"))


async def deflate(ws: ClientConnection) -> None:
    assert ws.response is not None
    assert "permessage-deflate" in ws.response.headers.get("Sec-WebSocket-Extensions", ""), "not agreed on"
    await ws.send("x" * cases.BIG)
    assert await ws.recv() == "x" * cases.BIG


async def close(ws: ClientConnection) -> None:
    await ws.send(f"close {cases.CODE}")
    try:
        await ws.recv()
    except ConnectionClosed:
        pass
    assert ws.close_code == cases.CODE, f"closed with {ws.close_code}"


async def main() -> None:
    outcomes = {}
    for name in cases.CASES:
        try:
            async with asyncio.timeout(10):
                async with connect(f"ws://127.0.0.1:{sys.argv[1]}/echo", max_size=4 << 20, proxy=None) as ws:
                    await globals()[name](ws)
            outcomes[name] = ""
        except Exception as error:  # noqa: BLE001 - the outcome
            outcomes[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(outcomes))


asyncio.run(main())
