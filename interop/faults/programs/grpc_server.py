"""A grpcio backend on 127.0.0.1: grpc.testing.TestService/EmptyCall; each answer says who `served-by`."""

from __future__ import annotations

import asyncio

import grpc
from backend import Backend


async def main() -> None:
    backend = Backend()

    async def empty_call(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await backend.work()
        await context.send_initial_metadata((("served-by", backend.name),))  # with the answer, as other servers do
        return b""

    handlers = {"EmptyCall": grpc.unary_unary_rpc_method_handler(empty_call)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.testing.TestService", handlers),))
    server.add_insecure_port(f"127.0.0.1:{backend.port}")
    await server.start()
    await backend.drained.wait()
    await server.stop(5)


asyncio.run(main())
