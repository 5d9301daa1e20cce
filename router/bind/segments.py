"""The stacks of a router, top of page first: server, path (logical name), client (bound name).

What varies by request, by logical name and by bound name is made once for each, and kept apart for that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from dtab import Dtab, Path
from router.filters.access_log import AccessLog, access_log, recent_requests
from router.filters.adaptive import AdaptiveLimit, sampling
from router.filters.admission import Gate, admission, entrance
from router.filters.budget import Budget
from router.filters.clear_context import clear_context
from router.filters.context import dtab_context
from router.filters.deadline import Deadlines, deadline_in, deadline_out
from router.filters.forwarded import ForwardedConfig, forwarded
from router.filters.headers import Plan, call_depth, context_out, forward_client_cert, response_headers
from router.filters.hedge import HedgePolicy, hedge
from router.filters.retry import RetryPolicy, requeue, retry
from router.filters.stats import classified, stats
from router.filters.success_class import success_class
from router.filters.timeout import attempt_timeout, total_timeout
from router.filters.timestamp import timestamp
from router.model.metrics import Metrics
from router.model.service import Service
from router.model.stack import Module, Stack
from router.model.verdict import Classifier
from router.tracing.filters import trace_in, trace_out
from router.tracing.tracing import Tracing


@attrs.frozen
class ServerParams:
    """One server (listener)."""

    metrics: Metrics
    max_call_depth: int
    deadlines: Deadlines
    gate: Gate | None
    log: AccessLog | None = None
    recent: tuple[AccessLog, ...] = ()
    tracing: Tracing | None = None
    clear_context: bool = False
    forwarded: ForwardedConfig | None = None
    timestamp: str | None = None
    grpc_web: Any = None


@attrs.frozen
class PathParams:
    """One logical name."""

    metrics: Metrics
    classify: Classifier
    total_timeout: float | None
    most: float | None
    retries: RetryPolicy
    budget: Budget
    hedge: HedgePolicy | None


@attrs.frozen
class ClientParams:
    """One bound name with its residual, reached through one logical name."""

    metrics: Metrics
    attempt_timeout: float | None
    service: Path
    client: Path
    residual: Path
    local: Dtab | None
    requeues: Budget
    endpoints: Callable[[], int]
    gate: Gate | None
    adaptive: AdaptiveLimit | None
    forward_client_cert: bool = False
    tracing: Tracing | None = None


def _module(role: str, make: Callable[..., Service], why: str, *, above: str = "", below: str = "") -> Module:
    return Module(role, make, frozenset(above.split()), frozenset(below.split()), why)


SERVER = Stack(
    (
        _module(
            "recent_requests",
            lambda params, nxt: recent_requests(params.recent, nxt),
            "what is not in the sample costs a number drawn, and nothing below",
            above="access_log server_stats",
        ),
        _module(
            "access_log",
            lambda params, nxt: access_log(params.log, nxt),
            "everything is recorded, also what we refuse",
            above="server_stats",
        ),
        _module(
            "server_stats",
            lambda params, nxt: stats(params.metrics, nxt, admitted=params.gate is not None, missed=params.deadlines.missed),
            "counts everything, also what we refuse, by what the classifier of a name said of its exchanges",
            above="call_depth dtab_context",
        ),
        _module(
            "clear_context",
            lambda params, nxt: clear_context(params.clear_context, nxt),
            "what strangers say is read by nobody, and what anybody says of us is not told to them",
            above="trace server_limit response_headers deadline dtab_context",
        ),
        _module(
            "trace",
            lambda params, nxt: trace_in(params.tracing, params.metrics, nxt),
            "what is refused has a span too",
            above="server_limit dtab_context forwarded timestamp",
            below="server_stats",
        ),
        _module(
            "server_limit",
            lambda params, nxt: admission(params.gate, nxt),
            "what is refused costs nothing more than being counted",
            above="response_headers call_depth dtab_context",
            below="server_stats",
        ),
        _module(
            "response_headers",
            lambda params, nxt: response_headers(nxt),
            "the client's view of the response, whoever answered",
        ),
        _module(
            "call_depth",
            lambda params, nxt: call_depth(params.max_call_depth, nxt),
            "a request that loops must not cost a binding",
            above="dtab_context",
        ),
        _module(
            "deadline",
            lambda params, nxt: deadline_in(params.deadlines, nxt),
            "the clock has started, whatever comes next",
            above="dtab_context",
            below="server_stats",
        ),
        _module(
            "dtab_context",
            lambda params, nxt: dtab_context(nxt),
            "the request's own dtab is part of the key under which names are bound",
        ),
        _module(
            "forwarded",
            lambda params, nxt: forwarded(params.forwarded, nxt),
            "a request that is refused needs no new head",
            below="server_limit call_depth dtab_context",
        ),
        _module(
            "timestamp",
            lambda params, nxt: timestamp(params.timestamp, nxt),
            "its head is never the same again, and what is kept by head ends here",
            below="clear_context forwarded dtab_context",
        ),
    )
).check()


def server_stack(edge: tuple[Module, ...], more: tuple[Module, ...]) -> Stack:
    """The server stack with the layers of the protocols that a server speaks."""
    stack = SERVER
    for module in edge:
        stack = stack.insert_above("server_stats", module)
    return Stack(stack.modules + more).check()


PATH = Stack(
    (
        _module(
            "classifier",
            lambda params, nxt: classified(params.classify, nxt),
            "what the name's own classifier says is what everything below goes by",
            above="path_stats",
        ),
        _module(
            "success_class",
            lambda params, nxt: success_class(nxt),
            "routers before us learn what the classifier said",
            below="classifier",
        ),
        _module(
            "path_stats",
            lambda params, nxt: stats(params.metrics, nxt),
            "a logical request is one, however many attempts it takes",
            above="total_timeout",
        ),
        _module(
            "total_timeout",
            lambda params, nxt: total_timeout(params.total_timeout, params.most, nxt),
            "spans all attempts, and the wait for a binding",
            above="retries",
        ),
        _module(
            "retries",
            lambda params, nxt: retry(params.retries, params.budget, params.classify, params.metrics, nxt),
            "an attempt is a new choice of client and endpoint",
            below="classifier path_stats",
        ),
        _module(
            "hedging",
            lambda params, nxt: hedge(params.hedge, params.budget, params.metrics, nxt),
            "each attempt of the retries may be two",
            below="retries",
        ),
    )
).check()

CLIENT = Stack(
    (
        _module(
            "client_limit",
            lambda params, nxt: entrance(params.gate, nxt),
            "what never began says nothing about the client, and its requeues keep its place",
            above="client_stats requeues",
        ),
        _module(
            "client_stats",
            lambda params, nxt: stats(params.metrics, nxt, params.gate),
            "counts attempts",
            above="attempt_timeout requeues",
        ),
        _module(
            "requeues",
            lambda params, nxt: requeue(params.requeues, params.metrics, params.endpoints, nxt),
            "what never arrived is no attempt yet",
            above="context_out attempt_timeout",
        ),
        _module(
            "context_out",
            lambda params, nxt: context_out(Plan(params.service, params.client, params.residual, params.local), nxt),
            "what the endpoint is told about the way of the request",
        ),
        _module(
            "forward_client_cert",
            lambda params, nxt: forward_client_cert(params.forward_client_cert, nxt),
            "what the client claims of itself must be gone already",
            below="context_out requeues",
        ),
        _module(
            "attempt_trace",
            lambda params, nxt: trace_out(params.tracing, params.service, params.client, params.residual, nxt),
            "each attempt has a span, which ends with its time limit",
            above="attempt_timeout deadline_out",
            below="client_stats requeues context_out forward_client_cert",
        ),
        _module(
            "attempt_timeout",
            lambda params, nxt: attempt_timeout(params.attempt_timeout, nxt),
            "spans connecting and the wait for the response head",
        ),
        _module(
            "deadline_out",
            lambda params, nxt: deadline_out(nxt),
            "what is told must be what is left",
            below="requeues context_out",
        ),
        _module(
            "sampling",
            lambda params, nxt: sampling(params.adaptive, nxt),
            "the latency of attempts, without the waits before them",
            below="client_limit requeues",
        ),
    )
).check()
