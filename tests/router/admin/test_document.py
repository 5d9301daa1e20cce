"""The OpenAPI document against the server that it describes, over loopback: schemathesis asks what it allows, and what it does
not, and looks at whether the answers are as described."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from router.admin import kept
from router.admin.app import serve
from tests.router.admin.test_admin import TEXT, admin

pytestmark = pytest.mark.slow

BOUNDED = settings(
    max_examples=6, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
KNOWN: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/delegator.json"): {"query": {"path": "/svc/a", "dtab": "/svc => /$/nil", "namespace": "web"}},
    ("POST", "/delegator.json"): {"body": {"path": "/svc/a"}, "media_type": "application/json"},
    ("GET", "/namer_state/{prefix}.json"): {"path_parameters": {"prefix": "$/inet"}},
    ("POST", "/logging.json"): {
        "body": {"logger": "waypost.namer", "level": "WARNING"},
        "media_type": "application/x-www-form-urlencoded",
    },
}
ONLY_PARTLY_DESCRIBED = ("/delegator.json",)  # what is a dtab no pattern can say: any text is described, some refused


async def test_the_document_is_true(monkeypatch: Any) -> None:
    monkeypatch.setattr(kept, "APART", 0.0)
    async with admin(TEXT) as rig:
        await rig.call()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, rig.supervisor, sock)
                url = f"http://127.0.0.1:{sock.getsockname()[1]}"
                seen = await trio.to_thread.run_sync(conform, url)
                nursery.cancel_scope.cancel()
        described = {(method.upper(), path) for method, path in operations((await rig.ask("/openapi.json")).json)}
    assert {operation for operation, status in seen if status == 200} == described - {("GET", "/openapi.json")}
    assert not [status for _, status in seen if status >= 500 and status != 503]
    assert seen[("POST", "/logging.json"), 400]
    assert seen[("POST", "/delegator.json"), 400]


def operations(document: Any) -> list[tuple[str, str]]:
    return [(method, path) for path, methods in document["paths"].items() for method in methods]


def conform(url: str) -> Counter[tuple[tuple[str, str], int]]:
    """Ask for everything, and check each answer; returns how often each operation answered with which status."""
    import schemathesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    seen: Counter[tuple[tuple[str, str], int]] = Counter()
    schema = schemathesis.openapi.from_url(url + "/openapi.json")
    modes = schemathesis.GenerationMode
    for result in schema.get_all_operations():
        operation = result.ok()
        named = operation.method.upper(), operation.path
        excluded = [positive_data_acceptance] if operation.path in ONLY_PARTLY_DESCRIBED else []

        def ask(case: Any) -> None:
            seen[named, case.call_and_validate(excluded_checks=excluded).status_code] += 1

        ask(operation.Case(**KNOWN.get(named, {})))
        if operation.query or operation.path_parameters or operation.body:
            BOUNDED(given(case=operation.as_strategy(generation_mode=modes.POSITIVE))(ask))()
            with suppress(Unsatisfiable):  # any text is allowed
                BOUNDED(given(case=operation.as_strategy(generation_mode=modes.NEGATIVE))(ask))()
    return seen
