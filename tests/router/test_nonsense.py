"""Whatever clients and endpoints say in the fields that a router reads: it is ignored or refused, and never raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtab import read_path
from protocols.grpc import deadline, web
from protocols.grpc.timeout import parse_timeout
from router.bind.segments import CLIENT, PATH, ClientParams, PathParams, ServerParams, server_stack
from router.classifiers.grpc import ByGrpcStatus
from router.config.edge import GrpcWeb
from router.filters.budget import Budget, BudgetConfig
from router.filters.deadline import DeadlineConfig, Deadlines
from router.filters.forwarded import ForwardedConfig
from router.filters.retry import RetryPolicy
from router.model.backoff import constant
from router.model.exchange import Exchange
from router.model.failure import Kind
from router.model.headers import CONNECT, Fields, RequestHead, ResponseHead
from router.model.metrics import Metrics
from tests.support.fakes import Call, FakeHost

pytestmark = pytest.mark.slow  # a second or two

ASKED = (
    b"l5d-dtab l5d-ctx-dtab dtab-local l5d-ctx-deadline l5d-ctx-trace l5d-ctx-priority l5d-sample l5d-name l5d-dst-service "
    b"l5d-dst-client l5d-retryable grpc-timeout grpc-previous-rpc-attempts forwarded via x-forwarded-client-cert traceparent "
    b"tracestate te connection origin accept x-grpc-web content-type access-control-request-method content-length"
).split()
ANSWERED = (
    b"retry-after grpc-retry-pushback-ms grpc-status grpc-message l5d-success-class l5d-err l5d-retryable finagle-http-nack "
    b"via vary connection content-type access-control-allow-origin location"
).split()
KNOWN = (
    b"|0|-1|1|99999999|99999999999999999999999|1S|1n|99999999H|1 2|0 0|9999999999999999999 1|1e400|nan|inf|0.5|/|/a=>/b|/a=>|"
    b"/svc=>!|/svc=>$|{|\xff\xfe|1.1 linkerd|,,,|application/grpc|application/grpc-web-text|application/grpc-web+proto|"
    b"POST|https://x|null|*|Wed, 21 Oct 2015 07:28:00 GMT|"
    b'Wed, 99 Xxx 2015 99:99:99 GMT|for="_x";by=|=;=;=|========================================'
).split(b"|")
NONSENSE = st.binary(max_size=40) | st.sampled_from([*KNOWN, b"a" * 5000])


def fields(names: list[bytes]) -> Any:
    return st.lists(st.tuples(st.sampled_from(names), NONSENSE), max_size=5).map(tuple)


def router(answer: ResponseHead, trailers: Fields, clear: bool) -> Any:
    """All stacks of a router around an endpoint that answers so."""
    metrics = Metrics()
    host = FakeHost()
    classify = ByGrpcStatus((0,), None, compliant=True, broken=True)

    async def endpoint(exchange: Exchange) -> None:
        exchange.conclude(trailers)
        sink = exchange.respond(answer, not trailers)
        if trailers:
            sink.end(trailers)

    now = host.timers.now
    client = ClientParams(
        metrics.scope("client"), 1.0, read_path("/svc/web"), read_path("/#/web"), read_path("/"), None,
        Budget(BudgetConfig(), now), lambda: 2, None, None, True,
    )  # fmt: skip
    service = CLIENT.make(client, endpoint)
    path = PathParams(
        metrics.scope("path"), classify, 5.0, None, RetryPolicy(constant(0.0), max_retries=2), Budget(BudgetConfig(), now), None
    )
    service = PATH.make(path, service)
    server = ServerParams(
        metrics, 1000, Deadlines(DeadlineConfig(), metrics), None, clear_context=clear, forwarded=ForwardedConfig(),
        timestamp="x-stamp", grpc_web=GrpcWeb(),
    )  # fmt: skip
    return host, server_stack((web.IN,), (deadline.IN,)).make(server, service)


@settings(deadline=None, max_examples=50)
@given(fields(ASKED), fields(ANSWERED), fields(ANSWERED), st.booleans(), st.sampled_from([b"", b"", CONNECT]))
def test_nothing_that_is_said_is_a_bug(asked: Fields, said: Fields, last: Fields, clear: bool, tunnel: bytes) -> None:
    host, service = router(ResponseHead(200, said), last, clear)
    head = RequestHead(b"POST", b"http", b"web", b"/a.B/C", asked, tunnel=tunnel)
    call = Call(host, service, head)  # a strand that crashes fails the test
    for _ in range(40):
        if call.done:
            break
        host.pass_time(1.0)
    assert call.done
    if call.failure is not None:
        assert call.failure.kind in (Kind.MALFORMED, Kind.LOOP, Kind.DEADLINE)
        assert call.failure.kind is not Kind.MALFORMED or not clear or "dtab" not in call.failure.why
    assert host.timers.pending() == 0


@given(NONSENSE)
def test_a_timeout_is_one_or_none(value: bytes) -> None:
    """Of at most eight digits and a unit, as gRPC has them."""
    seconds = parse_timeout(value)
    if seconds is not None:
        assert 0 <= seconds <= 99_999_999 * 3600
        assert value[:-1].isdigit()
        assert value[-1:] in (b"H", b"M", b"S", b"m", b"u", b"n")
