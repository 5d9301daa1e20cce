"""Facts about Linkerd's reliability that its own end-to-end tests pin (docs/linkerd-facts.md), and where we do better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h2.events
import pytest
import trio
import trio.lowlevel

from tests.support import h1, h2peer

GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
OK = [(b":status", b"200"), (b"content-type", b"application/grpc")]


def yaml(
    protocol: str, root: Any = None, *, service: str = "{}", client: str = "{}", dtab: str = "/svc => /#/io.l5d.fs"
) -> str:
    namers = f"namers: [{{kind: io.l5d.fs, rootDir: {root}}}]" if root is not None else ""
    return f"""
{namers}
routers:
- protocol: {protocol}
  label: test
  dtab: {dtab}
  service: {service}
  client: {client}
  servers: [{{port: 0}}]
"""


def flat(worker: Any) -> dict[str, float]:
    return {name.removeprefix("rt/test/"): value for name, value in worker.metrics.flat().items()}


def server(worker: Any, name: str) -> float:
    """A counter of the only server."""
    _, host, port = worker.addresses[0]
    return flat(worker)[f"server/{host}/{port}/{name}"]


async def get(worker: Any, host: str = "web", method: str = "GET", body: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    async with await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]) as stream:
        with trio.fail_after(5):
            return await h1.Client(stream).request(method, "/", host, [], body)


async def call(
    worker: Any, nursery: trio.Nursery, body: bytes = b"request", headers: Any = GRPC, path: str = "/acme.S/M"
) -> h2peer.Message:
    async with await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]) as stream:
        peer = h2peer.Peer(stream, client=True)
        nursery.start_soon(peer.run)
        with trio.fail_after(5):
            return await peer.request(path, "web", headers, body)


def statuses(*scripted: int) -> Any:
    """A handler that answers with these, then with 200."""
    left = list(scripted)
    return lambda request, body: (left.pop(0) if left else 200, [], b"x")


# -- HTTP/1.1 ---------------------------------------------------------------------------------------------------


async def test_a_5xx_is_a_failure_on_every_level(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any
) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, statuses(500))
    (tmp_path / "web").write_text(f"127.0.0.1 {port}\n")
    async with start(yaml("http", tmp_path)) as worker:
        status, headers, _ = await get(worker)
        assert (status, headers[b"l5d-success-class"]) == (500, b"0.0")
        counted = flat(worker)
        for scope in ("client/#/io.l5d.fs/web", "service/svc/web"):
            assert (counted[f"{scope}/failures"], counted[f"{scope}/success"]) == (1, 0)
        assert (server(worker, "failures"), server(worker, "success")) == (1, 0)


async def test_a_servers_counters_follow_the_names_own_classifier(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any
) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, statuses(500, 500))
    for name in ("web", "odd"):
        (tmp_path / name).write_text(f"127.0.0.1 {port}\n")
    service = "{kind: io.l5d.static, configs: [{prefix: /svc/odd, responseClassifier: {kind: io.l5d.http.allSuccessful}}]}"
    async with start(yaml("http", tmp_path, service=service)) as worker:
        assert [(await get(worker, host))[1][b"l5d-success-class"] for host in ("odd", "web")] == [b"1.0", b"0.0"]
        counted = flat(worker)
        assert (counted["service/svc/odd/success"], counted["service/svc/web/success"]) == (1, 0)
        assert (counted["client/#/io.l5d.fs/odd/success"], counted["client/#/io.l5d.fs/web/success"]) == (1, 0)
        assert (server(worker, "success"), server(worker, "failures")) == (1, 1)


async def test_budgets_are_independent(start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, statuses())
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"127.0.0.1 {port}\n")

    def balances(worker: Any) -> list[float]:
        counted = flat(worker)
        scopes = ("service/svc/a", "client/#/io.l5d.fs/a", "service/svc/b", "client/#/io.l5d.fs/b")
        return [counted[f"{scope}/retries/budget"] for scope in scopes]

    async with start(yaml("http", tmp_path)) as worker:
        await get(worker, "b")
        for _ in range(10):
            await get(worker, "a")
        assert balances(worker) == [102, 102, 100, 100]
        for _ in range(9):
            await get(worker, "b")
        assert balances(worker) == [102, 102, 102, 102]


async def test_budgets_of_prefixes_apply_only_there(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any
) -> None:
    listener, port = await listen()
    nursery.start_soon(h1.serve, listener, lambda request, body: (500, [], b""))
    for name in ("poor", "rich"):
        (tmp_path / name).write_text(f"127.0.0.1 {port}\n")
    none = "{minRetriesPerSec: 0, percentCanRetry: 0.0}"
    service = f"""
    kind: io.l5d.static
    configs:
    - {{prefix: /svc, responseClassifier: {{kind: io.l5d.http.retryableRead5XX}}, retries: {{maxRetries: 3}}}}
    - {{prefix: /svc/poor, retries: {{maxRetries: 3, budget: {none}}}}}"""
    client = f"{{kind: io.l5d.static, configs: [{{prefix: '/#/io.l5d.fs/poor', requeueBudget: {none}}}]}}"
    async with start(yaml("http", tmp_path, service=service, client=client)) as worker:
        assert [(await get(worker, host))[0] for host in ("poor", "rich")] == [500, 500]
        counted = flat(worker)
        assert (counted["service/svc/poor/retries/total"], counted["service/svc/poor/retries/budget_exhausted"]) == (0, 1)
        assert (counted["service/svc/rich/retries/total"], counted["service/svc/rich/retries/request_limit"]) == (3, 1)
        assert counted["client/#/io.l5d.fs/poor/retries/budget"] == 0
        assert counted["client/#/io.l5d.fs/rich/retries/budget"] == 100


# -- HTTP/2 -----------------------------------------------------------------------------------------------------


async def test_streams_are_classified_at_their_end(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any
) -> None:
    """A POST that is answered with 500, then with 200: one success for who asked, one of each for the client."""
    listener, port = await listen()
    left = [b"500"]

    def handler(message: Any) -> Any:
        return [(b":status", left.pop() if left else b"200")], b"body", []

    nursery.start_soon(h2peer.serve, listener, handler)
    (tmp_path / "web").write_text(f"127.0.0.1 {port}\n")
    service = "{responseClassifier: {kind: io.l5d.h2.retryableAll5XX}}"
    async with start(yaml("h2", tmp_path, service=service)) as worker:
        answer = await call(worker, nursery, headers=[])
        assert (answer.get(b":status"), answer.body, answer.get(b"l5d-success-class")) == (b"200", b"body", b"1.0")
        counted = flat(worker)
        client = "client/#/io.l5d.fs/web"
        assert (counted[f"{client}/success"], counted[f"{client}/failures"]) == (1, 1)
        assert (server(worker, "success"), server(worker, "failures")) == (1, 0)
    nursery.cancel_scope.cancel()


async def test_backends_see_the_names_and_what_is_none_of_our_business(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any
) -> None:
    listener, port = await listen()
    seen: list[h2peer.Message] = []

    def handler(message: Any) -> Any:
        seen.append(message)
        return [(b":status", b"200")], b"", []

    nursery.start_soon(h2peer.serve, listener, handler)
    (tmp_path / "web").write_text(f"127.0.0.1 {port}\n")
    async with start(yaml("h2", tmp_path)) as worker:
        fields = [(b"dtab-local", b"/svc/web => !"), (b"l5d-dst-client", b"/#/forged")]
        assert (await call(worker, nursery, b"", fields)).get(b":status") == b"200"
        headers = seen[0].headers
        assert [value for name, value in headers if name == b"l5d-dst-client"] == [b"/#/io.l5d.fs/web"]
        assert (seen[0].get(b"l5d-dst-service"), seen[0].get(b"dtab-local")) == (b"/svc/web", b"/svc/web => !")
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("code", "told"), [(2, 2), (8, 8), (11, 11), (0, 2), (13, 2), (0x77, 2)])
async def test_a_backends_reset_reaches_the_client(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any, code: int, told: int
) -> None:
    listener, port = await listen()
    nursery.start_soon(trio.serve_listeners, lambda stream: Resetting(stream, code).run(), [listener])
    (tmp_path / "web").write_text(f"127.0.0.1 {port}\n")
    async with start(yaml("h2", tmp_path)) as worker:
        assert (await call(worker, nursery, headers=[])).reset == told
        assert server(worker, "failures") == 1
    nursery.cancel_scope.cancel()


class Resetting(h2peer.Peer):
    """Resets every stream with a code as soon as its head has come."""

    def __init__(self, stream: Any, code: int) -> None:
        super().__init__(stream, client=False)
        self.code = code
        self.seen = 0

    async def _event(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.seen += 1
            await self.refuse(event.stream_id)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            await super()._event(event)

    async def refuse(self, stream_id: int) -> None:
        self.conn.reset_stream(stream_id, self.code)  # type: ignore[arg-type]


class GoingAway(Resetting):
    """Says with a GOAWAY that it has seen no stream at all."""

    async def refuse(self, stream_id: int) -> None:
        self.conn.close_connection(last_stream_id=0)


@pytest.mark.parametrize("way", ["REFUSED_STREAM", "GOAWAY"])
async def test_what_was_refused_is_replayed_on_another_endpoint_free_of_budgets(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any, way: str
) -> None:
    bad, bad_port = await listen()
    good, good_port = await listen()
    refusing: list[Resetting] = []

    async def refuse(stream: trio.SocketStream) -> None:
        peer = Resetting(stream, 7) if way == "REFUSED_STREAM" else GoingAway(stream, 0)
        refusing.append(peer)
        await peer.run()

    nursery.start_soon(trio.serve_listeners, refuse, [bad])
    bodies: list[bytes] = []

    def handler(message: Any) -> Any:
        bodies.append(message.body)
        assert message.get(b"grpc-previous-rpc-attempts") is None
        return OK, b"m", [(b"grpc-status", b"0")]

    nursery.start_soon(h2peer.serve, good, handler)
    (tmp_path / "acme.S").write_text(f"127.0.0.1 {bad_port}\n127.0.0.1 {good_port}\n")
    client = "{requeueBudget: {minRetriesPerSec: 0, percentCanRetry: 0.0}, failureAccrual: {kind: none}}"
    service = "{responseClassifier: {kind: io.l5d.h2.grpc.neverRetryable}}"
    async with start(yaml("grpc", tmp_path, client=client, service=service)) as worker:
        for at in range(20):
            assert (await call(worker, nursery, b"request %d" % at)).get(b"grpc-status") == b"0"
        assert bodies == [b"request %d" % at for at in range(20)]
        refused = sum(peer.seen for peer in refusing)
        assert refused >= 1
        assert flat(worker)["client/#/io.l5d.fs/acme.S/retries/requeues"] == refused
        assert flat(worker)["service/svc/acme.S/retries/total"] == 0
    nursery.cancel_scope.cancel()


async def test_a_lost_connection_is_unavailable_and_retried_where_that_may_be(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any
) -> None:
    listener, port = await listen()
    lives = 0

    async def backend(stream: trio.SocketStream) -> None:
        nonlocal lives
        lives += 1
        if lives == 1:

            class Dying(h2peer.Peer):
                async def _event(self, event: Any) -> None:
                    if isinstance(event, h2.events.RequestReceived):
                        await stream.aclose()

            await Dying(stream, client=False).run()
        else:
            await h2peer.Peer(stream, client=False, handler=lambda message: (OK, b"m", [(b"grpc-status", b"0")])).run()

    nursery.start_soon(trio.serve_listeners, backend, [listener])
    (tmp_path / "acme.S").write_text(f"127.0.0.1 {port}\n")
    service = "{responseClassifier: {kind: io.l5d.h2.grpc.retryableStatusCodes, retryableStatusCodes: [14]}}"
    async with start(yaml("grpc", tmp_path, service=service)) as worker:
        assert (await call(worker, nursery)).get(b"grpc-status") == b"0"
        assert (lives, flat(worker)["service/svc/acme.S/retries/total"]) == (2, 1)
    nursery.cancel_scope.cancel()


async def test_the_forwarded_deadline_shrinks_from_attempt_to_attempt(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any
) -> None:
    listener, port = await listen()
    told: list[int] = []

    def handler(message: Any) -> Any:
        value = message.get(b"grpc-timeout")
        assert value.endswith(b"m")
        told.append(int(value[:-1]))
        return None if len(told) < 3 else (OK, b"m", [(b"grpc-status", b"0")])

    nursery.start_soon(h2peer.serve, listener, handler)
    (tmp_path / "acme.S").write_text(f"127.0.0.1 {port}\n")
    service = "{responseClassifier: {kind: io.l5d.h2.grpc.retryableStatusCodes, retryableStatusCodes: [4]}}"
    async with start(yaml("grpc", tmp_path, service=service, client="{requestAttemptTimeoutMs: 30}")) as worker:
        assert (await call(worker, nursery, headers=[*GRPC, (b"grpc-timeout", b"4S")])).get(b"grpc-status") == b"0"
        assert 4_000 >= told[0] >= told[1] + 30 >= told[2] + 60
    nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_holding_answers_back_never_stalls_a_stream(
    start: Any, listen: Callable[[], Any], nursery: trio.Nursery, tmp_path: Any
) -> None:
    """A MiB each way through windows of 64 KiB, with everything buffered that may be."""
    listener, port = await listen()
    answer, request = b"a" * (1 << 20), b"r" * (1 << 20)

    class Large(h2peer.Peer):
        async def answer(self, stream_id: int, headers: Any, body: bytes = b"", trailers: Any = None) -> None:
            self.conn.send_headers(stream_id, headers)
            nursery.start_soon(pour, self, stream_id, body, trailers)

    seen: list[int] = []

    def handler(message: Any) -> Any:
        seen.append(len(message.body))
        return OK, answer, [(b"grpc-status", b"0")]

    nursery.start_soon(trio.serve_listeners, lambda stream: Large(stream, client=False, handler=handler).run(), [listener])
    (tmp_path / "acme.S").write_text(f"127.0.0.1 {port}\n")
    service = "{retryBufferSize: {requestBytes: 70000, responseBytes: 70000}, classificationTimeoutMs: 10000}"
    async with (
        start(yaml("grpc", tmp_path, service=service)) as worker,
        await trio.open_tcp_stream("127.0.0.1", worker.addresses[0][2]) as stream,
    ):
        peer = h2peer.Peer(stream, client=True)
        nursery.start_soon(peer.run)
        pseudo = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/acme.S/M"), (b":authority", b"web")]
        stream_id = await peer.start([*pseudo, *GRPC], end=False)
        nursery.start_soon(pour, peer, stream_id, request, None)
        with trio.fail_after(5):
            await peer.messages[stream_id].done.wait()
        assert seen == [1 << 20]
        assert (len(peer.messages[stream_id].body), peer.messages[stream_id].get(b"grpc-status")) == (1 << 20, b"0")
        assert flat(worker)["service/svc/acme.S/retries/response_stream_too_long"] <= 1
    nursery.cancel_scope.cancel()


async def pour(peer: h2peer.Peer, stream_id: int, body: bytes, trailers: Any) -> None:
    """Send a body as fast as the windows allow, then the end."""
    at = 0
    while at < len(body):
        room = min(peer.conn.local_flow_control_window(stream_id), 16384, len(body) - at)
        if room > 0:
            peer.conn.send_data(stream_id, body[at : at + room], end_stream=trailers is None and at + room == len(body))
            at += room
            await peer.flush()
        await trio.lowlevel.checkpoint()
    if trailers:
        peer.conn.send_headers(stream_id, trailers, end_stream=True)
        await peer.flush()
