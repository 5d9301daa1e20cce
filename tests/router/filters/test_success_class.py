"""``l5d-success-class``: what the classifier says, on every response, in the place that its protocol has for it."""

from __future__ import annotations

from typing import Any

import pytest

from router.classifiers import grpc, h2, http
from router.filters.stats import classified
from router.filters.success_class import success_class
from router.model.exchange import Exchange
from router.model.headers import Fields, RequestHead, ResponseHead
from tests.support.fakes import Call, FakeHost

NAME = b"l5d-success-class"
GRPC: Fields = ((b"content-type", b"application/grpc"),)


def classifier(plugin: Any) -> Any:
    return plugin.make(plugin.config(), None)


def through(plugin: Any, head: ResponseHead, trailers: Fields | None = None, fields: Fields = ()) -> tuple[Any, Fields]:
    """The head and the trailers that the client gets. ``trailers`` None: the head is all there is."""
    sent: list[Fields] = []

    async def endpoint(exchange: Exchange) -> None:
        if trailers is None:
            exchange.conclude(())
            exchange.respond(head, True)
        else:
            exchange.respond(head, False)
            sent.append(exchange.conclude(trailers))

    request = RequestHead(b"POST", b"http", b"web", b"/", fields)
    call = Call(FakeHost(), classified(classifier(plugin), success_class(endpoint)), request)
    return call.reply.head, sent[0] if sent else ()


@pytest.mark.parametrize(
    ("plugin", "status", "said"),
    [
        (http.NON_RETRYABLE_5XX, 200, b"1.0"),
        (http.NON_RETRYABLE_5XX, 404, b"1.0"),
        (http.RETRYABLE_ALL_5XX, 500, b"0.0"),
        (http.ALL_SUCCESSFUL, 500, b"1.0"),
        (h2.NON_RETRYABLE_5XX, 503, b"0.0"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_http_says_it_in_the_head(plugin: Any, status: int, said: bytes, streamed: bool) -> None:
    head, trailers = through(plugin, ResponseHead(status), ((b"checksum", b"1"),) if streamed else None)
    assert head.get_all(NAME) == [said]
    assert all(name != NAME for name, _ in trailers)


@pytest.mark.parametrize(("status", "said"), [(b"0", b"1.0"), (b"14", b"0.0")])
def test_grpc_says_it_beside_its_status(status: bytes, said: bytes) -> None:
    field = (b"grpc-status", status)
    head, trailers = through(grpc.DEFAULT, ResponseHead(200), (field,), GRPC)
    assert (head.get(NAME), trailers) == (None, (field, (NAME, said)))
    head, _ = through(grpc.DEFAULT, ResponseHead(200, (field,)), None, GRPC)
    assert head.fields == (field, (NAME, said))


def test_a_grpc_stream_without_trailers_gets_none() -> None:
    head, trailers = through(grpc.DEFAULT, ResponseHead(200), (), GRPC)
    assert (head.get(NAME), trailers) == (None, ())
    assert through(grpc.DEFAULT, ResponseHead(502), (), GRPC)[0].get(NAME) == b"0.0"


def test_what_the_endpoint_says_of_itself_is_replaced() -> None:
    head, _ = through(http.NON_RETRYABLE_5XX, ResponseHead(500, ((NAME, b"1.0"), (b"a", b"b"), (NAME, b"x"))))
    assert head.fields == ((b"a", b"b"), (NAME, b"0.0"))
    _, trailers = through(grpc.DEFAULT, ResponseHead(200), ((NAME, b"0.0"), (b"grpc-status", b"0")), GRPC)
    assert trailers == ((b"grpc-status", b"0"), (NAME, b"1.0"))


def test_heads_that_repeat_are_marked_once() -> None:
    head = ResponseHead(200)
    head.shared = True
    first, _ = through(http.NON_RETRYABLE_5XX, head)
    assert first.shared
    assert through(http.NON_RETRYABLE_5XX, head)[0] is first
