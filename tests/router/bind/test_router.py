"""Names bound while requests come: waiting, changing, caching, letting go."""

from __future__ import annotations

import sys
from pathlib import Path as FilePath
from typing import Any

import pytest

sys.path.insert(0, str(FilePath(__file__).parents[2]))
from support.fakes import Call, FakeHost

from dtab import NEG, AddrBound, Bound, Failed, Leaf, Ok, Path, Source, Union, Weighted, constant, read_dtab, read_path
from router.balance import p2c
from router.bind.router import RouterCore
from router.bind.settings import ClientSettings, RouterSettings, ServiceSettings
from router.model.failure import Kind
from router.model.headers import RequestHead
from router.model.metrics import Metrics
from router.model.verdict import BY_COMPLETION
from router.spi import BalancerContext, Balancing


def balancing() -> Balancing:
    return p2c.make(p2c.Config(), BalancerContext(lambda: 0.0))


class FakeInterpreter:
    """Binds each path to a source that the test sets."""

    def __init__(self) -> None:
        self.dtab = read_dtab("/svc => /x")
        self.trees: dict[Any, Source[Any]] = {}

    def bind(self, path: Path, local: Any) -> Any:
        return self.trees.setdefault((path, local), Source())


def leaf(name: str, residual: str = "/") -> Leaf[Bound]:
    return Leaf(Bound(read_path(name), constant(AddrBound()), read_path(residual)))


def core(host: Any, **changes: Any) -> tuple[RouterCore, FakeInterpreter]:
    interpreter = FakeInterpreter()

    async def connect(host: str, port: int) -> Any:
        raise AssertionError("nothing is connected here")

    settings: dict[str, Any] = {
        "label": "test", "identify": lambda head: read_path("/svc/" + head.authority.decode()) if head.authority else "no host",
        "interpreter": interpreter, "classify": BY_COMPLETION,
        "service": lambda path: ServiceSettings(), "client": lambda path: ClientSettings(connect, balancing),
        "metrics": Metrics(), "binding_timeout": 10.0, "paths": 3, "idle_ttl": 60.0,
    }  # fmt: skip
    return RouterCore(host, RouterSettings(**(settings | changes))), interpreter


def request(authority: str = "web") -> RequestHead:
    return RequestHead(b"GET", b"http", authority.encode(), b"/")


def kind(call: Call) -> Kind | None:
    return call.failure.kind if call.failure is not None else None


def tree_of(interpreter: FakeInterpreter, name: str = "/svc/web") -> Source[Any]:
    return interpreter.trees[read_path(name), None]


def test_requests_wait_for_the_first_answer_and_are_served_by_it() -> None:
    host = FakeHost()
    made, interpreter = core(host)
    calls = [Call(host, made.route, request()) for _ in range(3)]
    assert not any(call.done for call in calls)
    tree_of(interpreter).set(Ok(leaf("/#/a")))
    assert [kind(call) for call in calls] == [Kind.NO_ENDPOINTS] * 3  # bound, to no endpoint
    assert [client.refs for client in made.clients.values()] == [1]
    assert host.timers.pending() == 0


def test_the_binding_timeout_names_the_name() -> None:
    host = FakeHost()
    made, _ = core(host)
    call = Call(host, made.route, request())
    host.pass_time(10.1)
    assert kind(call) is Kind.BINDING_TIMEOUT
    assert call.failure is not None
    assert call.failure.why == "Exceeded 10.seconds binding timeout while resolving name: /svc/web"


def test_a_cancelled_waiter_is_forgotten() -> None:
    host = FakeHost()
    made, interpreter = core(host)
    call = Call(host, made.route, request())
    call.strand.cancel(KeyError())  # type: ignore[arg-type]
    tree_of(interpreter).set(Ok(NEG))
    assert call.done
    assert host.timers.pending() == 0


def test_failures_of_discovery_show_before_the_first_answer_only() -> None:
    host = FakeHost()
    made, interpreter = core(host)
    first = Call(host, made.route, request())
    tree_of(interpreter).set(Failed(OSError("no namer")))
    assert kind(first) is Kind.UNBOUND
    assert "no namer" in str(first.failure)
    tree_of(interpreter).set(Ok(leaf("/#/a")))
    tree_of(interpreter).set(Failed(OSError("again")))
    assert kind(Call(host, made.route, request())) is Kind.NO_ENDPOINTS


def test_a_negative_answer_is_told_with_the_dtabs() -> None:
    host = FakeHost()
    made, interpreter = core(host)
    local = read_dtab("/a => /b")
    call = Call(host, made.route, request(), local)
    interpreter.trees[read_path("/svc/web"), local].set(Ok(NEG))
    assert call.failure is not None
    assert call.failure.why.splitlines() == [
        "Unable to route request!", "", "service name: /svc/web", "dtab:", "base dtab:", "  /svc => /x",
        "override dtab:", "  /a => /b",
    ]  # fmt: skip


def test_an_unidentified_request_is_told_why() -> None:
    host = FakeHost()
    made, _ = core(host)
    call = Call(host, made.route, request(""))
    assert kind(call) is Kind.UNIDENTIFIED
    assert call.failure is not None
    assert call.failure.why == "no host"


def test_clients_are_shared_by_id_and_kept_over_changes() -> None:
    host = FakeHost()
    made, interpreter = core(host)
    Call(host, made.route, request("one"))
    Call(host, made.route, request("two"))
    tree_of(interpreter, "/svc/one").set(Ok(leaf("/#/a", "/r1")))
    tree_of(interpreter, "/svc/two").set(Ok(Union((Weighted(1.0, leaf("/#/a")), Weighted(1.0, leaf("/#/b"))))))
    client = made.clients[read_path("/#/a")]
    assert client.refs == 2
    tree_of(interpreter, "/svc/one").set(Ok(leaf("/#/a", "/r2")))
    assert made.clients[read_path("/#/a")] is client
    assert client.refs == 2
    tree_of(interpreter, "/svc/two").set(Ok(NEG))
    assert (client.refs, made.clients[read_path("/#/b")].refs) == (1, 0)


def test_idle_entries_and_clients_go_with_time_and_take_their_metrics_along() -> None:
    host = FakeHost()
    made, interpreter = core(host)
    made.start()
    Call(host, made.route, request())
    tree_of(interpreter).set(Ok(leaf("/#/a")))
    assert any("service/svc/web" in name for name in made.settings.metrics.flat())
    for _ in range(6):
        host.pass_time(31)
    assert made.clients == {}
    assert not any("service" in name or "client" in name for name in made.settings.metrics.flat())
    assert not tree_of(interpreter).observed
    made.close()
    assert host.timers.pending() == 0


def test_a_full_cache_evicts_the_idle_entry_used_longest_ago() -> None:
    host = FakeHost()
    made, interpreter = core(host)
    for at, name in enumerate(["a", "b", "c"]):
        host.time = float(at)
        Call(host, made.route, request(name))
        tree_of(interpreter, f"/svc/{name}").set(Ok(NEG))
    host.time = 4.0
    Call(host, made.route, request("a"))
    host.time = 5.0
    Call(host, made.route, request("d"))
    assert made.settings.metrics.flat()["bindings"] == 3
    assert not tree_of(interpreter, "/svc/b").observed
    assert tree_of(interpreter, "/svc/a").observed


def test_a_cache_full_of_busy_entries_serves_one_shot() -> None:
    host = FakeHost()
    made, interpreter = core(host)
    waiting = [Call(host, made.route, request(name)) for name in "abc"]
    extra = Call(host, made.route, request("d"))
    assert made.settings.metrics.flat()["bindings"] == 3
    tree_of(interpreter, "/svc/d").set(Ok(NEG))
    assert extra.done
    assert not tree_of(interpreter, "/svc/d").observed
    assert not any(call.done for call in waiting)


def test_a_shared_head_remembers_its_entry_until_that_goes() -> None:
    host = FakeHost()
    made, interpreter = core(host)
    head = request()
    head.shared = True
    Call(host, made.route, head)
    tree_of(interpreter).set(Ok(NEG))
    assert head.routed is not None
    entry = head.routed[1]
    assert kind(Call(host, made.route, head)) is Kind.UNBOUND
    made.close()
    assert entry.closed
    other, _ = core(host)
    assert not Call(host, other.route, head).done


@pytest.mark.parametrize("paths", [1, 2])
def test_the_cache_never_holds_more_than_it_may(paths: int) -> None:
    host = FakeHost()
    made, _ = core(host, paths=paths)
    for at in range(10):
        Call(host, made.route, request(f"n{at}"))
    assert made.settings.metrics.flat()["bindings"] == paths
