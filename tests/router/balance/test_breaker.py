"""One endpoint's breaker: what counts, who probes, and when it comes back."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.accruals.policies import Consecutive
from router.balance.breaker import ALIVE, EJECTED, OPEN, PROBE_PATIENCE, PROBED, Breaker, BreakerSettings, BreakerStats
from router.classifiers import h2
from router.model.backoff import constant
from router.model.exchange import Exchange
from router.model.failure import CANCEL, ENHANCE_YOUR_CALM, REFUSED_STREAM, Blame, Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.spi import Accrual
from tests.support.fakes import FakeHost, RecordingReply

CLASSIFY = h2.NON_RETRYABLE_5XX.make(None, None)
RESET = Failure(Kind.RESET, "reset", Blame.UPSTREAM, code=2)
REFUSED = Failure(Kind.CONNECT, "refused", Blame.UPSTREAM, retryable=True)


@attrs.define
class Endpoint:
    available: bool = True
    freshened: int = 0
    hurried: int = 0

    def fresh(self) -> None:
        self.freshened += 1

    def hurry(self) -> None:
        self.hurried += 1


class Rig:
    def __init__(self, failures: int = 3, wait: float = 10.0, *, fail_fast: bool = False) -> None:
        self.host, self.metrics, self.endpoint = FakeHost(), Metrics(), Endpoint()
        accrual = Accrual(lambda: Consecutive(failures), constant(wait))
        self.settings = BreakerSettings(self.host, accrual, BreakerStats(self.metrics), "/#/web", fail_fast)
        self.breaker = Breaker(self.settings, self.endpoint, lambda: "10.0.0.1:80")

    def begin(self) -> int:
        return self.breaker.begins()

    def end(self, epoch: int, exchange: Exchange) -> None:
        self.breaker.ended(exchange, epoch)

    def run(self, *exchanges: Exchange) -> None:
        for exchange in exchanges:
            self.end(self.begin(), exchange)

    def names(self) -> list[str]:
        return [event.name for event in self.host.events.recent]


def over(
    status: int | None = 200, failure: Failure | None = None, fields: Fields = (), trailers: Fields = (), *, grpc: bool = False
) -> Exchange:
    head = RequestHead(b"POST", b"http", b"web", b"/", ((b"content-type", b"application/grpc"),) if grpc else ())
    made = Exchange(FakeHost(), head, None, RecordingReply())  # type: ignore[arg-type]
    made.classify = CLASSIFY
    if status is not None:
        made.respond(ResponseHead(status, fields), False)
        if failure is None:
            made.conclude(trailers)
    made.failure = failure
    return made


GOOD, BAD = over(200), over(500)


def status(code: int, *more: tuple[bytes, bytes]) -> Fields:
    return ((b"grpc-status", b"%d" % code), *more)


@pytest.mark.parametrize(
    "bad",
    [
        BAD,
        over(None, RESET),
        over(200, RESET),
        over(None, REFUSED),
        over(None, Failure(Kind.DEADLINE, "attempt", Blame.UPSTREAM)),
        over(None, Failure(Kind.PROTOCOL, "nonsense", Blame.UPSTREAM)),
        over(200, trailers=status(14), grpc=True),
        over(200, fields=status(13), grpc=True),
        over(503),
    ],
)
def test_what_counts(bad: Exchange) -> None:
    rig = Rig(2)
    rig.run(bad)
    assert rig.breaker.state is ALIVE
    rig.run(bad)
    assert (rig.breaker.state, rig.endpoint.available) == (EJECTED, False)
    assert rig.metrics.flat()["failure_accrual/removals"] == 1
    assert rig.names() == ["endpoint_ejected"]


@pytest.mark.parametrize(
    "neither",
    [
        over(None, Failure(Kind.RESET, "gone", Blame.CLIENT, code=CANCEL)),
        over(None, Failure(Kind.DEADLINE, "client", Blame.CLIENT)),
        over(None, Failure(Kind.OVERLOADED, "queue", rejected=True)),
        over(None, Failure(Kind.UNSUPPORTED, "grpc to http", Blame.ROUTER)),
        over(None, Failure(Kind.RESET, "refused", Blame.UPSTREAM, code=REFUSED_STREAM)),
        over(None, Failure(Kind.RESET, "calm", Blame.UPSTREAM, code=ENHANCE_YOUR_CALM)),
        over(503, fields=((b"retry-after", b"1"),)),
        over(503, fields=((b"finagle-http-nack", b"true"),)),
        over(200, fields=status(8), grpc=True),
        over(200, trailers=status(14, (b"grpc-retry-pushback-ms", b"100")), grpc=True),
        over(200, fields=status(14, (b"grpc-retry-pushback-ms", b"100")), grpc=True),
    ],
)
def test_what_counts_neither_way(neither: Exchange) -> None:
    rig = Rig(2)
    rig.run(BAD, *repeat(neither, 5))
    assert rig.breaker.state is ALIVE
    rig.run(BAD)  # the row was not broken
    assert rig.breaker.state is EJECTED


def test_one_probe_at_a_time_and_a_good_one_revives() -> None:
    rig = Rig()
    rig.run(BAD, BAD, BAD)
    rig.host.pass_time(9.9)
    assert rig.breaker.state is EJECTED
    rig.host.pass_time(0.2)
    assert (rig.breaker.state, rig.endpoint.available) == (OPEN, True)
    probe = rig.begin()
    assert (rig.breaker.state, rig.endpoint.available, rig.endpoint.freshened) == (PROBED, False, 1)
    rig.end(probe, GOOD)
    assert (rig.breaker.state, rig.endpoint.available) == (ALIVE, True)
    flat = rig.metrics.flat()
    assert (flat["failure_accrual/probes"], flat["failure_accrual/revivals"]) == (1, 1)
    assert flat["failure_accrual/removed_for_ms"] == 10100
    assert rig.names() == ["endpoint_ejected", "endpoint_revived"]
    rig.run(BAD, BAD)
    assert rig.breaker.state is ALIVE  # counting began anew


def test_a_bad_probe_ejects_again() -> None:
    rig = Rig()
    rig.run(BAD, BAD, BAD)
    rig.host.pass_time(10.1)
    rig.run(BAD)
    assert (rig.breaker.state, rig.endpoint.available) == (EJECTED, False)
    rig.host.pass_time(10.1)
    assert rig.breaker.state is OPEN
    assert rig.metrics.flat()["failure_accrual/removals"] == 1


def test_a_probe_that_says_nothing_lets_another_come() -> None:
    rig = Rig()
    rig.run(BAD, BAD, BAD)
    rig.host.pass_time(10.1)
    rig.run(over(None, Failure(Kind.RESET, "gone", Blame.CLIENT)))
    assert (rig.breaker.state, rig.endpoint.available) == (OPEN, True)
    slow = rig.begin()
    rig.host.pass_time(PROBE_PATIENCE + 0.1)
    assert rig.breaker.state is OPEN
    rig.end(slow, BAD)
    assert rig.breaker.state is OPEN


def test_what_began_before_proves_nothing() -> None:
    rig = Rig()
    early = rig.begin()
    rig.run(BAD, BAD, BAD)
    rig.end(early, GOOD)
    assert rig.breaker.state is EJECTED


def test_in_a_panic_a_good_exchange_revives() -> None:
    rig = Rig()
    rig.run(BAD, BAD, BAD)
    rig.run(BAD)
    assert rig.breaker.state is EJECTED
    rig.run(GOOD)
    assert rig.breaker.state is ALIVE
    rig.host.pass_time(20)
    assert rig.breaker.state is ALIVE


def test_fail_fast() -> None:
    rig = Rig(fail_fast=True)
    rig.run(over(None, RESET))
    assert rig.breaker.state is ALIVE
    rig.run(over(None, REFUSED))
    assert rig.breaker.state is EJECTED
    rig.host.pass_time(2.1)
    assert rig.breaker.state is OPEN
    rig.run(GOOD)
    assert rig.breaker.state is ALIVE


def test_an_endpoint_that_is_gone_leaves_no_timer() -> None:
    rig = Rig()
    running = rig.begin()
    rig.run(BAD, BAD, BAD)
    rig.breaker.retire()
    rig.end(running, GOOD)
    assert rig.breaker.state is EJECTED
    assert not any(rig.host.timers._buckets.values())


@pytest.mark.parametrize("probed", [False, True])
def test_the_first_to_revive_when_all_were_out_opens_the_others(probed: bool) -> None:
    rig = Rig(2, 10.0)
    other = Endpoint()
    breaker = Breaker(rig.settings, other, lambda: "10.0.0.2:80")
    rig.run(BAD, BAD)
    rig.host.pass_time(5)
    for _ in range(2):
        breaker.ended(BAD, breaker.epoch)
    assert (rig.breaker.state, breaker.state) == (EJECTED, EJECTED)
    if probed:
        rig.host.pass_time(5.5)
    rig.run(GOOD)
    assert (rig.breaker.state, breaker.state, other.available, other.hurried) == (ALIVE, OPEN, True, 1)
    breaker.ended(BAD, breaker.begins())
    assert (breaker.state, other.available) == (EJECTED, False)
    assert rig.host.timers.pending() == 1


def test_a_revival_among_others_opens_none() -> None:
    rig = Rig(2, 10.0)
    out, alive = (Breaker(rig.settings, Endpoint(), lambda: "10.0.0.2:80") for _ in range(2))
    rig.run(BAD, BAD)
    for _ in range(2):
        out.ended(BAD, out.epoch)
    rig.run(GOOD)
    assert (rig.breaker.state, out.state, alive.state) == (ALIVE, EJECTED, ALIVE)
    alive.retire()
    assert list(rig.settings.breakers) == [rig.breaker, out]


@given(st.lists(st.tuples(st.sampled_from(["begin", "good", "bad", "neither", "wait"]), st.integers(0, 4)), max_size=80))
def test_any_schedule(steps: list[tuple[str, int]]) -> None:
    rig = Rig(2, 1.0)
    running: list[int] = []
    outcomes: dict[str, Any] = {
        "good": GOOD, "bad": BAD, "neither": over(None, Failure(Kind.RESET, "gone", Blame.CLIENT)),
    }  # fmt: skip
    for what, which in steps:
        if what == "begin":
            running.append(rig.begin())
        elif what == "wait":
            rig.host.pass_time(0.4)
        elif running:
            rig.end(running.pop(which % len(running)), outcomes[what])
        assert rig.endpoint.available is (rig.breaker.state in (ALIVE, OPEN))
        timers = sum(len(bucket) for bucket in rig.host.timers._buckets.values())
        assert timers == (rig.breaker.state in (EJECTED, PROBED))
    rig.host.pass_time(60)
    assert rig.breaker.state in (ALIVE, OPEN)
    rig.run(GOOD)
    assert rig.breaker.state is ALIVE
    assert rig.metrics.flat()["failure_accrual/removals"] == rig.metrics.flat()["failure_accrual/revivals"]
