"""YAML in, real traffic over loopback, counters out; peers are h11 and the h2 library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h2.errors
import h2.settings
import hpack
import pytest
import trio
import trio.testing
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import h1, h2peer

GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
OK = [(b":status", b"200"), (b"content-type", b"text/plain")]


def yaml(protocol: str, dtab: str, *, more: str = "", client: str = "") -> str:
    return f"""
routers:
- protocol: {protocol}
  label: test
  dtab: {dtab}
  bindingTimeoutMs: 200
{more}
{client}
  servers:
  - port: 0
"""


def echo_h1(request: Any, body: bytes) -> Any:
    seen = b"\n".join(b"%b=%b" % field for field in request.headers)
    return 200, [(b"x-seen", b"yes")], b"%b %b\n" % (request.method, request.target) + seen + b"\n" + body


def echo_h2(message: h2peer.Message) -> Any:
    seen = b"\n".join(b"%b=%b" % field for field in message.headers)
    return OK, seen + b"\n" + message.body, [(b"x-trailer", b"t")]


async def h1_client(port: int) -> h1.Client:
    return h1.Client(await trio.open_tcp_stream("127.0.0.1", port))


async def h2_client(nursery: trio.Nursery, port: int) -> h2peer.Peer:
    peer = h2peer.Peer(await trio.open_tcp_stream("127.0.0.1", port), client=True)
    nursery.start_soon(peer.run)
    return peer


def port_of(worker: Any) -> int:
    port: int = worker.addresses[0][2]
    return port


async def test_http1_to_http1_with_context_and_counters(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, echo_h1)
    async with start(yaml("http", f"/svc => /$/inet/127.0.0.1/{port}")) as worker:
        client = await h1_client(port_of(worker))
        for _ in range(3):
            status, headers, body = await client.request(
                "POST", "/a?b=c", "web", [("x-hop", "1"), ("connection", "x-hop")], b"hello"
            )
            assert status == 200
            assert headers[b"x-seen"] == b"yes"
            assert headers[b"via"] == b"1.1 waypost"
        lines = body.split(b"\n")
        assert lines[0] == b"POST /a?b=c"
        assert b"l5d-dst-service=/svc/web" in lines
        assert b"l5d-dst-client=/$/inet/127.0.0.1/%d" % port in lines
        assert b"l5d-dst-residual=/web" in lines
        assert b"via=1.1 waypost" in lines
        assert not any(line.startswith((b"x-hop", b"connection")) for line in lines)
        assert lines[-1] == b"hello"
        await client.stream.aclose()
        flat = worker.metrics.flat()
        assert flat["rt/test/service/svc/web/requests"] == 3
        assert flat["rt/test/service/svc/web/success"] == 3
        assert flat[f"rt/test/client/$/inet/127.0.0.1/{port}/connects"] == 1
        assert flat[f"rt/test/client/$/inet/127.0.0.1/{port}/status/200"] == 3


async def test_http2_to_http2_with_trailers_over_one_connection(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    peers: list[h2peer.Peer] = []
    nursery.start_soon(h2peer.serve, listener, echo_h2, peers)
    async with start(yaml("h2", f"/svc => /$/inet/127.0.0.1/{port}")) as worker:
        client = await h2_client(nursery, port_of(worker))
        answers: list[h2peer.Message] = []

        async def one(at: int) -> None:
            answers.append(await client.request("/x", "web", [(b"x-at", b"%d" % at)], b"b" * at))

        async with trio.open_nursery() as calls:
            for at in range(20):
                calls.start_soon(one, at)
        assert len(answers) == 20
        assert all(dict(answer.trailers) == {b"x-trailer": b"t"} for answer in answers)
        assert len(peers) == 1
        assert worker.metrics.flat()["rt/test/service/svc/web/success"] == 20
        await client.stream.aclose()


async def test_a_large_body_crosses_in_both_directions(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, lambda request, body: (200, [], body))
    async with start(yaml("http", f"/svc => /$/inet/127.0.0.1/{port}")) as worker:
        client = await h1_client(port_of(worker))
        data = bytes(range(256)) * 8192
        async with trio.open_nursery() as calls:
            calls.cancel_scope.deadline = trio.current_time() + 10
            status, _, body = await client.request("POST", "/", "web", body=data)
        assert (status, body == data) == (200, True)
        await client.stream.aclose()


@pytest.mark.parametrize("size", [0, 10, 200_000])
async def test_http1_to_http2(start: Any, listen: Any, nursery: trio.Nursery, size: int) -> None:
    listener, port = await listen()
    nursery.start_soon(h2peer.serve, listener, lambda m: (OK, b"%d" % len(m.body), []))
    config = yaml("http", f"/svc => /$/inet/127.0.0.1/{port}", client="  client: {protocol: h2}")
    async with start(config) as worker:
        client = await h1_client(port_of(worker))
        status, _, body = await client.request("POST", "/x", "web", body=b"x" * size)
        assert (status, body) == (200, b"%d" % size)
        await client.stream.aclose()


async def test_http2_to_http1_and_grpc_is_refused_there(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, echo_h1)
    config = yaml("h2", f"/svc => /$/inet/127.0.0.1/{port}", client="  client: {protocol: http}")
    async with start(config) as worker:
        client = await h2_client(nursery, port_of(worker))
        answer = await client.request("/x", "web", [(b"cookie", b"a=1"), (b"cookie", b"b=2")], b"hello")
        assert answer.get(b":status") == b"200"
        assert b"host=web" in answer.body
        assert b"cookie=a=1; b=2" in answer.body
        assert answer.body.endswith(b"hello")
        refused = await client.request("/demo.Greeter/Hello", "web", GRPC, b"\0\0\0\0\0")
        assert refused.get(b"grpc-status") == b"12"
        assert b"HTTP/1.1" in (refused.get(b"grpc-message") or b"")
        await client.stream.aclose()


async def test_answers_to_names_that_lead_nowhere(start: Any, nursery: trio.Nursery) -> None:
    async with start(yaml("http", "/svc/loop => /svc/loop")) as worker:
        client = await h1_client(port_of(worker))
        status, headers, body = await client.request("GET", "/", "nobody")
        assert status == 502
        assert body.startswith(b"Unable to route request!\n\nservice name: /svc/nobody")
        assert headers[b"l5d-err"].startswith(b"Unable+to+route+request%21")
        status, _, body = await client.request("GET", "/", "loop")
        assert status == 502
        assert b"Max recursion level: 100" in body
        status, _, body = await client.request("GET", "/", "web", [("l5d-dtab", "not a dtab")])
        assert status == 400
        assert b"'/' expected but 'n' found" in body
        await client.stream.aclose()


async def test_grpc_gets_grpc_statuses(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h2peer.serve, listener, lambda message: None)
    async with start(yaml("grpc", f"/svc/slow => /$/inet/127.0.0.1/{port}")) as worker:
        client = await h2_client(nursery, port_of(worker))
        unknown = await client.request("/nobody/Call", "x", GRPC, b"\0\0\0\0\0")
        assert (unknown.get(b":status"), unknown.get(b"grpc-status"), unknown.body) == (b"200", b"14", b"")
        bad = await client.request("/slow/Call", "x", [*GRPC, (b"l5d-dtab", b"/a=>")], b"\0\0\0\0\0")
        assert bad.get(b"grpc-status") == b"13"
        late = await client.request("/slow/Call", "x", [*GRPC, (b"grpc-timeout", b"50m")], b"\0\0\0\0\0")
        assert late.get(b"grpc-status") == b"4"
        await client.stream.aclose()


async def test_the_forwarded_timeout_is_what_is_left(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    seen: list[bytes | None] = []

    def answer(message: h2peer.Message) -> Any:
        seen.append(message.get(b"grpc-timeout"))
        return [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"0")], b"", []

    nursery.start_soon(h2peer.serve, listener, answer)
    async with start(yaml("grpc", f"/svc => /$/inet/127.0.0.1/{port}")) as worker:
        client = await h2_client(nursery, port_of(worker))
        done = await client.request("/a.B/C", "x", [*GRPC, (b"grpc-timeout", b"20S")], b"\0\0\0\0\0")
        assert done.get(b"grpc-status") == b"0"
        assert seen[0] is not None
        assert seen[0].endswith(b"m")
        assert 10_000 < int(seen[0][:-1]) < 20_000
        await client.stream.aclose()


async def test_the_requests_own_dtab_wins_and_goes_on(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, echo_h1)
    async with start(yaml("http", "/svc => !")) as worker:
        client = await h1_client(port_of(worker))
        override = f"/svc/x => /$/inet/127.0.0.1/{port}"
        status, _, body = await client.request("GET", "/", "x", [("l5d-ctx-dtab", "/svc/x => /$/nil"), ("l5d-dtab", override)])
        assert status == 200
        lines = body.split(b"\n")
        assert b"l5d-ctx-dtab=/svc/x=>/$/nil;/svc/x=>/$/inet/127.0.0.1/%d" % port in lines
        assert not any(line.startswith(b"l5d-dtab") for line in lines)
        assert (await client.request("GET", "/", "x"))[0] == 502
        await client.stream.aclose()


async def test_a_clients_reset_reaches_the_backend_as_cancel(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    peers: list[h2peer.Peer] = []
    nursery.start_soon(h2peer.serve, listener, lambda message: None, peers)
    async with start(yaml("h2", f"/svc => /$/inet/127.0.0.1/{port}")) as worker:
        client = await h2_client(nursery, port_of(worker))
        stream_id = await client.start(
            [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"web")], end=True
        )
        with trio.fail_after(5):
            while not (peers and any(message.headers for message in peers[0].messages.values())):
                await trio.testing.wait_all_tasks_blocked(0.002)
            client.conn.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
            await client.flush()
            while not any(message.reset is not None for message in peers[0].messages.values()):
                await trio.testing.wait_all_tasks_blocked(0.002)
        assert [message.reset for message in peers[0].messages.values()] == [8]
        assert worker.metrics.flat()["rt/test/service/svc/web/cancelled"] == 1
        await client.stream.aclose()


async def test_a_peers_limit_of_one_stream_makes_calls_wait_not_fail(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    peers: list[h2peer.Peer] = []

    async def limited(stream: trio.SocketStream) -> None:
        peer = h2peer.Peer(stream, client=False, handler=echo_h2)
        peer.conn.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        peers.append(peer)
        await peer.run()

    nursery.start_soon(trio.serve_listeners, limited, [listener])
    async with start(yaml("h2", f"/svc => /$/inet/127.0.0.1/{port}")) as worker:
        client = await h2_client(nursery, port_of(worker))
        statuses: list[bytes | None] = []

        async def one() -> None:
            statuses.append((await client.request("/", "web", [], b"x")).get(b":status"))

        async with trio.open_nursery() as calls:
            for _ in range(15):
                calls.start_soon(one)
        assert statuses == [b"200"] * 15
        assert 1 <= len(peers) <= 10
        await client.stream.aclose()


async def test_nothing_listens_there(start: Any, listen: Any) -> None:
    listener, port = await listen()
    await listener.aclose()
    async with start(yaml("http", f"/svc => /$/inet/127.0.0.1/{port}")) as worker:
        client = await h1_client(port_of(worker))
        status, headers, body = await client.request("GET", "/", "web")
        assert status == 502
        assert body.decode().splitlines() == [
            f"Unable to establish connection to 127.0.0.1:{port}.", "Connection refused", "", "service name: /svc/web",
            f"client name: /$/inet/127.0.0.1/{port}", f"addresses: [127.0.0.1:{port}]", f"selected address: 127.0.0.1:{port}",
        ]  # fmt: skip
        assert headers[b"l5d-retryable"] == b"true"
        await client.stream.aclose()


async def test_fs_names_follow_their_file(start: Any, listen: Any, nursery: trio.Nursery, tmp_path: Path) -> None:
    ports = []
    for name in (b"one", b"two"):
        listener, port = await listen()
        ports.append(port)
        nursery.start_soon(h1.serve, listener, lambda request, body, name=name: (200, [], name))
    file = tmp_path / "web"
    file.write_text(f"127.0.0.1 {ports[0]}\n")
    config = f"namers: [{{kind: io.l5d.fs, rootDir: {tmp_path}}}]" + yaml("http", "/svc => /#/io.l5d.fs")
    async with start(config) as worker:
        client = await h1_client(port_of(worker))
        assert (await client.request("GET", "/", "web"))[2] == b"one"
        file.write_text(f"127.0.0.1 {ports[1]}\n")
        with trio.fail_after(5):
            while (await client.request("GET", "/", "web"))[2] != b"two":
                await trio.testing.wait_all_tasks_blocked(0.002)
        file.write_text("this is not an address\n")
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert (await client.request("GET", "/", "web"))[2] == b"two"
        await client.stream.aclose()


async def read_frames(stream: trio.SocketStream, until: Any) -> list[Frame]:
    """Frames as they come, until one satisfies ``until`` or the connection ends."""
    frames: list[Frame] = []
    data = b""
    while True:
        while len(data) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            if len(data) < 9 + length:
                break
            frame.parse_body(memoryview(data[9 : 9 + length]))
            data = data[9 + length :]
            frames.append(frame)
            if until(frame):
                return frames
        more = await stream.receive_some(65536)
        if not more:
            return frames
        data += more


async def test_drain_tells_twice_and_lets_the_exchange_under_way_finish(start: Any, listen: Any, nursery: trio.Nursery) -> None:
    listener, port = await listen()
    peers: list[h2peer.Peer] = []
    nursery.start_soon(h2peer.serve, listener, lambda message: None, peers)
    async with start(yaml("h2", f"/svc => /$/inet/127.0.0.1/{port}")) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(worker))
        head = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"web")]
        request = HeadersFrame(1, hpack.Encoder().encode(head), flags=["END_HEADERS", "END_STREAM"])
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize() + request.serialize())
        with trio.fail_after(5):
            while not (peers and any(message.headers for message in peers[0].messages.values())):
                await trio.testing.wait_all_tasks_blocked(0.002)
            for server in worker.servers:
                server.drain()
            frames = await read_frames(stream, lambda frame: isinstance(frame, PingFrame))
            assert [frame.last_stream_id for frame in frames if isinstance(frame, GoAwayFrame)] == [2**31 - 1]
            await stream.send_all(PingFrame(0, frames[-1].opaque_data, flags=["ACK"]).serialize())
            frames = await read_frames(stream, lambda frame: isinstance(frame, GoAwayFrame))
            assert frames[-1].last_stream_id == 1
            await peers[0].answer(1, OK, b"late")
            frames = await read_frames(stream, lambda frame: False)
            assert b"".join(frame.data for frame in frames if isinstance(frame, DataFrame)) == b"late"
            await stream.aclose()
            while worker.servers[0].connections:
                await trio.testing.wait_all_tasks_blocked(0.002)
