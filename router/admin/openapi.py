"""The admin interface described in OpenAPI 3.1, from one table."""

from __future__ import annotations

from typing import Any

import attrs

POSTED = ("/delegator.json", "/logging.json")
_TEXT, _JSON = "text/plain", "application/json"


@attrs.frozen
class _Endpoint:
    """``params``: of the path or the query, and what they are; ``more``: what else it answers than 200 and what all do."""

    path: str
    summary: str
    content: str = _JSON
    params: dict[str, str] = attrs.field(factory=dict)
    more: tuple[int, ...] = ()
    method: str = "get"


_FLAT = {"tree": "1: as a tree", "q": "a part of the tree: a/b", "pretty": "true: indented"}
_DELEGATION = {"namespace": "a router's label; by default the first", "path": "the name", "dtab": "preferred to the router's"}
ENDPOINTS = (
    _Endpoint("/", "An overview for people.", "text/html"),
    _Endpoint("/admin/ping", "Answers pong while the process lives.", _TEXT),
    _Endpoint("/ready", "Whether workers serve.", _TEXT, more=(503,)),
    _Endpoint("/admin/ready", "The same.", _TEXT, more=(503,)),
    _Endpoint("/config.json", "The configuration in use."),
    _Endpoint("/delegator.json", "How a name is delegated.", params=_DELEGATION, more=(400, 404)),
    _Endpoint("/delegator.json", "How a name is delegated.", more=(400, 404, 413, 415), method="post"),
    _Endpoint("/client_state.json", "What the balancers know of endpoints, by bound name."),
    _Endpoint("/bound-names.json", "The bound names that are in use, or that namers know."),
    _Endpoint(
        "/namer_state/{prefix}.json", "What a namer watches.", params={"prefix": "its prefix, such as io.l5d.fs"}, more=(404,)
    ),
    _Endpoint("/logging.json", "Loggers and their levels."),
    _Endpoint("/logging.json", "Set the level of a logger.", more=(400,), method="post"),
    _Endpoint("/admin/metrics.json", "Metrics by Linkerd's names.", params=_FLAT, more=(404,)),
    _Endpoint("/metrics.json", "The same.", params=_FLAT, more=(404,)),
    _Endpoint("/admin/metrics/prometheus", "Metrics for Prometheus by Linkerd's names.", _TEXT),
    _Endpoint("/admin/metrics/influxdb", "Metrics for InfluxDB.", _TEXT),
    _Endpoint("/metrics", "Metrics for Prometheus or OpenMetrics by conventional names.", _TEXT),
    _Endpoint("/admin/workers.json", "The worker processes."),
    _Endpoint("/admin/events.json", "Ejections, revivals, reloads and the like, the oldest first."),
    _Endpoint("/requests", "The last requests that were recorded, for people.", "text/html", more=(404,)),
    _Endpoint("/requests.json", "The same, the newest first.", more=(404,)),
    _Endpoint("/admin/shutdown", "Drain and stop.", _TEXT, method="post"),
    _Endpoint("/admin/reload", "Read the configuration file again.", more=(409,), method="post"),
    _Endpoint("/openapi.json", "This document."),
)
_BODIES: dict[str, Any] = {
    "/delegator.json": {
        "content": {_JSON: {"schema": {"type": "object", "additionalProperties": {"type": "string"}}}},
        "required": True,
    },
    "/logging.json": {
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {"type": "object", "properties": {"logger": {"type": "string"}, "level": {"type": "string"}}}
            }
        }
    },
}


def document(version: str) -> dict[str, Any]:
    """The document."""
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "waypost admin", "version": version},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }


_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


def _operation(endpoint: _Endpoint) -> dict[str, Any]:
    failed = {"description": "It failed.", "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    plain = {"description": "It is not.", "content": {_TEXT: {"schema": {"type": "string"}}}}
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": {endpoint.content: {}}}}
    responses |= {str(status): plain if endpoint.content == _TEXT else failed for status in endpoint.more}
    described: dict[str, Any] = {"summary": endpoint.summary, "responses": responses}
    if endpoint.params:
        described["parameters"] = [
            _parameter(name, text, in_path=f"{{{name}}}" in endpoint.path) for name, text in endpoint.params.items()
        ]
    if endpoint.method == "post" and endpoint.path in _BODIES:
        described["requestBody"] = _BODIES[endpoint.path]
    return described


def _parameter(name: str, text: str, *, in_path: bool) -> dict[str, Any]:
    where = {"in": "path", "required": True} if in_path else {"in": "query"}
    return {"name": name, **where, "description": text, "schema": {"type": "string"}}
