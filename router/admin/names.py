"""What is known of names: those that are bound, and what each namer watches; of all workers together."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dtab import read_path
from router.admin.answers import as_json, error
from router.admin.requests import Endpoint
from router.serve.supervisor import Supervisor

SYSTEM = "/$/inet"


def endpoints(supervisor: Supervisor) -> dict[str, Endpoint]:
    """By path."""

    async def bound_names(request: Request) -> Response:
        return as_json(sorted({name for _, names in await supervisor.ask("bound_names") for name in names}))

    async def namer_state(request: Request) -> Response:
        prefixes = _prefixes(supervisor)
        asked = "/" + request.path_params["prefix"].lstrip("/")
        if asked not in prefixes:
            return error(404, f"no namer has the prefix {asked}; there are {', '.join(prefixes)}")
        answers = await supervisor.ask("namer_state", prefix=asked)
        states = [(slot.number, state) for slot, known in answers for state in known]
        return as_json({"prefix": asked, "kind": prefixes[asked], "names": _together(states)})

    return {"/bound-names.json": bound_names, "/namer_state/{prefix}.json": namer_state}


def _prefixes(supervisor: Supervisor) -> dict[str, str]:
    """The kinds of namers by their prefixes."""
    assert supervisor.generation is not None
    namers = supervisor.generation.config.namers
    return {read_path(chosen.config.prefix).show(): chosen.plugin.kind for chosen in namers} | {SYSTEM: SYSTEM}


def _together(states: list[tuple[int, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """By name what is known of it, once for all workers that know the same; since when the last of them does."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for worker, state in states:
        name, since = state.pop("name"), state.pop("since")
        error_at = state.pop("error_at")
        same = found.setdefault(name, {})
        known = same.setdefault(json.dumps(state), {**state, "since": 0.0, "error_at": 0.0, "workers": []})
        known["since"], known["error_at"] = max(known["since"], since), max(known["error_at"], error_at)
        known["workers"].append(worker)
    return {name: list(found[name].values()) for name in sorted(found)}
