"""Endpoints of what the workers know: routes, clients, events; asked of the processes that route."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from router.admin.answers import as_json, error
from router.admin.requests import Endpoint, body_of
from router.config.plain import plain
from router.serve.channel import ChannelClosedError, RefusedError
from router.serve.supervisor import Supervisor

MAX_BODY = 1 << 20


def endpoints(supervisor: Supervisor) -> dict[str, Endpoint]:
    """By path."""

    async def config(request: Request) -> Response:
        assert supervisor.generation is not None
        return as_json(plain(supervisor.generation.loaded.source))

    async def client_state(request: Request) -> Response:
        return as_json(_together(await supervisor.ask("clients")))

    async def events(request: Request) -> Response:
        found = [{"at": event.at, "worker": None, "event": event.name, **event.fields} for event in supervisor.events.recent]
        for slot, answer in await supervisor.ask("events"):
            found += [{"at": at, "worker": slot.number, "event": name, **fields} for at, name, fields in answer]
        return as_json(sorted(found, key=lambda event: event["at"]))

    async def workers(request: Request) -> Response:
        generation, now = supervisor.generation, trio.current_time()
        shown = [
            {"worker": slot.number, "pid": slot.pid, "starts": slot.starts, "uptime_s": round(now - slot.since, 3),
             "draining": generation is None or slot not in generation.slots}
            for slot in supervisor.slots
        ]  # fmt: skip
        return as_json({"generation": 0 if generation is None else generation.number, "workers": shown})

    async def delegator(request: Request) -> Response:
        asked = await _delegation(request)
        return asked if isinstance(asked, Response) else await _delegate(supervisor, asked)

    return {
        "/config.json": config,
        "/client_state.json": client_state,
        "/admin/events.json": events,
        "/admin/workers.json": workers,
        "/delegator.json": delegator,
    }


def _together(answers: list[tuple[Any, Any]]) -> dict[str, Any]:
    """By client, as Linkerd shows it: each endpoint once, with the sums of what the workers have."""
    found: dict[str, dict[str, Any]] = {}
    clients = [pair for _, routers in answers for of_router in routers.values() for pair in of_router.items()]
    for name, endpoints_ in clients:
        addresses = found.setdefault(name, {})
        for endpoint in endpoints_:
            key = f"{endpoint['ip']}:{endpoint['port']}"
            known = addresses.setdefault(key, {**endpoint, "load": 0, "connections": 0})
            known["load"] += endpoint["load"]
            known["connections"] += endpoint["connections"]
            if endpoint["state"] != "alive":
                known["state"] = endpoint["state"]
    return {name: {"state": "bound", "addresses": list(addresses.values())} for name, addresses in sorted(found.items())}


async def _delegation(request: Request) -> Mapping[str, str] | Response:
    """What is asked for: ``namespace`` (a router's label), ``path``, ``dtab``."""
    if request.method == "GET":
        return request.query_params
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return error(415, "a POST has a JSON object: content-type application/json")
    body = await body_of(request, MAX_BODY)
    if body is None:
        return error(413, f"more than {MAX_BODY} bytes")
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as problem:
        return error(400, f"not JSON: {problem}")
    if not isinstance(asked, dict) or not all(isinstance(value, str) for value in asked.values()):
        return error(400, "expected a JSON object with the texts 'namespace', 'path' and 'dtab'")
    return asked


async def _delegate(supervisor: Supervisor, asked: Mapping[str, str]) -> Response:
    assert supervisor.generation is not None
    labels = [router.label for router in supervisor.generation.config.routers]
    label = asked.get("namespace") or labels[0]
    if label not in labels:
        return error(404, f"no router has the label {label!r}; there are {', '.join(labels)}")
    try:
        tree = await supervisor.ask_any("delegate", router=label, path=asked.get("path", ""), dtab=asked.get("dtab", ""))
    except RefusedError as problem:
        return error(400, str(problem))
    except (ChannelClosedError, trio.TooSlowError):
        return error(503, "no worker has answered in time")
    return as_json(tree)
