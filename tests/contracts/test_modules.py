"""What every layer of the stacks does with what passes through it: one end in, the same end out, nothing left behind."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from dtab import Path
from router.access_log.forms import read_form
from router.bind.segments import CLIENT, PATH, SERVER
from router.config.edge import GrpcWeb
from router.filters.access_log import AccessLog
from router.filters.adaptive import AdaptiveConfig, AdaptiveLimit
from router.filters.admission import Gate
from router.filters.budget import Budget, BudgetConfig
from router.filters.deadline import DeadlineConfig, Deadlines
from router.filters.forwarded import ForwardedConfig
from router.filters.hedge import HedgePolicy
from router.filters.retry import RetryPolicy
from router.filters.shedding import Shedding
from router.model.backoff import constant
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead
from router.model.metrics import Metrics
from router.model.stack import Module
from router.model.strand import Waiter
from router.model.verdict import BY_COMPLETION
from tests.contracts.conftest import REGISTRY
from tests.support.fakes import Call, FakeHost, answering, waiting
from tests.support.records import Routes, taken, written
from tests.support.tracing import Collected, tracing

HOST: Any = FakeHost()


def gate() -> Gate:
    """A limit; who enters by a layer of it leaves by another one."""
    return Gate(HOST, 10, 10, Shedding(HOST, Metrics(), "here", None), Metrics())


FORM = read_form("json", "web", "127.0.0.1:80", Routes())


def record(exchange: Exchange) -> None:
    """What is recorded can be written."""
    json.loads(written(taken(FORM, exchange), exchange))


PARAMS = SimpleNamespace(
    log=AccessLog(record),
    recent=(AccessLog(record),),
    classify=BY_COMPLETION,
    max_call_depth=10,
    total_timeout=1.0,
    most=2.0,
    attempt_timeout=1.0,
    service=Path.of("svc", "web"),
    client=Path.of("$", "inet", "1"),
    residual=Path(),
    local=None,
    retries=RetryPolicy(constant(0.0)),
    budget=Budget(BudgetConfig(), lambda: 0.0),
    hedge=HedgePolicy(10.0),
    requeues=Budget(BudgetConfig(), lambda: 0.0),
    endpoints=lambda: 1,
    forward_client_cert=True,
    clear_context=True,
    forwarded=ForwardedConfig(),
    timestamp="x-request-start",
    grpc_web=GrpcWeb(allow_origins=("*",)),
    deadlines=Deadlines(DeadlineConfig(), Metrics()),
    adaptive=AdaptiveLimit(AdaptiveConfig(), gate(), HOST, Metrics()),
    tracing=tracing(Collected()),
)
PROTOCOLS = [REGISTRY.protocol(kind) for kind in REGISTRY.kinds("protocol")]
MODULES = dict.fromkeys(
    [
        *SERVER.modules, *PATH.modules, *CLIENT.modules,
        *(module for protocol in PROTOCOLS for module in (*protocol.edge_modules, *protocol.server_modules)),
        *(module for protocol in PROTOCOLS for module in protocol.client_modules),
    ]
)  # fmt: skip
EACH = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.role)


def call(module: Module, inner: Any, host: FakeHost, *fields: tuple[bytes, bytes]) -> Call:
    params = SimpleNamespace(**vars(PARAMS), gate=gate(), metrics=Metrics())
    head = RequestHead(b"POST", b"http", b"web", b"/a", ((b"content-type", b"application/grpc"), *fields))
    return Call(host, module.make(params, inner), head)


def nothing_left(host: FakeHost) -> bool:
    return not host.timers.pending()


@EACH
def test_every_layer_says_why_it_stands_there(module: Module) -> None:
    assert module.why
    assert module.role.replace("_", "").isalpha()


@EACH
def test_an_answer_passes(module: Module) -> None:
    host = FakeHost()
    made = call(module, answering(), host)
    assert made.failure is None
    assert made.exchange.complete
    assert made.reply.head is not None
    assert made.reply.head.status == 200
    assert nothing_left(host)


@EACH
def test_a_failure_passes_as_itself(module: Module) -> None:
    host, failure = FakeHost(), Failure(Kind.CONNECT, "refused", Blame.UPSTREAM, retryable=True)

    async def fails(exchange: Exchange) -> None:
        raise failure

    made = call(module, fails, host)
    assert made.failure is failure
    assert not made.reply.started
    assert nothing_left(host)


@EACH
def test_cancelling_reaches_the_inside_and_comes_out_as_itself(module: Module) -> None:
    host, inside = FakeHost(), list[BaseException]()

    async def sleeps(exchange: Exchange) -> None:
        try:
            await Waiter[None]()
        except BaseException as error:
            inside.append(error)
            raise

    made = call(module, sleeps, host)
    gone = Failure(Kind.RESET, "the client is gone", Blame.CLIENT)
    made.strand.cancel(gone)
    assert inside == [gone]
    assert made.failure is gone
    assert nothing_left(host)


@EACH
def test_exchanges_do_not_share_anything(module: Module) -> None:
    host, waiters = FakeHost(), [Waiter[None]() for _ in range(3)]
    turn = iter(waiters)

    async def inner(exchange: Exchange) -> None:
        await waiting(next(turn))(exchange)

    params = SimpleNamespace(**vars(PARAMS), gate=gate(), metrics=Metrics())
    service = module.make(params, inner)
    calls = [Call(host, service) for _ in waiters]
    for at in (2, 0, 1):
        assert not calls[at].done
        waiters[at].wake(None)
        assert calls[at].done
        assert calls[at].failure is None
    assert nothing_left(host)


@EACH
@pytest.mark.parametrize("name", [b"via", b"l5d-dtab", b"l5d-ctx-dtab", b"grpc-timeout", b"connection", b"te", b"l5d-ctx-x"])
@pytest.mark.parametrize("value", [b"", b"\xff\x80", b"nonsense, ;=", b"9" * 4000, b"-1", b"1e400"])
def test_no_header_makes_it_crash(module: Module, name: bytes, value: bytes) -> None:
    made = call(module, answering(), FakeHost(), (name, value))
    assert made.done
    if made.failure is not None:
        assert made.failure.blame is Blame.CLIENT
