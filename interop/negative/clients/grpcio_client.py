"""The gRPC calls of the negative suite on grpcio: a job a line on stdin, its answers a line on stdout."""

from __future__ import annotations

import json
import sys
import threading
import time
import zlib

import grpc

OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 1 << 20),
    ("grpc.absolute_max_metadata_size", 1 << 20),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.lookahead_bytes", 65_535),
    ("grpc.http2.bdp_probe", 0),
]


def requests(call, gate):
    for at in range(call["send"]):
        if at and call["gap"]:
            time.sleep(call["gap"] / 1000)
        yield bytes(call["size"])
        if call["lockstep"]:
            gate.acquire()


def make(channel, call):
    began = time.monotonic()
    metadata = [(name, value) for name, value in call["headers"]]
    metadata += [(f"x-pad-{at}", "p" * min(4000, call["pad"] - at)) for at in range(0, call["pad"], 4000)]
    gate = threading.Semaphore(0)
    answer = {"messages": 0, "size": 0, "crc": 0, "pad": 0, "extra": ""}
    stub = channel.stream_stream(call["path"])
    stream = stub(requests(call, gate), timeout=call["deadline"], metadata=metadata)
    if call["cancel"] == "start":
        threading.Timer(call["after"] / 1000, stream.cancel).start()
    try:
        while True:
            if call["slow"]:
                time.sleep(call["slow"] / 1000)
            message = next(stream, None)
            if message is None:
                break
            answer["messages"] += 1
            answer["size"] += len(message)
            answer["crc"] = zlib.crc32(message, answer["crc"])
            gate.release()
            if call["cancel"] == "message":
                stream.cancel()
    except grpc.RpcError:
        pass
    pairs = [*(stream.initial_metadata() or ()), *(stream.trailing_metadata() or ())]
    answer["pad"] = sum(len(value) for name, value in pairs if name.startswith("x-pad"))
    answer["extra"] = next((value.hex() for name, value in pairs if name == "x-neg-bin"), "")
    return answer | {"grpc": stream.code().value[0], "text": stream.details() or "", "seconds": time.monotonic() - began}


def job(text):
    asked = json.loads(text)
    calls = asked["calls"]
    answers = [None] * len(calls)

    def one(at):
        answers[at] = make(channel, calls[at])

    with grpc.insecure_channel(f"127.0.0.1:{asked['port']}", OPTIONS) as channel:
        if asked["parallel"]:
            threads = [threading.Thread(target=one, args=(at,)) for at in range(len(calls))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            for at in range(len(calls)):
                one(at)
    return answers


for line in sys.stdin:
    print(json.dumps(job(line)), flush=True)
