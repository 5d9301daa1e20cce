"""What the router keeps, for how long, and what goes when something goes."""

from __future__ import annotations

import sys
from pathlib import Path as FilePath
from typing import Any

sys.path.insert(0, str(FilePath(__file__).parents[2]))
from support.fakes import Call, FakeHost

from dtab import NEG, Activity, AddrBound, Bound, Dtab, Endpoint, Leaf, Ok, Path, Source, constant, read_path
from router.balance import p2c
from router.bind.router import RouterCore
from router.bind.settings import ClientSettings, RouterSettings, ServiceSettings
from router.model.failure import Failure, Kind
from router.model.headers import RequestHead
from router.model.metrics import Metrics
from router.model.verdict import BY_COMPLETION
from router.spi import BalancerContext, Balancing


def balancing() -> Balancing:
    return p2c.make(p2c.Config(), BalancerContext(lambda: 0.0))


class Interpreter:
    """Binds every path to a source of the test."""

    def __init__(self) -> None:
        self.dtab = Dtab()
        self.trees: dict[Path, Source[Any]] = {}

    def bind(self, path: Path, local: Dtab | None) -> Activity[Any]:
        return self.trees.setdefault(path, Source())


def identify(head: RequestHead) -> Path:
    return read_path(head.path.decode())


def router(host: Any, **changes: Any) -> tuple[RouterCore, Interpreter]:
    interpreter = Interpreter()

    async def connect(host: str, port: int) -> Any:
        raise AssertionError("nothing is connected here")

    settings: dict[str, Any] = {
        "label": "test",
        "identify": identify,
        "interpreter": interpreter,
        "classify": BY_COMPLETION,
        "service": lambda path: ServiceSettings(),
        "client": lambda path: ClientSettings(connect, balancing),
        "metrics": Metrics(),
        "idle_ttl": 60.0,
    }
    return RouterCore(host, RouterSettings(**(settings | changes))), interpreter


def request(path: str) -> RequestHead:
    return RequestHead(b"GET", b"http", b"web", path.encode())


def test_a_name_that_expires_leaves_the_metrics_of_longer_names_alone() -> None:
    host = FakeHost()
    made, interpreter = router(host)
    made.start()
    for path in ("/svc/a", "/svc/a/b"):
        Call(host, made.route, request(path))
        interpreter.trees[read_path(path)].set(Ok(NEG))
    for _ in range(4):
        host.pass_time(31)
        Call(host, made.route, request("/svc/a/b"))
    flat = made.settings.metrics.flat()
    assert "service/svc/a/requests" not in flat
    assert flat["service/svc/a/b/requests"] == 5


def test_a_long_exchange_does_not_make_its_entry_old() -> None:
    host = FakeHost()
    made, interpreter = router(host, binding_timeout=1000.0)
    made.start()
    call = Call(host, made.route, request("/svc/a"))
    for _ in range(10):
        host.pass_time(31)
    interpreter.trees[read_path("/svc/a")].set(Ok(NEG))
    assert call.done
    host.pass_time(31)  # idle for half a minute, of the sixty seconds that it may
    assert interpreter.trees[read_path("/svc/a")].observed


def test_silent_addresses_end_the_wait_with_the_binding_timeout() -> None:
    host = FakeHost()
    made, interpreter = router(host, binding_timeout=2.0)
    addr: Source[Any] = Source()
    call = Call(host, made.route, request("/svc/a"))
    interpreter.trees[read_path("/svc/a")].set(Ok(Leaf(Bound(read_path("/#/a"), addr))))
    host.pass_time(2.1)
    assert call.failure is not None
    assert call.failure.kind is Kind.BINDING_TIMEOUT


def test_an_exchange_keeps_the_client_that_it_began_with() -> None:
    host = FakeHost()
    made, interpreter = router(host)
    first: Source[Any] = Source()
    call = Call(host, made.route, request("/svc/a"))
    tree = interpreter.trees[read_path("/svc/a")]
    tree.set(Ok(Leaf(Bound(read_path("/#/a"), first))))
    tree.set(Ok(Leaf(Bound(read_path("/#/b"), constant(AddrBound())))))
    assert not call.done
    assert call.exchange.bound.id == read_path("/#/a")
    other = Call(host, made.route, request("/svc/a"))
    assert other.failure is not None
    assert other.exchange.bound.id == read_path("/#/b")
    first.set(Ok(AddrBound(frozenset())))
    assert call.failure is not None
    assert call.failure.kind is Kind.NO_ENDPOINTS


def test_a_router_that_was_closed_refuses_and_does_not_hang() -> None:
    host = FakeHost()
    made, interpreter = router(host)
    Call(host, made.route, request("/svc/a"))
    tree = interpreter.trees[read_path("/svc/a")]
    tree.set(Ok(Leaf(Bound(read_path("/#/a"), constant(AddrBound())))))
    made.close()
    assert not tree.observed
    client = made.clients[read_path("/#/a")]
    assert client.balancer.targets == []


def test_a_cancelled_exchange_frees_its_entry() -> None:
    host = FakeHost()
    made, interpreter = router(host, paths=1)
    call = Call(host, made.route, request("/svc/a"))
    call.strand.cancel(Failure(Kind.DEADLINE, "late"))
    Call(host, made.route, request("/svc/b"))
    assert not interpreter.trees[read_path("/svc/a")].observed
    assert interpreter.trees[read_path("/svc/b")].observed


def test_endpoints_are_not_watched_for_clients_that_are_gone() -> None:
    host = FakeHost()
    made, interpreter = router(host)
    made.start()
    addr: Source[Any] = Source(Ok(AddrBound(frozenset([Endpoint("127.0.0.1", 1)]))))
    Call(host, made.route, request("/svc/a")).strand.cancel(Failure(Kind.DEADLINE, "late"))
    tree = interpreter.trees[read_path("/svc/a")]
    tree.set(Ok(Leaf(Bound(read_path("/#/a"), addr))))
    assert addr.observed
    tree.set(Ok(NEG))
    assert addr.observed  # kept for a while, it may come back
    for _ in range(4):
        host.pass_time(31)
    assert not addr.observed
