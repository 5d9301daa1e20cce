"""The gRPC calls of the negative suite on grpclib: a job a line on stdin, its answers a line on stdout."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
import zlib

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

logging.disable(logging.CRITICAL)
RESETS = {7: Status.UNAVAILABLE, 8: Status.CANCELLED, 11: Status.RESOURCE_EXHAUSTED, 12: Status.PERMISSION_DENIED}


class Raw(CodecBase):
    """Messages are bytes."""

    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


async def send(stream, call, gate):
    for at in range(call["send"]):
        if at and call["gap"]:
            await asyncio.sleep(call["gap"] / 1000)
        await stream.send_message(bytes(call["size"]), end=at == call["send"] - 1)
        if call["lockstep"]:
            await gate.acquire()


async def talk(stream, call, answer):
    await stream.send_request()
    gate = asyncio.Semaphore(0)
    sending = asyncio.ensure_future(send(stream, call, gate))
    try:
        if call["cancel"] == "start":
            await asyncio.sleep(call["after"] / 1000)
            await stream.cancel()
            return False
        while True:
            if call["slow"]:
                await asyncio.sleep(call["slow"] / 1000)
            message = await stream.recv_message()
            if message is None:
                break
            answer["messages"] += 1
            answer["size"] += len(message)
            answer["crc"] = zlib.crc32(message, answer["crc"])
            gate.release()
            if call["cancel"] == "message":
                await stream.cancel()
                return False
        return True
    finally:
        sending.cancel()


async def make(channel, call):
    began = time.monotonic()
    metadata = list(map(tuple, call["headers"]))
    metadata += [(f"x-pad-{at}", "p" * min(4000, call["pad"] - at)) for at in range(0, call["pad"], 4000)]
    answer = {"messages": 0, "size": 0, "crc": 0, "pad": 0, "extra": "", "text": ""}
    stream = channel.request(call["path"], Cardinality.STREAM_STREAM, bytes, bytes, timeout=call["deadline"], metadata=metadata)
    status = Status.OK
    try:
        async with stream:
            if not await talk(stream, call, answer):
                status = Status.CANCELLED
    except GRPCError as error:
        status, answer["text"] = error.status, error.message or ""
    except TimeoutError:
        status = Status.DEADLINE_EXCEEDED
    except (StreamTerminatedError, ConnectionError, OSError) as error:
        # grpclib gives no status to a stream that was reset or lost: this is the one that gRPC's table gives.
        found = re.search(r"error_code: (\d+)", str(error))
        status = RESETS.get(int(found[1]), Status.INTERNAL) if found else Status.UNAVAILABLE
        answer["text"] = f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - whatever grpclib makes of a message that breaks off, it is an answer
        status, answer["text"] = Status.INTERNAL, f"{type(error).__name__}: {error}"
    pairs = [*(stream.initial_metadata or {}).items(), *(stream.trailing_metadata or {}).items()]
    answer["pad"] = sum(len(value) for name, value in pairs if name.startswith("x-pad"))
    answer["extra"] = next((value.hex() for name, value in pairs if name == "x-neg-bin"), "")
    return answer | {"grpc": status.value, "seconds": time.monotonic() - began}


async def job(asked):
    channel = Channel("127.0.0.1", asked["port"], codec=Raw())
    try:
        if asked["parallel"]:
            return await asyncio.gather(*(make(channel, call) for call in asked["calls"]))
        return [await make(channel, call) for call in asked["calls"]]
    finally:
        channel.close()
        await asyncio.sleep(0)


for line in sys.stdin:
    print(json.dumps(asyncio.run(job(json.loads(line)))), flush=True)
