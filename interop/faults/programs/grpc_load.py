"""Steady gRPC load over one channel of grpcio, which retries nothing itself."""

from __future__ import annotations

import asyncio

import grpc
import load


async def main() -> None:
    options = load.arguments()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{options.port}", options=[("grpc.enable_retries", 0)])
    stub = channel.unary_unary("/grpc.testing.TestService/EmptyCall")

    async def call() -> tuple[str, str]:
        started = stub(b"")
        try:
            await started
            served_by = dict(await started.initial_metadata()).get("served-by", "")
        except grpc.aio.AioRpcError as error:
            return error.code().name, ""
        return "OK", str(served_by)

    await load.run(call, options.rate, options.limit)
    await channel.close()


asyncio.run(main())
