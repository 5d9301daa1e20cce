"""statsd: what is sent, and to whom."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio

from router.model.metrics import Metrics
from router.spi import TelemeterContext
from router.telemeters.snapshot import Snapshot
from router.telemeters.statsd import DATAGRAM, Config, datagrams, lines, make


def test_counters_are_what_has_come_since() -> None:
    metrics, before = Metrics(), dict[str, int]()
    scope = metrics.scope("rt", "web", "service", "svc/a b")
    scope.counter("requests").value = 5
    scope.gauge("load", lambda: 1.5)
    scope.stat("time_ms").add(80.0)

    def sent() -> set[str]:
        taken = Snapshot().take(metrics.slots())
        return set(lines(taken, taken, before, "lb"))

    first = sent()
    assert {"lb.rt.web.service.svc_a_b.requests:5|c", "lb.rt.web.service.svc_a_b.load:1.5|g"} <= first
    assert any(line.startswith("lb.rt.web.service.svc_a_b.time_ms.p99:") and line.endswith("|g") for line in first)
    assert not [line for line in sent() if line.endswith("|c")]
    scope.counter("requests").value = 7
    assert "lb.rt.web.service.svc_a_b.requests:2|c" in sent()
    scope.remove()
    assert sent() == set()
    assert before == {}


def test_datagrams_hold_what_fits() -> None:
    texts = [f"name.{number}:1|c" for number in range(500)]
    made = list(datagrams(iter(texts)))
    assert all(len(datagram) <= DATAGRAM for datagram in made)
    assert b"\n".join(made).decode().split("\n") == texts
    assert len(made) < 10


async def test_they_arrive_again_and_again(autojump_clock: Any, nursery: trio.Nursery) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        metrics = Metrics()
        counter = metrics.counter("requests")

        async def snapshot() -> tuple[Snapshot, Snapshot]:
            counter.value += 3
            taken = Snapshot().take(metrics.slots())
            return taken, taken

        telemeter = make(Config(port=receiver.getsockname()[1], gauge_interval_ms=1000), TelemeterContext(snapshot))
        assert telemeter.run is not None
        nursery.start_soon(telemeter.run)
        await trio.sleep(2.5)
        received = []
        while True:
            try:
                received.append(receiver.recv(2000))
            except BlockingIOError:
                break
        assert received == [b"linkerd.requests:3|c"] * 3
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", [{"port": 0}, {"port": 70000}, {"gauge_interval_ms": 1}])
def test_what_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="between"):
        Config(**wrong)
