"""How supervisor and worker talk: questions with answers over a socket pair, in both directions.

A message is four bytes of length and a JSON object: ``{"ask": what, "id": n, "with": {...}}``, and as its answer
``{"id": n, "reply": value}`` or ``{"id": n, "error": text}``. Both ends are processes of one installation, of one version.

Bounds: ``MAX_MESSAGE`` bytes a message, ``MAX_ASKED`` questions under way; more is a bug and ends the channel.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

MAX_MESSAGE = 64 << 20
MAX_ASKED = 1000
_LENGTH = struct.Struct(">I")

Handler = Callable[..., Awaitable[Any]]


class ChannelClosedError(Exception):
    """The other process is gone."""


class RefusedError(Exception):
    """The other process could not do what it was asked; the text says why."""


class Channel:
    """One end. ``handlers`` answer the other end's questions: ``await handlers[what](**fields)``, each in a task."""

    def __init__(self, stream: trio.abc.Stream, handlers: Mapping[str, Handler]) -> None:
        self._stream = stream
        self._handlers = handlers
        self._sending = trio.Lock()
        self._asked: dict[int, tuple[trio.Event, dict[str, Any]]] = {}
        self._next = 0
        self.closed = False

    async def ask(self, what: str, **fields: Any) -> Any:
        """The other end's answer. Raises :class:`ChannelClosedError`, :class:`RefusedError`."""
        if self.closed or len(self._asked) >= MAX_ASKED:
            raise ChannelClosedError
        self._next += 1
        number, answered, answer = self._next, trio.Event(), dict[str, Any]()
        self._asked[number] = (answered, answer)
        try:
            await self._send({"ask": what, "id": number, "with": fields})
            await answered.wait()
        finally:
            del self._asked[number]
        if "reply" in answer:
            return answer["reply"]
        raise RefusedError(answer["error"]) if "error" in answer else ChannelClosedError

    async def run(self) -> None:
        """Answer, and take answers, until the other end is gone."""
        try:
            async with trio.open_nursery() as nursery:
                while (message := await self._receive()) is not None:
                    if "ask" in message:
                        nursery.start_soon(self._answer, message)
                    else:
                        self._answered(message)
                nursery.cancel_scope.cancel()
        finally:
            self.closed = True
            for answered, _ in self._asked.values():
                answered.set()

    async def aclose(self) -> None:
        """Hang up; the other end's :meth:`run` returns."""
        self.closed = True
        await self._stream.aclose()

    def _answered(self, message: dict[str, Any]) -> None:
        waiting = self._asked.get(message["id"])
        if waiting is not None:  # else whoever asked has given up
            waiting[1].update(message)
            waiting[0].set()

    async def _answer(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": message["id"]}
        try:
            answer["reply"] = await self._handlers[message["ask"]](**message["with"])
        except Exception as error:  # noqa: BLE001 - told to the process that asked
            answer["error"] = str(error) or repr(error)
        try:
            await self._send(answer)
        except ChannelClosedError:
            return

    async def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MAX_MESSAGE:
            raise RefusedError(f"a message of {len(data)} bytes")
        try:
            async with self._sending:
                await self._stream.send_all(_LENGTH.pack(len(data)) + data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ChannelClosedError from None

    async def _receive(self) -> dict[str, Any] | None:
        """The next message; None when there will be none."""
        head = await self._exactly(_LENGTH.size)
        if head is None:
            return None
        (length,) = _LENGTH.unpack(head)
        data = await self._exactly(length) if length <= MAX_MESSAGE else None
        message: dict[str, Any] | None = None if data is None else json.loads(data)
        return message

    async def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                piece = await self._stream.receive_some(min(size - len(data), 65536))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not piece:
                return None
            data += piece
        return bytes(data)
