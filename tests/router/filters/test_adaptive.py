"""The adaptive limit, sample by sample: what it learns from, what it does not, and where it stops."""

from __future__ import annotations

from typing import Any

import pytest

from router.filters.adaptive import DIP_EVERY, SAMPLES, AdaptiveConfig, AdaptiveLimit, sampling
from router.filters.admission import Gate
from router.filters.shedding import Shedding
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Waiter
from tests.support.fakes import Call, FakeHost, answering, waiting


class Rig:
    def __init__(self, low: int = 3, high: int = 1000) -> None:
        self.host: Any = FakeHost()
        self.metrics = Metrics()
        self.gate = Gate(self.host, high, 0, Shedding(self.host, self.metrics, "here", None), self.metrics)
        self.adaptive = AdaptiveLimit(AdaptiveConfig(low, high), self.gate, self.host, self.metrics)

    def window(self, seconds: Any, running: int | None = None) -> int:
        """A second of samples that took ``seconds``, which may depend on the limit; returns the limit after it."""
        for _ in range(SAMPLES):
            self.gate.running = self.gate.limit if running is None else running
            self.host.time += 1 / SAMPLES
            took = seconds(self.gate.limit) if callable(seconds) else seconds
            self.adaptive._sample(self.host.time - took, self.host.time)
        return self.gate.limit

    def windows(self, times: int, seconds: Any, running: int | None = None) -> list[int]:
        return [self.window(seconds, running) for _ in range(times)]


def test_it_grows_while_latency_does_not_and_settles_when_it_does() -> None:
    rig = Rig()
    assert rig.windows(8, 0.01)[-1] > 60
    limits = rig.windows(60, lambda limit: 0.01 * max(1.0, limit / 80))
    assert min(limits[-5:]) >= 80
    assert max(limits[-5:]) <= 80 * 1.6
    assert rig.adaptive.base == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("low", "high", "first"), [(3, 1000, 20), (30, 1000, 30), (3, 10, 10), (7, 7, 7)])
def test_it_stays_within_its_bounds(low: int, high: int, first: int) -> None:
    rig = Rig(low, high)
    assert rig.gate.limit == first
    seen = rig.windows(12, 0.01) + rig.windows(30, lambda limit: 0.001 * limit)
    assert low <= min(seen)
    assert max(seen) <= high


def test_a_limit_that_nobody_needs_is_left_alone() -> None:
    rig = Rig()
    assert set(rig.windows(10, 0.01, running=5)) == {20}
    assert set(rig.windows(3, 0.05, running=5)) == {20}


def test_a_base_is_raised_slowly_and_lowered_quickly() -> None:
    rig = Rig()
    rig.windows(1, 0.01, running=1)
    rig.windows(4, 0.1, running=1)
    assert rig.adaptive.base < 0.011
    rig.windows(150, 0.1, running=1)
    assert rig.adaptive.base == pytest.approx(0.1, rel=0.05)
    rig.windows(20, 0.01, running=1)
    assert rig.adaptive.base < 0.025


def test_endpoints_that_became_slower_are_not_strangled() -> None:
    rig = Rig()
    rig.windows(60, lambda limit: 0.01 * max(1.0, limit / 50))
    limits = rig.windows(80, lambda limit: 0.03 * max(1.0, limit / 50))
    assert rig.adaptive.base == pytest.approx(0.03, rel=0.15)
    assert 50 <= limits[-1] <= 80


def test_a_base_that_is_too_high_is_found_out() -> None:
    rig = Rig()
    rig.adaptive.base = 0.1
    limits = rig.windows(100, lambda limit: 0.01 * max(1.0, limit / 10))
    assert rig.adaptive.base == pytest.approx(0.01, rel=0.15)
    assert limits[-1] <= 22


def test_even_the_minimum_is_doubted() -> None:
    rig = Rig(low=10)
    rig.windows(30, 0.01)
    rig.adaptive._set(10, rig.host.time)
    rig.adaptive._proven = 10
    rig.windows(30, 0.05)
    assert rig.adaptive.base == pytest.approx(0.05, rel=0.1)


def test_dips_are_seldom_once_the_base_is_proven() -> None:
    rig = Rig()
    rig.windows(100, lambda limit: 0.01 * max(1.0, limit / 50))
    before, began = rig.metrics.flat()["adaptive/dips"], rig.host.time
    rig.windows(400, lambda limit: 0.01 * max(1.0, limit / 50))
    dips = rig.metrics.flat()["adaptive/dips"] - before
    assert dips == pytest.approx((rig.host.time - began) / DIP_EVERY, abs=1.5)


def test_a_dip_ends_though_traffic_ebbs_away() -> None:
    rig = Rig()
    rig.windows(30, 0.01)
    rig.gate.running = rig.gate.limit
    limit = rig.gate.limit
    rig.adaptive._samples, rig.adaptive._sum = 1, 0.01
    rig.adaptive._dip(rig.host.time)
    assert rig.gate.limit < limit
    rig.host.time += 60
    rig.adaptive._sample(rig.host.time - 0.01, rig.host.time)
    assert rig.gate.limit == limit


def test_what_was_sent_under_another_limit_does_not_count() -> None:
    rig = Rig()
    rig.window(0.01)
    rig.adaptive._sample(rig.adaptive._epoch - 0.001, rig.host.time)
    assert rig.adaptive._samples == 0


def test_a_loop_that_lags_is_not_taken_for_the_endpoint() -> None:
    rig = Rig()
    rig.host.lag.start(Metrics())
    rig.host.lag.mean = 0.004
    rig.adaptive._sample(rig.host.time, rig.host.time + 0.02)
    assert rig.adaptive._sum == pytest.approx(0.016)
    rig.host.time = 1.0  # the next measurement is overdue by nearly a second
    rig.adaptive._sample(0.5, 1.0)
    assert rig.adaptive._samples == 1
    assert rig.metrics.flat()["adaptive/lagging"] == 1
    rig.host.lag.stop()


class Attempts:
    """The layer around a service."""

    def __init__(self, service: Any) -> None:
        self.rig = Rig()
        self.service = sampling(self.rig.adaptive, service)

    def call(self, grpc: bool = False) -> Call:
        fields = ((b"content-type", b"application/grpc"),) if grpc else ()
        return Call(self.rig.host, self.service, RequestHead(b"POST", b"http", b"web", b"/", fields))

    @property
    def samples(self) -> int:
        return self.rig.adaptive._samples


def test_without_it_there_is_no_layer() -> None:
    service = answering()
    assert sampling(None, service) is service


@pytest.mark.parametrize(
    ("status", "grpc", "counts"),
    [(200, False, 1), (404, False, 1), (500, False, 0), (503, False, 0), (429, False, 0), (200, True, 0)],
)
def test_failures_that_come_fast_are_no_samples(status: int, grpc: bool, counts: int) -> None:
    attempts = Attempts(answering(status))
    assert attempts.call(grpc).exchange.complete  # for gRPC: trailers only
    assert attempts.samples == counts


def test_a_stream_is_a_sample_when_its_head_comes() -> None:
    over: Waiter[None] = Waiter()

    async def stream(exchange: Exchange) -> None:
        exchange.host.time += 0.2  # type: ignore[attr-defined]
        exchange.respond(ResponseHead(200), False)
        await over
        exchange.conclude(())

    attempts = Attempts(stream)
    call = attempts.call(grpc=True)
    assert attempts.samples == 1
    assert attempts.rig.adaptive._sum == pytest.approx(0.2)
    over.wake(None)
    assert call.done
    assert attempts.samples == 1


def test_an_attempt_without_a_head_took_at_least_that_long() -> None:
    hold: Waiter[None] = Waiter()
    attempts = Attempts(waiting(hold))
    attempts.rig.adaptive.base = 0.1
    quick, slow = attempts.call(), attempts.call()
    attempts.rig.host.pass_time(0.05)
    quick.strand.cancel(Failure(Kind.RESET, "gone", Blame.CLIENT))
    assert attempts.samples == 0
    attempts.rig.host.pass_time(0.25)
    slow.strand.cancel(Failure(Kind.DEADLINE, "late", Blame.CLIENT))
    assert attempts.samples == 1
    assert attempts.rig.adaptive._sum == pytest.approx(0.3)


def test_an_exchange_is_let_go_after_its_attempt() -> None:
    call = Attempts(answering()).call()
    assert call.exchange.heard is None
