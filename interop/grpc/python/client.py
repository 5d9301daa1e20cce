"""The standard interop cases on grpcio: `client.py --server_host HOST --server_port PORT --test_case CASE`, plaintext.

Exit code 0 if the case passed, else a traceback. Retries are off: a retry would hide a fault of what stands in between.
client_compressed_unary is the case without the feature probe, which none of the servers would answer.
"""

from __future__ import annotations

import argparse
import queue
import time
from collections.abc import Callable, Iterator

import grpc
from empty_pb2 import Empty
from messages_pb2 import (
    BoolValue,
    EchoStatus,
    Payload,
    ResponseParameters,
    SimpleRequest,
    StreamingInputCallRequest,
    StreamingOutputCallRequest,
    StreamingOutputCallResponse,
)
from test_pb2_grpc import TestServiceStub

REQUEST_SIZES = (27_182, 8, 1_828, 45_904)
RESPONSE_SIZES = (31_415, 9, 2_653, 58_979)
LARGE_REQUEST, LARGE_RESPONSE = 271_828, 314_159
ECHO_INITIAL = ("x-grpc-test-echo-initial", "test_initial_metadata_value")
ECHO_TRAILING = ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab")
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
LIMIT = 20.0  # seconds a call may take

Case = Callable[[grpc.Channel, TestServiceStub], None]


def empty_unary(channel: grpc.Channel, stub: TestServiceStub) -> None:
    equal(stub.EmptyCall(Empty(), timeout=LIMIT), Empty())


def large_unary(channel: grpc.Channel, stub: TestServiceStub) -> None:
    check_payload(stub.UnaryCall(large_request(), timeout=LIMIT).payload, LARGE_RESPONSE)


def client_compressed_unary(channel: grpc.Channel, stub: TestServiceStub) -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.NoCompression):
        expect = BoolValue(value=compression is grpc.Compression.Gzip)
        reply = stub.UnaryCall(large_request(expect_compressed=expect), timeout=LIMIT, compression=compression)
        check_payload(reply.payload, LARGE_RESPONSE)


def client_streaming(channel: grpc.Channel, stub: TestServiceStub) -> None:
    requests = (StreamingInputCallRequest(payload=zeros(size)) for size in REQUEST_SIZES)
    equal(stub.StreamingInputCall(requests, timeout=LIMIT).aggregated_payload_size, sum(REQUEST_SIZES))


def server_streaming(channel: grpc.Channel, stub: TestServiceStub) -> None:
    request = StreamingOutputCallRequest(response_parameters=[ResponseParameters(size=size) for size in RESPONSE_SIZES])
    replies = list(stub.StreamingOutputCall(request, timeout=LIMIT))
    equal(len(replies), len(RESPONSE_SIZES))
    for reply, size in zip(replies, RESPONSE_SIZES, strict=True):
        check_payload(reply.payload, size)


def ping_pong(channel: grpc.Channel, stub: TestServiceStub) -> None:
    duplex = Duplex(stub)
    for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True):
        duplex.send(duplex_request(request_size, response_size))
        check_payload(duplex.receive().payload, response_size)
    duplex.close()
    equal(list(duplex.call), [])
    equal(duplex.call.code(), grpc.StatusCode.OK)


def empty_stream(channel: grpc.Channel, stub: TestServiceStub) -> None:
    duplex = Duplex(stub)
    duplex.close()
    equal(list(duplex.call), [])
    equal(duplex.call.code(), grpc.StatusCode.OK)


def custom_metadata(channel: grpc.Channel, stub: TestServiceStub) -> None:
    metadata = (ECHO_INITIAL, ECHO_TRAILING)
    reply, call = stub.UnaryCall.with_call(large_request(), timeout=LIMIT, metadata=metadata)
    check_payload(reply.payload, LARGE_RESPONSE)
    check_metadata(call)
    duplex = Duplex(stub, metadata=metadata)
    duplex.send(duplex_request(LARGE_REQUEST, LARGE_RESPONSE))
    check_payload(duplex.receive().payload, LARGE_RESPONSE)
    duplex.close()
    equal(list(duplex.call), [])
    check_metadata(duplex.call)


def status_code_and_message(channel: grpc.Channel, stub: TestServiceStub) -> None:
    status = EchoStatus(code=2, message="test status message")
    fails(grpc.StatusCode.UNKNOWN, status.message, lambda: stub.UnaryCall(SimpleRequest(response_status=status), timeout=LIMIT))
    duplex = Duplex(stub)
    duplex.send(StreamingOutputCallRequest(response_status=status))
    duplex.close()
    fails(grpc.StatusCode.UNKNOWN, status.message, duplex.receive)


def special_status_message(channel: grpc.Channel, stub: TestServiceStub) -> None:
    status = EchoStatus(code=2, message=SPECIAL_MESSAGE)
    fails(
        grpc.StatusCode.UNKNOWN, SPECIAL_MESSAGE, lambda: stub.UnaryCall(SimpleRequest(response_status=status), timeout=LIMIT)
    )


def unimplemented_method(channel: grpc.Channel, stub: TestServiceStub) -> None:
    fails_as_unimplemented(channel, "/grpc.testing.TestService/UnimplementedCall")


def unimplemented_service(channel: grpc.Channel, stub: TestServiceStub) -> None:
    fails_as_unimplemented(channel, "/grpc.testing.UnimplementedService/UnimplementedCall")


def cancel_after_begin(channel: grpc.Channel, stub: TestServiceStub) -> None:
    empty_unary(channel, stub)  # connects: a call cancelled before there is a connection never reaches the wire
    requests = Requests()
    call = stub.StreamingInputCall.future(iter(requests), timeout=LIMIT)
    time.sleep(0.05)  # nothing tells when the request's headers have left
    call.cancel()
    equal(call.code(), grpc.StatusCode.CANCELLED)
    requests.put(None)
    empty_unary(channel, stub)  # the connection is still good


def cancel_after_first_response(channel: grpc.Channel, stub: TestServiceStub) -> None:
    duplex = Duplex(stub)
    duplex.send(duplex_request(REQUEST_SIZES[0], RESPONSE_SIZES[0]))
    check_payload(duplex.receive().payload, RESPONSE_SIZES[0])
    duplex.call.cancel()
    fails(grpc.StatusCode.CANCELLED, None, duplex.receive)
    duplex.close()
    empty_unary(channel, stub)


def timeout_on_sleeping_server(channel: grpc.Channel, stub: TestServiceStub) -> None:
    empty_unary(channel, stub)  # connects, so that the deadline covers the call alone
    duplex = Duplex(stub, limit=0.001)
    duplex.send(StreamingOutputCallRequest(payload=zeros(REQUEST_SIZES[0])))
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, None, duplex.receive)
    duplex.close()
    empty_unary(channel, stub)


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        empty_unary,
        large_unary,
        client_compressed_unary,
        client_streaming,
        server_streaming,
        ping_pong,
        empty_stream,
        custom_metadata,
        status_code_and_message,
        special_status_message,
        unimplemented_method,
        unimplemented_service,
        cancel_after_begin,
        cancel_after_first_response,
        timeout_on_sleeping_server,
    )
}


class Requests:
    """The requests of a streaming call, put one at a time; None ends them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[StreamingOutputCallRequest | None] = queue.SimpleQueue()
        self.put = self._queue.put

    def __iter__(self) -> Iterator[StreamingOutputCallRequest]:
        return iter(self._queue.get, None)


class Duplex:
    """One FullDuplexCall in lock-step."""

    def __init__(self, stub: TestServiceStub, *, limit: float = LIMIT, metadata: tuple[tuple[str, object], ...] = ()) -> None:
        self._requests = Requests()
        self.call = stub.FullDuplexCall(iter(self._requests), timeout=limit, metadata=metadata)

    def send(self, request: StreamingOutputCallRequest) -> None:
        self._requests.put(request)

    def receive(self) -> StreamingOutputCallResponse:
        return next(self.call)

    def close(self) -> None:
        self._requests.put(None)


def zeros(size: int) -> Payload:
    return Payload(body=bytes(size))


def large_request(**fields: object) -> SimpleRequest:
    return SimpleRequest(response_size=LARGE_RESPONSE, payload=zeros(LARGE_REQUEST), **fields)


def duplex_request(request_size: int, response_size: int) -> StreamingOutputCallRequest:
    return StreamingOutputCallRequest(response_parameters=[ResponseParameters(size=response_size)], payload=zeros(request_size))


def equal(got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def check_payload(payload: Payload, size: int) -> None:
    equal(len(payload.body), size)
    equal(payload.body.count(0), size)


def check_metadata(call: grpc.Call) -> None:
    equal([value for key, value in call.initial_metadata() if key == ECHO_INITIAL[0]], [ECHO_INITIAL[1]])
    equal([value for key, value in call.trailing_metadata() if key == ECHO_TRAILING[0]], [ECHO_TRAILING[1]])


def fails(code: grpc.StatusCode, message: str | None, call: Callable[[], object]) -> None:
    """The call must end with this status; None stands for any message."""
    try:
        reply = call()
    except grpc.RpcError as error:
        equal(error.code(), code)
        if message is not None:
            equal(error.details(), message)
    else:
        raise AssertionError(f"got the reply {str(reply)[:100]!r}, wanted status {code}")


def fails_as_unimplemented(channel: grpc.Channel, path: str) -> None:
    method = channel.unary_unary(path, request_serializer=Empty.SerializeToString, response_deserializer=Empty.FromString)
    fails(grpc.StatusCode.UNIMPLEMENTED, None, lambda: method(Empty(), timeout=LIMIT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server_host", required=True)
    parser.add_argument("--server_port", type=int, required=True)
    parser.add_argument("--test_case", choices=CASES, required=True)
    options = parser.parse_args()
    with grpc.insecure_channel(f"{options.server_host}:{options.server_port}", [("grpc.enable_retries", 0)]) as channel:
        CASES[options.test_case](channel, TestServiceStub(channel))


if __name__ == "__main__":
    main()
