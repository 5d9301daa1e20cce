"""``grpc-timeout``: read, enforced, told on shrunken; and what an endpoint's expiry is called."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.grpc import deadline
from protocols.grpc.timeout import parse_timeout, show_timeout
from router.model.exchange import Exchange
from router.model.failure import Blame, Kind
from router.model.headers import RequestHead
from router.model.metrics import Metrics
from router.model.strand import Waiter
from tests.support.fakes import Call, FakeHost, answering, waiting

PARAMS = SimpleNamespace(metrics=Metrics())


def request(*timeout: bytes) -> RequestHead:
    fields = [(b"content-type", b"application/grpc"), *((b"grpc-timeout", value) for value in timeout)]
    return RequestHead(b"POST", b"http", b"web", b"/s/M", tuple(fields))


@given(st.floats(0, 1e12))
def test_what_is_shown_is_never_more_and_hardly_less(seconds: float) -> None:
    told = parse_timeout(show_timeout(seconds))
    assert told is not None
    assert told <= seconds
    assert told >= min(seconds * 0.999, 99_999_999) - 1e-6


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"99999999n", 0.099999999), (b"0S", 0)],
)
def test_units(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"1s", b"123456789S", b"-1S", b"1.5S", b" 1S", b"1S\n", "\u0661S".encode()])
def test_what_is_no_timeout(value: bytes) -> None:
    assert parse_timeout(value) is None


def test_a_malformed_timeout_is_counted_and_goes_on_as_it_is() -> None:
    metrics = Metrics()
    service = deadline.deadline_in(SimpleNamespace(metrics=metrics), answering())
    call = Call(FakeHost(), service, request(b"soon"))
    assert call.failure is None
    assert call.exchange.request.get(b"grpc-timeout") == b"soon"
    assert metrics.flat() == {"deadline/malformed": 1}


@pytest.mark.parametrize("value", [b"0S", b"0n"])
def test_no_time_at_all_is_not_sent(value: bytes) -> None:
    call = Call(FakeHost(), deadline.deadline_in(PARAMS, answering()), request(value))
    assert call.failure is not None
    assert call.failure.kind is Kind.DEADLINE
    assert call.exchange.response is None


def test_the_exchange_ends_when_the_client_said() -> None:
    host = FakeHost()
    call = Call(host, deadline.deadline_in(PARAMS, waiting(Waiter())), request(b"100m"))
    host.pass_time(0.09)
    assert not call.done
    host.pass_time(0.02)
    assert call.failure is not None
    assert (call.failure.kind, call.failure.blame) == (Kind.DEADLINE, Blame.CLIENT)


def test_a_timeout_without_grpc_means_nothing() -> None:
    head = RequestHead(b"GET", b"http", b"web", b"/", ((b"grpc-timeout", b"0S"),))
    assert Call(FakeHost(), deadline.deadline_in(PARAMS, answering()), head).failure is None


def test_the_endpoint_is_told_what_is_left() -> None:
    host = FakeHost()
    told: list[bytes | None] = []

    async def endpoint(exchange: Exchange) -> None:
        told.append(exchange.request.get(b"grpc-timeout"))

    async def late(exchange: Exchange) -> None:
        host.pass_time(0.25)
        await deadline.deadline_out(None, endpoint)(exchange)

    original = request(b"1S")
    Call(host, deadline.deadline_in(PARAMS, late), original)
    assert told == [b"750000u"]
    assert original.get(b"grpc-timeout") == b"1S"
    Call(host, deadline.deadline_out(None, endpoint), request())
    assert told[1:] == [None]
