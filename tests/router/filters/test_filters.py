"""Each filter around a fake service."""

from __future__ import annotations

import sys
from pathlib import Path as FilePath
from typing import Any

import pytest

sys.path.insert(0, str(FilePath(__file__).parents[2]))
from support.fakes import Call, FakeHost, answering, waiting

from dtab import read_dtab, read_path
from router.classifiers.http import NON_RETRYABLE_5XX
from router.filters.context import MAX_BYTES, dtab_context
from router.filters.headers import Plan, call_depth, context_out, response_headers
from router.filters.stats import classified, stats
from router.filters.timeout import attempt_timeout, total_timeout
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import CONNECT, RequestHead, ResponseHead
from router.model.metrics import Metrics
from router.model.strand import Waiter

good = NON_RETRYABLE_5XX.make(None, None)


def head(*fields: tuple[bytes, bytes], version: tuple[int, int] = (2, 0)) -> RequestHead:
    return RequestHead(b"GET", b"http", b"web", b"/", fields, version=version)


def failing(failure: Failure) -> Any:
    async def service(exchange: Exchange) -> None:
        raise failure

    return service


def test_stats_count_success_failure_status_and_cancellation() -> None:
    host, metrics = FakeHost(), Metrics()
    for service in (
        answering(200),
        answering(503),
        failing(Failure(Kind.RESET, "", Blame.CLIENT)),
        failing(Failure(Kind.CONNECT, "", Blame.UPSTREAM)),
    ):
        Call(host, classified(good, stats(metrics, service)))
    flat = metrics.flat()
    assert {name: flat[name] for name in ("requests", "success", "failures", "cancelled", "pending")} == {
        "requests": 4, "success": 1, "failures": 2, "cancelled": 1, "pending": 0,
    }  # fmt: skip
    assert (flat["status/200"], flat["status/2XX"], flat["status/503"]) == (1, 1, 1)


def test_stats_measure_latency_and_pending() -> None:
    host, metrics, waiter = FakeHost(), Metrics(), Waiter[None]()
    Call(host, classified(good, stats(metrics, waiting(waiter))))
    assert metrics.flat()["pending"] == 1
    host.pass_time(0.25)
    waiter.wake(None)
    assert metrics.flat()["pending"] == 0
    assert metrics.flat()["request_latency_ms.sum"] == pytest.approx(250)


def test_total_timeout_ends_the_exchange_and_leaves_no_timer() -> None:
    host = FakeHost()
    call = Call(host, total_timeout(1.0, None, waiting(Waiter())))
    host.pass_time(0.9)
    assert not call.done
    host.pass_time(0.2)
    assert call.failure is not None
    assert (call.failure.kind, call.failure.blame) == (Kind.DEADLINE, Blame.UPSTREAM)
    assert "route" in call.failure.why
    Call(host, total_timeout(1.0, None, answering()))
    assert host.timers.pending() == 0


def test_attempt_timeout_is_over_with_the_response_head() -> None:
    host, over = FakeHost(), Waiter[None]()

    async def slow_body(exchange: Exchange) -> None:
        exchange.respond(ResponseHead(200), False)
        await over
        exchange.conclude(())

    call = Call(host, attempt_timeout(1.0, slow_body))
    host.pass_time(2)
    assert not call.done
    over.wake(None)
    assert call.failure is None
    late = Call(host, attempt_timeout(1.0, waiting(Waiter())))
    host.pass_time(2)
    assert late.failure is not None
    assert late.failure.kind is Kind.DEADLINE
    assert host.timers.pending() == 0


def test_what_is_not_configured_is_no_layer() -> None:
    service = answering()
    assert total_timeout(None, None, service) is service
    assert attempt_timeout(None, service) is service


def test_dtab_headers_are_merged_context_first() -> None:
    host = FakeHost()
    service = dtab_context(answering())
    call = Call(host, service, head((b"l5d-dtab", b"/a=>/d"), (b"l5d-ctx-dtab", b"/a=>/b"), (b"l5d-ctx-dtab", b"/a=>/c")))
    assert call.exchange.local_dtab == read_dtab("/a=>/b;/a=>/c;/a=>/d")
    again = Call(host, service, head((b"l5d-dtab", b"/a=>/d"), (b"l5d-ctx-dtab", b"/a=>/b"), (b"l5d-ctx-dtab", b"/a=>/c")))
    assert again.exchange.local_dtab is call.exchange.local_dtab
    assert Call(host, service, head((b"l5d-dtab", b""))).exchange.local_dtab is None
    assert Call(host, service).exchange.local_dtab is None


def test_the_dtab_of_a_connect_is_not_obeyed() -> None:
    fields = ((b"l5d-dtab", b"/a=>/d"), (b"l5d-ctx-dtab", b"nonsense"))
    asked = RequestHead(b"CONNECT", b"", b"web:443", b"", fields, tunnel=CONNECT)
    call = Call(FakeHost(), dtab_context(answering()), asked)
    assert (call.failure, call.exchange.local_dtab) == (None, None)


@pytest.mark.parametrize("value", [b"/a=>", b"x", b"\xff", b"/a=>/b;" * (MAX_BYTES // 6)])
def test_bad_dtab_headers_are_the_clients_fault(value: bytes) -> None:
    call = Call(FakeHost(), dtab_context(answering()), head((b"l5d-dtab", value)))
    assert call.failure is not None
    assert (call.failure.kind, call.failure.blame) == (Kind.MALFORMED, Blame.CLIENT)


def plan(residual: str = "/", local: str = "") -> Plan:
    return Plan(read_path("/svc/web"), read_path("/#/fs/web"), read_path(residual), read_dtab(local) or None)


def test_the_forwarded_head() -> None:
    request = head(
        (b"x", b"1"), (b"connection", b"y, close"), (b"y", b"2"), (b"te", b"trailers"), (b"l5d-dtab", b"/a=>/b"), (b"x", b"3"),
        (b"l5d-dst-client", b"forged"), (b"via", b"1.1 other"), version=(1, 1),
    )  # fmt: skip
    sent = plan("/r", "/a=>/b").apply(request)
    assert sent.fields == (
        (b"x", b"1"), (b"x", b"3"), (b"via", b"1.1 other, 1.1 waypost"), (b"l5d-dst-service", b"/svc/web"),
        (b"l5d-dst-client", b"/#/fs/web"), (b"l5d-dst-residual", b"/r"), (b"l5d-ctx-dtab", b"/a=>/b"),
    )  # fmt: skip


def test_grpc_keeps_its_te_and_shared_heads_are_made_once() -> None:
    request = head((b"content-type", b"application/grpc"), (b"te", b"trailers"))
    mine = plan()
    assert (b"te", b"trailers") in mine.apply(request).fields
    assert mine.apply(request) is not mine.apply(request)
    request.shared = True
    assert mine.apply(request) is mine.apply(request)
    other = plan("/other")
    assert other.apply(request) is not mine.apply(request)
    call = Call(FakeHost(), context_out(mine, answering()), request)
    assert call.exchange.request.get(b"l5d-dst-client") == b"/#/fs/web"


def test_response_headers_are_cleaned_and_signed() -> None:
    fields = ((b"a", b"b"), (b"connection", b"c"), (b"c", b"d"), (b"keep-alive", b"x"), (b"via", b"1.0 back"))
    call = Call(FakeHost(), response_headers(answering(200, fields)))
    assert call.reply.head is not None
    assert call.reply.head.fields == ((b"a", b"b"), (b"via", b"1.0 back, 1.1 waypost"))


def test_loops_are_cut() -> None:
    service = call_depth(2, answering())
    assert Call(FakeHost(), service, head((b"via", b"a, b"))).failure is None
    looped = Call(FakeHost(), service, head((b"via", b"a, b"), (b"via", b"c")))
    assert looped.failure is not None
    assert looped.failure.why == "Maximum number of calls (2) has been exceeded. Please check for proxy loops."
