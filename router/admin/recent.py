"""``/requests``: what ``io.l5d.recentRequests`` has kept in all workers, the newest first, as a table and as JSON."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from router.admin.answers import as_json, error
from router.admin.page import html
from router.admin.requests import Endpoint
from router.serve.supervisor import Supervisor

HEADINGS = ("time", "router", "from", "request", "service", "rules", "client", "endpoint", "attempts", "answer", "ms")


def endpoints(supervisor: Supervisor) -> dict[str, Endpoint]:
    """By path."""

    async def as_table(request: Request) -> Response:
        records = await _records(supervisor)
        return _missing() if records is None else html("requests", _table(records))

    async def records_json(request: Request) -> Response:
        records = await _records(supervisor)
        return _missing() if records is None else as_json(records)

    return {"/requests": as_table, "/requests.json": records_json}


def _missing() -> Response:
    return error(404, "nothing is recorded; add to the file: telemetry: [{kind: io.l5d.recentRequests, sampleRate: 0.1}]")


async def _records(supervisor: Supervisor) -> list[dict[str, Any]] | None:
    """As many as one worker keeps, the newest first; None where none is to keep any."""
    kept = [kept for _, answer in await supervisor.ask("requests") for kept in answer]
    if not kept:
        return None
    newest = sorted([(at, text) for _, records in kept for at, text in records], reverse=True)
    return [json.loads(text) for _, text in newest[: max(capacity for capacity, _ in kept)]]


def _table(records: list[dict[str, Any]]) -> str:
    head = "".join([f"<th>{heading}" for heading in HEADINGS])
    rows = ["".join([f"<td>{escape(cell)}" for cell in _cells(record)]) for record in records]
    return f"<h1>The last requests</h1><table><tr>{head}{''.join([f'<tr>{row}' for row in rows])}</table>"


def _cells(record: dict[str, Any]) -> list[str]:
    """What is shown of a record, by :data:`HEADINGS`."""
    rules = [step["dentry"] if step["line"] is None else f"{step['dentry']} (line {step['line']})" for step in record["route"]]
    answer = [str(record[key]) for key in ("status", "grpc_status", "failure") if record[key] is not None]
    attempts = [f"{attempt['endpoint']} {attempt['outcome']}" for attempt in record["attempts"]]
    return [
        record["time"], record["router"], record["peer"], f"{record['method']} {record['authority'] or ''}{record['path']}",
        record["name"] or "", "; ".join(rules), record["client"] or "", record["endpoint"] or "", "; ".join(attempts),
        " ".join(answer), f"{record['total_ms']:.1f}",
    ]  # fmt: skip
