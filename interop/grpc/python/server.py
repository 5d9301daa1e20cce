"""grpc.testing.TestService on grpcio: `server.py --port PORT`, plaintext on 127.0.0.1, until SIGTERM.

grpcio does not show a handler whether a request message was compressed, so `expect_compressed` is ignored.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent import futures

import grpc
from empty_pb2 import Empty
from messages_pb2 import (
    EchoStatus,
    Payload,
    ResponseParameters,
    SimpleRequest,
    SimpleResponse,
    StreamingInputCallRequest,
    StreamingInputCallResponse,
    StreamingOutputCallRequest,
    StreamingOutputCallResponse,
)
from test_pb2_grpc import TestServiceServicer, add_TestServiceServicer_to_server

ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class TestService(TestServiceServicer):
    def EmptyCall(self, request: Empty, context: grpc.ServicerContext) -> Empty:
        return Empty()

    def UnaryCall(self, request: SimpleRequest, context: grpc.ServicerContext) -> SimpleResponse:
        if request.HasField("response_compressed"):
            context.set_compression(
                grpc.Compression.Gzip if request.response_compressed.value else grpc.Compression.NoCompression
            )
        echo_metadata(context)
        echo_status(request.response_status, context)
        return SimpleResponse(payload=zeros(request.response_size))

    def StreamingInputCall(
        self, requests: Iterable[StreamingInputCallRequest], context: grpc.ServicerContext
    ) -> StreamingInputCallResponse:
        return StreamingInputCallResponse(aggregated_payload_size=sum(len(each.payload.body) for each in requests))

    def StreamingOutputCall(
        self, request: StreamingOutputCallRequest, context: grpc.ServicerContext
    ) -> Iterator[StreamingOutputCallResponse]:
        if any(each.compressed.value for each in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        return replies(request.response_parameters, context)

    def FullDuplexCall(
        self, requests: Iterable[StreamingOutputCallRequest], context: grpc.ServicerContext
    ) -> Iterator[StreamingOutputCallResponse]:
        echo_metadata(context)
        for request in requests:
            echo_status(request.response_status, context)
            yield from replies(request.response_parameters, context)


def echo_metadata(context: grpc.ServicerContext) -> None:
    """Send the two well-known keys back, one in the initial metadata, one in the trailers."""
    for key, value in context.invocation_metadata():
        if key == ECHO_INITIAL:
            context.send_initial_metadata([(key, value)])
        elif key == ECHO_TRAILING:
            context.set_trailing_metadata([(key, value)])


def echo_status(status: EchoStatus, context: grpc.ServicerContext) -> None:
    if status.code:
        context.abort(CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message)


def replies(parameters: Iterable[ResponseParameters], context: grpc.ServicerContext) -> Iterator[StreamingOutputCallResponse]:
    for each in parameters:
        if each.interval_us:
            time.sleep(each.interval_us / 1e6)
        if each.HasField("compressed") and not each.compressed.value:
            context.disable_next_message_compression()
        yield StreamingOutputCallResponse(payload=zeros(each.size))


def zeros(size: int) -> Payload:
    return Payload(body=bytes(size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    add_TestServiceServicer_to_server(TestService(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(None))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
