"""``Connection`` may name any field (RFC 9110 7.6.1); naming one that frames the body must not unframe it."""

from __future__ import annotations

import sys
from pathlib import Path as FilePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(FilePath(__file__).parents[2]))
from support.fakes import Call, FakeHost, answering

from dtab import read_path
from router.filters.headers import HOP_BY_HOP, Plan, response_headers
from router.model.headers import RequestHead

PLAN = Plan(read_path("/svc/web"), read_path("/#/fs/web"), read_path("/"), None)


@pytest.mark.parametrize("option", [b"content-length", b"Content-Length", b"close, content-length"])
def test_a_request_keeps_its_length(option: bytes) -> None:
    fields = ((b"content-length", b"5"), (b"connection", option))
    head = RequestHead(b"POST", b"http", b"web", b"/", fields, length=5, version=(1, 1))
    assert PLAN.apply(head).get(b"content-length") == b"5"


def test_a_response_keeps_its_length() -> None:
    fields = ((b"content-length", b"5"), (b"connection", b"content-length"))
    call = Call(FakeHost(), response_headers(answering(200, fields)))
    assert call.reply.head is not None
    assert call.reply.head.get(b"content-length") == b"5"


NAMES = st.sampled_from(
    [b"x", b"y", b"te", b"via", b"content-length", b"l5d-dtab", b"l5d-dst-service", b"connection", b"keep-alive", b"upgrade"]
)


@given(st.lists(st.tuples(NAMES, st.sampled_from([b"1", b"x", b"y, close", b"", b"l5d-dst-service"])), max_size=8))
def test_nothing_of_one_hop_goes_on_and_what_we_say_stands_alone(fields: list[tuple[bytes, bytes]]) -> None:
    head = RequestHead(b"GET", b"http", b"web", b"/", tuple(fields), version=(1, 1))
    sent = PLAN.apply(head)
    assert not {name for name, _ in sent.fields} & HOP_BY_HOP
    assert sent.get_all(b"l5d-dst-service") == [b"/svc/web"]
    assert len(sent.get_all(b"via")) == 1
    options = {part.strip() for value in head.get_all(b"connection") for part in value.split(b",")}
    for name in {b"x", b"y"} - options:
        assert sent.get_all(name) == head.get_all(name)
    for name in {b"x", b"y"} & options:
        assert name not in sent
