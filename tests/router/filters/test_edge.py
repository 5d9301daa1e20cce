"""Hygiene at the edge: context that is cleared, ``Forwarded``, the time stamp."""

from __future__ import annotations

import re
from typing import Any

import pytest

from router.filters.clear_context import clear_context
from router.filters.forwarded import ForwardedConfig, Label, forwarded
from router.filters.timestamp import timestamp
from router.model.answers import render_h2, render_http
from router.model.body import FixedSource
from router.model.ends import Ends, address, show
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields, RequestHead, ResponseHead
from tests.support.fakes import NOON, Call, FakeHost, answering

L5D: Fields = (
    (b"l5d-dtab", b"/a=>/b"),
    (b"l5d-ctx-deadline", b"1 2"),
    (b"l5d-ctx-priority", b"critical-plus"),
    (b"l5d-x", b""),
)
OTHERS: Fields = ((b"x-forwarded-for", b"203.0.113.9"), (b"forwarded", b"for=_x"), (b"xl5d-", b"y"))


def head(*fields: tuple[bytes, bytes], version: tuple[int, int] = (1, 1), authority: bytes = b"web") -> RequestHead:
    return RequestHead(b"GET", b"http", authority, b"/", fields, version=version)


def seen(service: Any, request: RequestHead, ends: Ends | None = None, host: Any = None) -> RequestHead:
    """The head that comes out of a filter."""
    heads: list[RequestHead] = []

    async def inner(exchange: Exchange) -> None:
        heads.append(exchange.request)
        await answering()(exchange)

    async def outer(exchange: Exchange) -> None:
        if ends is not None:
            exchange.reply.ends = ends  # type: ignore[misc]
        await service(inner)(exchange)

    assert Call(host or FakeHost(), outer, request).failure is None
    return heads[0]


# -- clearContext --------------------------------------------------------------------------------------------


def clearing(inner: Any) -> Any:
    return clear_context(True, inner)


def test_what_strangers_say_in_our_fields_is_not_read_and_the_rest_is_left_alone() -> None:
    assert seen(clearing, head(*L5D, *OTHERS)).fields == OTHERS
    plain = head(*OTHERS)
    assert seen(clearing, plain) is plain


def test_a_shared_head_is_cleared_once() -> None:
    shared = head(*L5D, *OTHERS)
    shared.shared = True
    first = seen(clearing, shared)
    assert first.shared
    assert seen(clearing, shared) is first


@pytest.mark.parametrize("trailers", [(), ((b"l5d-success-class", b"1.0"), (b"grpc-status", b"0"))])
def test_answers_pass_without_our_fields_and_trailers(trailers: Fields) -> None:
    source = FixedSource(b"body", trailers)

    async def inner(exchange: Exchange) -> None:
        exchange.reply.inform(ResponseHead(103, ((b"l5d-x", b"1"), (b"link", b"x"))))
        source.join(exchange.respond(ResponseHead(200, ((b"l5d-success-class", b"1.0"), (b"x-a", b"b"))), False))
        exchange.conclude(trailers)

    call = Call(FakeHost(), clearing(inner))
    reply = call.reply
    assert reply.head is not None
    assert reply.head.fields == ((b"x-a", b"b"),)
    assert (reply.body, reply.trailers) == (b"body", trailers[1:])
    assert reply.source is source


def test_errors_of_another_router_lose_their_body() -> None:
    source = FixedSource(b"Unable to route request! /svc/secret")
    fields = ((b"content-type", b"text/plain"), (b"content-length", b"36"), (b"l5d-err", b"x"), (b"retry-after", b"1"))

    async def inner(exchange: Exchange) -> None:
        source.join(exchange.respond(ResponseHead(502, fields, length=36), False))
        exchange.conclude(())

    reply = Call(FakeHost(), clearing(inner)).reply
    assert reply.head is not None
    assert (reply.head.status, reply.head.fields, reply.head.length) == (502, ((b"retry-after", b"1"),), None)
    assert (reply.body, reply.trailers, source.credited) == (b"", (), 36)


def failing(failure: Failure, render: Any, *fields: tuple[bytes, bytes]) -> Any:
    async def fails(exchange: Exchange) -> None:
        raise failure

    call = Call(FakeHost(), clearing(fails), head(*fields))
    assert call.failure is failure  # whoever counts or logs knows why
    render(call.exchange, failure)
    return call.reply


@pytest.mark.parametrize("render", [render_http, render_h2])
def test_errors_of_ours_say_nothing(render: Any) -> None:
    reply = failing(Failure(Kind.UNBOUND, "Unable to route request! /svc/secret", retryable=True), render)
    assert (reply.head.status, reply.head.fields, reply.body, reply.trailers) == (502, (), b"", ())


def test_grpc_errors_of_ours_are_a_status() -> None:
    reply = failing(Failure(Kind.UNBOUND, "/svc/secret"), render_h2, (b"content-type", b"application/grpc"))
    assert reply.head.fields == ((b"content-type", b"application/grpc"), (b"grpc-status", b"14"))


def test_a_client_that_is_gone_hears_nothing_and_a_broken_answer_stays_broken() -> None:
    failure = Failure(Kind.RESET, "gone", Blame.CLIENT)
    assert failing(failure, render_h2).aborted is failure


# -- addForwardedHeader --------------------------------------------------------------------------------------

V4 = Ends(("192.0.2.1", 40000), ("192.0.2.2", 443))
V6 = Ends(("2001:db8::1", 40000), ("::1", 443))


def adding(by: str = "requestRandom", sender: str = "requestRandom", text: str = "") -> Any:
    return lambda inner: forwarded(ForwardedConfig(Label(by, text), Label(sender, text)), inner)


def value(request: RequestHead) -> bytes:
    return request.get_all(b"forwarded")[-1]


@pytest.mark.parametrize(
    ("by", "sender", "ends", "told"),
    [
        ("ip", "ip", V4, b"by=192.0.2.2;for=192.0.2.1"),
        ("ip:port", "ip", V4, b'by="192.0.2.2:443";for=192.0.2.1'),
        ("ip", "ip:port", V6, b'by="[::1]";for="[2001:db8::1]:40000"'),
        ("ip", "ip:port", Ends(), b"by=unknown;for=unknown"),
        ("router", "static", V4, b"by=_a_b.c-d;for=_a_b.c-d"),
    ],
)
def test_labels(by: str, sender: str, ends: Ends, told: bytes) -> None:
    assert value(seen(adding(by, sender, "a/b.c-d"), head(), Ends(ends.client, ends.server))) == told + b";host=web;proto=http"


def test_random_labels_are_of_a_request_or_of_a_connection() -> None:
    per_request, per_connection = adding(), adding("connectionRandom", "connectionRandom")
    ends = Ends()
    values = {value(seen(per_request, head(), ends)) for _ in range(10)}
    assert len(values) == 10
    assert all(re.fullmatch(rb"by=_[0-9a-f]{12};for=_[0-9a-f]{12};host=web;proto=http", one) for one in values)
    assert len({value(seen(per_connection, head(), ends)) for _ in range(10)}) == 1
    assert len({value(seen(per_connection, head(), Ends())) for _ in range(10)}) == 10


def test_hosts_are_quoted_and_http2_has_an_authority() -> None:
    assert value(seen(adding("ip", "ip"), head(authority=b"web:80"), Ends())).endswith(b';host="web:80";proto=http')
    assert value(seen(adding("ip", "ip"), head(version=(2, 0)), Ends())).endswith(b";authority=web;proto=http")
    assert value(seen(adding("ip", "ip"), head(authority=b""), Ends())) == b"by=unknown;for=unknown;proto=http"


def test_the_field_comes_last_and_a_shared_head_gets_it_once() -> None:
    shared, ends = head(*OTHERS), Ends(V4.client, V4.server)
    shared.shared = True
    first = seen(adding("ip", "ip"), shared, ends)
    assert first.fields[:-1] == OTHERS
    assert seen(adding("ip", "ip"), shared, ends) is first
    assert not seen(adding(), shared, ends).shared


def test_addresses() -> None:
    assert address(("fe80::1%eth0", 80, 0, 2)) == ("fe80::1", 80)
    assert address(("::ffff:192.0.2.1", 80, 0, 0)) == ("192.0.2.1", 80)
    assert address("") is None
    assert [show(("::1", 80)), show(("192.0.2.1", 80)), show(None)] == ["[::1]:80", "192.0.2.1:80", "?"]


# -- timestampHeader -----------------------------------------------------------------------------------------


def test_the_stamp_is_of_the_arrival_and_nobody_else_s() -> None:
    host = FakeHost()
    request = head((b"x-request-start", b"1"), (b"x-a", b"b"))
    request.shared = True

    def late(inner: Any) -> Any:
        async def service(exchange: Exchange) -> None:
            host.time += 0.25
            await timestamp("X-Request-Start", inner)(exchange)

        return service

    sent = seen(late, request, host=host)
    assert sent.fields == ((b"x-a", b"b"), (b"x-request-start", b"%d" % (NOON // 1_000_000)))
    assert not sent.shared
    assert seen(lambda inner: timestamp(None, inner), request) is request
