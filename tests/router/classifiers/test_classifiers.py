"""Which exchanges were successes."""

from types import SimpleNamespace

import pytest

from router.classifiers import grpc, h2, http
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead, ResponseHead

HOST = SimpleNamespace(timers=SimpleNamespace(now=lambda: 0.0))
REPLY = SimpleNamespace(start=lambda head, end: None, started=False)
RESET = Failure(Kind.RESET, "reset", Blame.UPSTREAM, code=2)


def exchange(status=200, *, content_type=None, head_status=None, trailers=(), complete=True, failure=None):
    """An exchange that is over. ``head_status``: grpc-status of a Trailers-Only response."""
    fields = ((b"content-type", content_type),) if content_type else ()
    made = Exchange(HOST, RequestHead(b"POST", b"http", b"web", b"/", fields), None, REPLY)
    if status is not None:
        made.respond(ResponseHead(status, ((b"grpc-status", head_status),) if head_status else ()), end=True)
    if complete:
        made.conclude(trailers)
    made.failure = failure
    return made


def classify(plugin, over, **config):
    return plugin.make(plugin.config(**config), None)(over)


BY_STATUS = [http.NON_RETRYABLE_5XX, h2.NON_RETRYABLE_5XX]
ANY = [http.ALL_SUCCESSFUL, h2.ALL_SUCCESSFUL]
GRPC = [grpc.DEFAULT, grpc.NEVER_RETRYABLE]


@pytest.mark.parametrize("plugin", BY_STATUS)
@pytest.mark.parametrize(("status", "success"), [(200, True), (404, True), (499, True), (500, False), (599, False)])
def test_5xx_is_a_failure(plugin, status, success):
    assert classify(plugin, exchange(status)) is success


@pytest.mark.parametrize("plugin", ANY)
@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_any_response_is_a_success(plugin, status):
    assert classify(plugin, exchange(status)) is True


@pytest.mark.parametrize("plugin", BY_STATUS + ANY + GRPC)
def test_what_did_not_end_is_a_failure(plugin):
    ok = ((b"grpc-status", b"0"),)
    assert classify(plugin, exchange(200, head_status=b"0", complete=False, failure=RESET)) is False
    assert classify(plugin, exchange(None, complete=False, failure=RESET)) is False
    assert classify(plugin, exchange(None, complete=False)) is False
    assert classify(plugin, exchange(200, trailers=ok, complete=True)) is True


@pytest.mark.parametrize("plugin", BY_STATUS + ANY)
def test_what_failed_after_its_response_had_ended_is_a_success(plugin):
    assert classify(plugin, exchange(200, failure=RESET)) is True


@pytest.mark.parametrize("plugin", GRPC)
@pytest.mark.parametrize(
    ("over", "success"),
    [
        (exchange(trailers=((b"grpc-status", b"0"),)), True),
        (exchange(trailers=((b"x", b"0"), (b"grpc-status", b"0"), (b"grpc-message", b""))), True),
        (exchange(head_status=b"0"), True),
        (exchange(head_status=b"5"), False),
        (exchange(trailers=((b"grpc-status", b"14"),)), False),
        (exchange(trailers=((b"grpc-status", b"5"),), head_status=b"0"), False),
        (exchange(trailers=((b"grpc-status", b"x"),)), False),
        (exchange(), False),
        (exchange(404, head_status=b"0"), False),
        (exchange(503, trailers=((b"grpc-status", b"0"),)), False),
    ],
)
def test_grpc_status_decides(plugin, over, success):
    assert classify(plugin, over) is success


@pytest.mark.parametrize("plugin", GRPC)
def test_grpc_success_codes_can_be_chosen(plugin):
    not_found = exchange(trailers=((b"grpc-status", b"5"),))
    assert classify(plugin, not_found) is False
    assert classify(plugin, not_found, success_status_codes=(0, 5)) is True
    assert classify(plugin, exchange(head_status=b"0"), success_status_codes=[5]) is False
    with pytest.raises(ValueError, match="success_status_codes must be gRPC status codes"):
        plugin.config(success_status_codes=(0, -1))


@pytest.mark.parametrize("content_type", [b"application/grpc", b"application/grpc+proto"])
def test_the_default_of_h2_judges_grpc_by_its_status(content_type):
    unavailable = exchange(200, content_type=content_type, trailers=((b"grpc-status", b"14"),))
    assert classify(h2.NON_RETRYABLE_5XX, unavailable) is False
    assert classify(http.NON_RETRYABLE_5XX, unavailable) is True
    assert classify(h2.ALL_SUCCESSFUL, unavailable) is True
    assert classify(h2.NON_RETRYABLE_5XX, exchange(200, content_type=content_type, head_status=b"0")) is True


def test_the_default_of_h2_judges_grpc_web_by_status():
    assert classify(h2.NON_RETRYABLE_5XX, exchange(200, content_type=b"application/grpc-web")) is True


def test_kinds_and_protocols():
    assert [plugin.kind for plugin in BY_STATUS + ANY + GRPC] == [
        "io.l5d.http.nonRetryable5XX", "io.l5d.h2.nonRetryable5XX", "io.l5d.http.allSuccessful", "io.l5d.h2.allSuccessful",
        "io.l5d.h2.grpc.default", "io.l5d.h2.grpc.neverRetryable",
    ]  # fmt: skip
    for plugin in BY_STATUS + ANY + GRPC:
        assert ("http" in plugin.protocols) is plugin.kind.startswith("io.l5d.http.")
        assert ("h2" in plugin.protocols) is plugin.kind.startswith("io.l5d.h2.")
