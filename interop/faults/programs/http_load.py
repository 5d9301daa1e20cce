"""Steady HTTP/1.1 load: PUT over kept-alive connections, as many as it takes.

A PUT is idempotent, which the router must be told, and not safe: nothing sends it again on its own account.
"""

from __future__ import annotations

import asyncio

import load

REQUEST = b"PUT /call HTTP/1.1\r\nhost: backends\r\ncontent-length: 0\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """The connections to the router that are idle."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def call(self) -> tuple[str, str]:
        """Status and who served."""
        usable = [pair for pair in self._idle if not pair[0].at_eof()]
        connection = usable.pop() if usable else await asyncio.open_connection("127.0.0.1", self._port)
        self._idle = usable
        reader, writer = connection
        try:
            writer.write(REQUEST)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            fields = dict(line.split(": ", 1) for line in head[1:] if line)
            await reader.readexactly(int(fields["content-length"]))
        except BaseException:
            writer.close()
            raise
        if fields.get("connection") == "close":
            writer.close()
        else:
            self._idle.append(connection)
        return head[0].split()[1], fields.get("served-by", "")


async def main() -> None:
    options = load.arguments()
    await load.run(Client(options.port).call, options.rate, options.limit)


asyncio.run(main())
