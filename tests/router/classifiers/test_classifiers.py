"""Which exchanges were successes."""

from types import SimpleNamespace

import pytest

from router.classifiers import grpc, h2, http
from router.model.exchange import Exchange, deadline_failure
from router.model.failure import Blame, Failure, Kind
from router.model.headers import RequestHead, ResponseHead
from router.model.verdict import FAILURE, RETRYABLE, SUCCESS

HOST = SimpleNamespace(timers=SimpleNamespace(now=lambda: 0.0))
REPLY = SimpleNamespace(start=lambda head, end: None, started=False)
GONE = Failure(Kind.RESET, "gone", Blame.CLIENT)
RESET = Failure(Kind.RESET, "reset", Blame.UPSTREAM, code=2)


def exchange(
    status=200, *, content_type=None, head_status=None, trailers=(), complete=True, failure=None, method=b"POST", retryable=None
):
    """An exchange that is over. ``head_status``: grpc-status of a Trailers-Only response."""
    fields = ((b"content-type", content_type),) if content_type else ()
    made = Exchange(HOST, RequestHead(method, b"http", b"web", b"/", fields), None, REPLY)
    said = ((b"grpc-status", head_status),) if head_status else ()
    said += ((b"l5d-retryable", retryable),) if retryable else ()
    if status is not None:
        made.respond(ResponseHead(status, said), end=True)
    if complete:
        made.conclude(trailers)
    made.failure = failure
    return made


def judge(plugin, over, **config):
    return plugin.make(plugin.config(**config), None)(over)


def classify(plugin, over, **config):
    return judge(plugin, over, **config) is SUCCESS


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


METHODS = {"Read": [b"GET", b"HEAD", b"OPTIONS", b"TRACE"], "Idempotent": [b"PUT", b"DELETE"], "All": [b"POST", b"PATCH"]}


def retryable_methods(name):
    groups = list(METHODS)
    return [method for group in groups[: groups.index(name) + 1] for method in METHODS[group]]


@pytest.mark.parametrize("module", [http, h2])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("method", [method for methods in METHODS.values() for method in methods] + [b"CONNECT", b"PURGE"])
def test_methods_decide_what_may_be_sent_again(module, name, method):
    plugin = getattr(module, f"RETRYABLE_{name.upper()}_5XX")
    wanted = RETRYABLE if method in retryable_methods(name) else FAILURE
    assert judge(plugin, exchange(503, method=method)) is wanted
    assert judge(plugin, exchange(None, complete=False, failure=RESET, method=method)) is wanted
    assert judge(plugin, exchange(404, method=method)) is SUCCESS
    assert judge(plugin, exchange(200, complete=False, failure=GONE, method=method)) is FAILURE


@pytest.mark.parametrize("module", [http, h2])
def test_a_failure_can_say_that_it_may_be_sent_again(module):
    assert judge(module.NON_RETRYABLE_5XX, exchange(503)) is FAILURE
    assert judge(module.NON_RETRYABLE_5XX, exchange(503, retryable=b"true")) is RETRYABLE
    assert judge(module.NON_RETRYABLE_5XX, exchange(503, retryable=b"false")) is FAILURE
    assert judge(module.NON_RETRYABLE_5XX, exchange(200, retryable=b"true")) is SUCCESS


REFUSED = Failure(Kind.RESET, "refused", Blame.UPSTREAM, code=7)
LOST = Failure(Kind.RESET, "connection to the endpoint lost", Blame.UPSTREAM)
TOO_SLOW = deadline_failure("attempt", 0.1)
TOO_LATE = deadline_failure("client", 0.1)


@pytest.mark.parametrize(
    ("over", "wanted"),
    [
        (exchange(head_status=b"14"), "default compliant always 14"),
        (exchange(trailers=((b"grpc-status", b"14"),)), "default compliant always 14"),
        (exchange(head_status=b"8"), "always"),
        (exchange(head_status=b"0"), ""),
        (exchange(429), "compliant"),
        (exchange(502), "compliant"),
        (exchange(503), "compliant"),
        (exchange(504), "compliant"),
        (exchange(500), ""),
        (exchange(404), ""),
        (exchange(None, complete=False, failure=REFUSED), "compliant always 14"),
        (exchange(None, complete=False, failure=RESET), "always"),
        (exchange(None, complete=False, failure=LOST), "always 14"),
        (exchange(200, complete=False, failure=LOST), "always 14"),
        (exchange(None, complete=False, failure=TOO_SLOW), "always"),
        (exchange(None, complete=False, failure=GONE), ""),
        (exchange(None, complete=False, failure=TOO_LATE), ""),
        (exchange(), ""),
    ],
)
def test_what_the_grpc_kinds_may_send_again(over, wanted):
    kinds = {
        "default": grpc.DEFAULT,
        "compliant": grpc.COMPLIANT,
        "always": grpc.ALWAYS_RETRYABLE,
        "never": grpc.NEVER_RETRYABLE,
    }
    found = [name for name, plugin in kinds.items() if judge(plugin, over) is RETRYABLE]
    if judge(grpc.RETRYABLE_STATUS_CODES, over, retryable_status_codes=[14]) is RETRYABLE:
        found.append("14")
    assert " ".join(found) == wanted


def test_an_attempt_that_took_too_long_has_a_status_too():
    slow = exchange(None, complete=False, failure=TOO_SLOW)
    assert judge(grpc.RETRYABLE_STATUS_CODES, slow, retryable_status_codes=[4]) is RETRYABLE
    assert judge(grpc.RETRYABLE_STATUS_CODES, slow, retryable_status_codes=[4], success_status_codes=[0, 4]) is FAILURE


def test_what_broke_off_is_judged_alike_by_h2():
    lost = exchange(None, complete=False, failure=LOST, content_type=b"application/grpc")
    assert judge(h2.RETRYABLE_ALL_5XX, lost) is RETRYABLE
    assert judge(h2.RETRYABLE_IDEMPOTENT_5XX, lost) is FAILURE


def test_a_client_that_is_still_sending_sees_the_head_at_once():
    classify = grpc.DEFAULT.make(grpc.DEFAULT.config(), None)
    sending, sent = exchange(None, complete=False), exchange(None, complete=False)
    sending.body, sent.body = SimpleNamespace(ended=False), SimpleNamespace(ended=True)
    head = ResponseHead(200)
    assert not classify.holds(sending, head, False)
    assert classify.holds(sent, head, False)
    assert classify.holds(sending, ResponseHead(200, ((b"grpc-status", b"14"),)), True)
    never = grpc.NEVER_RETRYABLE.make(grpc.NEVER_RETRYABLE.config(), None)
    assert not never.holds(sent, head, False)


def test_kinds_and_protocols():
    assert [plugin.kind for plugin in BY_STATUS + ANY + GRPC] == [
        "io.l5d.http.nonRetryable5XX", "io.l5d.h2.nonRetryable5XX", "io.l5d.http.allSuccessful", "io.l5d.h2.allSuccessful",
        "io.l5d.h2.grpc.default", "io.l5d.h2.grpc.neverRetryable",
    ]  # fmt: skip
    for plugin in BY_STATUS + ANY + GRPC:
        assert ("http" in plugin.protocols) is plugin.kind.startswith("io.l5d.http.")
        assert ("h2" in plugin.protocols) is plugin.kind.startswith("io.l5d.h2.")
