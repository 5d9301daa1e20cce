"""The standard interop cases, and which peer cannot take part in which of them.

The two client_compressed cases are run without their feature probe: it asks whether the server refuses a message whose
compression is not what `expect_compressed` says, and the programs of no peer do. What remains is what a router must get right:
compressed and plain messages arrive as they were sent.
"""

from __future__ import annotations

from collections.abc import Mapping

COMPRESSION = (
    "client_compressed_unary",
    "server_compressed_unary",
    "client_compressed_streaming",
    "server_compressed_streaming",
)

CASES = (
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    *COMPRESSION,
    "cacheable_unary",
)

ALL_PEERS: Mapping[str, str] = {"cacheable_unary": "needs a caching proxy in the chain; a router is none"}

CLIENT_LACKS: Mapping[str, Mapping[str, str]] = {
    "go": dict.fromkeys(COMPRESSION, "the grpc-go client does not offer the case"),
    "java": {},
    "python": {
        "server_compressed_unary": "a grpcio client cannot see whether a response was compressed",
        "server_compressed_streaming": "a grpcio client cannot see whether a response was compressed",
        "client_compressed_streaming": "a grpcio client cannot switch compression within a stream",
    },
    "node": {
        "server_compressed_unary": "a grpc-js client cannot see whether a response was compressed",
        "server_compressed_streaming": "a grpc-js client cannot see whether a response was compressed",
    },
}

SERVER_LACKS: Mapping[str, Mapping[str, str]] = {
    "go": {
        "client_compressed_unary": "the grpc-go server has no decompressor",
        "client_compressed_streaming": "the grpc-go server has no decompressor",
        "server_compressed_unary": "the grpc-go server does not compress responses",
        "server_compressed_streaming": "the grpc-go server does not compress responses",
    },
    "java": {},
    "python": {},
    "node": {
        "server_compressed_unary": "a grpc-js server does not compress responses",
        "server_compressed_streaming": "a grpc-js server does not compress responses",
    },
}


def skip_reason(client: str, server: str, case: str) -> str | None:
    """Why this cell of the matrix has no meaning, or None."""
    return ALL_PEERS.get(case) or CLIENT_LACKS[client].get(case) or SERVER_LACKS[server].get(case)
