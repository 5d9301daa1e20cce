"""Records of real traffic: which rules led a call where, what became of each attempt, and what we answered ourselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from router.config.load import load_text
from router.config.plugins import Registry
from tests.support import h1, h2peer


async def get(worker: Any, *fields: tuple[str, str], host: str = "web", at: int = 0) -> int:
    stream = await trio.open_tcp_stream("127.0.0.1", worker.addresses[at][2])
    async with stream:
        return (await h1.Client(stream).request("GET", "/x", host, list(fields), b""))[0]


async def serve_http(listener: trio.SocketListener, answers: list[bytes]) -> None:
    """Answer one request a connection."""
    for answer in answers:
        async with await listener.accept() as stream:
            await stream.receive_some(65536)
            await stream.send_all(answer)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
BAD = b"HTTP/1.1 503 Bad\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def yaml(port: int, log: Path, sample: int) -> str:
    return f"""
routers:
- protocol: http
  label: test
  dtab: |
    /host => /$/inet/127.0.0.1/{port} ;
    /svc => /host ;
  accessLog: {{file: {log}, sample: {sample}}}
  service: {{responseClassifier: {{kind: io.l5d.http.retryableRead5XX}}, totalTimeoutMs: 5000}}
  servers: [{{port: 0}}]
"""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_decision_is_told_whole(start: Any, listen: Any, nursery: trio.Nursery, tmp_path: Path) -> None:
    listener, port = await listen()
    log = tmp_path / "access.json"
    nursery.start_soon(serve_http, listener, [OK, BAD, OK])
    async with start(yaml(port, log, sample=0)) as worker:
        assert await get(worker) == 200  # a success, which is not in the sample
        assert await get(worker) == 200  # and one at the second attempt
        assert await get(worker, ("l5d-dtab", "/svc => /$/fail")) == 502
        assert await get(worker, ("l5d-dtab", "/svc =>")) == 400
    unbound, malformed = lines(log)
    assert (unbound["status"], unbound["name"], unbound["dtab"]) == (502, "/svc/web", "/svc=>/$/fail")
    assert (unbound["client"], unbound["attempts"], unbound["blame"]) == (None, [], "router")
    assert (malformed["status"], malformed["blame"]) == (400, "client")


async def test_attempts_and_routes(start: Any, listen: Any, nursery: trio.Nursery, tmp_path: Path) -> None:
    listener, port = await listen()
    log = tmp_path / "access.json"
    nursery.start_soon(serve_http, listener, [BAD, OK, OK])
    async with start(yaml(port, log, sample=1)) as worker:
        assert await get(worker) == 200
        assert await get(worker, ("l5d-dtab", "/svc => /host")) == 200
    first, second = lines(log)
    here = f"127.0.0.1:{port}"
    assert [(attempt["endpoint"], attempt["outcome"]) for attempt in first["attempts"]] == [
        (here, "status 503"),
        (here, "status 200"),
    ]
    assert (first["retries"], first["status"], first["response_bytes"], first["client"]) == (
        1,
        200,
        5,
        f"/$/inet/127.0.0.1/{port}",
    )
    assert [step["line"] for step in first["route"]] == [7, 6]
    assert [step["line"] for step in second["route"]] == [None, 6]
    assert first["table"] == second["table"]
    assert 0 < first["left_ms"] < first["deadline_ms"] == 5000
    assert 0 <= first["sent_ms"] <= first["first_byte_ms"] <= first["total_ms"]


async def test_grpc_and_linkerds_form(start: Any, listen: Any, nursery: trio.Nursery, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    text = f"""
routers:
- protocol: grpc
  label: test
  dtab: /svc => /$/nil
  h2AccessLog: {log}
  h2AccessLogRollPolicy: 1.megabyte
  servers: [{{port: 0}}]
"""
    async with start(text) as worker:
        client = h2peer.Peer(await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]), client=True)
        nursery.start_soon(client.run)
        grpc = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
        answer = await client.request("/a.B/C", "web", grpc, b"\0\0\0\0\0")
        assert answer.get(b"grpc-status") == b"14"
        await client.stream.aclose()
    assert '"POST /a.B/C HTTP/2" 200 - "-" "-"\n' in log.read_text()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("accessLog: {file: x, format: '{nope}'}", "{nope} is no field of the access log"),
        ("accessLog: {file: x, format: text}", "must be linkerd, json, or a template"),
        ("accessLog: {file: x, sample: 2}", "must be between 0 and 1"),
        ("accessLog: {format: json}", "missing required key 'file'"),
        ("httpAccessLog: x\n  httpAccessLogRollPolicy: yearly", "must be never, hourly"),
        ("h2AccessLog: x", "'h2AccessLog' is for other routers than http"),
    ],
)
def test_wrong_keys(keys: str, told: str) -> None:
    loaded = load_text(f"routers:\n- protocol: http\n  {keys}\n", "test.yaml", Registry())
    assert loaded.config is None
    assert told in loaded.render()
    assert all(problem.line >= 3 for problem in loaded.problems)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
async def test_a_full_disk_loses_lines_and_no_calls(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(serve_http, listener, [OK, OK])
    async with start(yaml(port, Path("/dev/full"), sample=1)) as worker:
        assert await get(worker) == 200
        with trio.fail_after(5):
            while not worker.host.events.counts["access_log_trouble"]:
                assert await get(worker, ("l5d-dtab", "/svc => /$/fail")) == 502
                await trio.sleep(0.05)
        assert await get(worker) == 200
        told = next(event.fields for event in worker.host.events.recent if event.name == "access_log_trouble")
        assert (told["file"], told["cause"]) == ("/dev/full", "No space left on device")
        assert worker.metrics.flat()["rt/test/access_log/dropped"] >= told["dropped"] >= 1
