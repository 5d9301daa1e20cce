"""The admin interface described in OpenAPI 3.1, from one table."""

from __future__ import annotations

from typing import Any

import attrs

from router.admin.control import LOGGERS
from router.logs.setup import LEVELS

POSTED = ("/delegator.json", "/logging.json")
_TEXT, _JSON, _HTML, _FORM = "text/plain", "application/json", "text/html", "application/x-www-form-urlencoded"

Schema = dict[str, Any]
_STRING: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_OBJECT: Schema = {"type": "object"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _record(*required: str, **properties: Schema) -> Schema:
    """An object with these members; all of them, unless only some are ``required``."""
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _by_name(of: Schema) -> Schema:
    return {"type": "object", "additionalProperties": of}


@attrs.frozen
class _Param:
    """A parameter of the query, or of the path where that names it."""

    text: str
    schema: Schema = _STRING
    required: bool = False


@attrs.frozen
class _Endpoint:
    """``answer``: the schema of its 200. ``more``: what else it can answer, besides what all do. ``body``: by content type."""

    path: str
    summary: str
    content: str = _JSON
    answer: Schema = _STRING
    params: dict[str, _Param] = attrs.field(factory=dict)
    body: tuple[str, Schema] | None = None
    more: tuple[int, ...] = ()
    method: str = "get"


# -- values -----------------------------------------------------------------------------------------------------

_NAME: Schema = {"type": "string", "pattern": r"^(/|(/([A-Za-z0-9:.#$%_-]|\\x[0-9a-fA-F]{2})+)+)$"}
_ADDR = _record("type", type={"enum": ["bound", "neg", "failed", "pending"]}, addrs=_list(_OBJECT), cause=_STRING)
_KINDS = ["empty", "fail", "neg", "exception", "delegate", "leaf", "alt", "union", "transformation"]
_SCHEMAS: dict[str, Schema] = {
    "Error": _record(error=_STRING),
    "Delegation": _record(
        "type",
        "path",
        type={"enum": _KINDS},
        path=_STRING,
        dentry=_record(prefix=_STRING, dst=_STRING),
        delegate=_ref("Delegation"),
        alt=_list(_ref("Delegation")),
        union=_list(_record(weight=_NUMBER, tree=_ref("Delegation"))),
        bound=_record(id=_STRING, path=_STRING, addr=_ref("Addr")),
        message=_STRING,
    ),
    "Addr": _ADDR,
    "Event": _record(at=_NUMBER, worker={"type": ["integer", "null"]}, event=_STRING),
    "Workers": _record(
        generation={"type": "integer"},
        workers=_list(
            _record(
                worker={"type": "integer"},
                pid={"type": "integer"},
                starts={"type": "integer"},
                uptime_s=_NUMBER,
                draining={"type": "boolean"},
            )
        ),
    ),
    "Endpoints": _record(
        state=_STRING,
        addresses=_list(_record("ip", "port", "load", "state", ip=_STRING, port={"type": "integer"}, load={"type": "integer"})),
    ),
    "Watched": _record(
        source=_STRING,
        state=_STRING,
        since=_NUMBER,
        error=_STRING,
        error_at=_NUMBER,
        addr={"anyOf": [_ref("Addr"), {"type": "null"}]},
        workers=_list({"type": "integer"}),
    ),
    "Request": _record("time", "router", "name", "route", "client", "attempts", "status", "total_ms", total_ms=_NUMBER),
    "Loggers": _list(_record(logger={"enum": list(LOGGERS)}, level={"enum": list(LEVELS)})),
}

# -- endpoints --------------------------------------------------------------------------------------------------

_METRICS = {
    "tree": _Param("1: as a tree"),
    "q": _Param("a part of the tree: a/b"),
    "pretty": _Param("true: indented"),
}
_ASKED = {
    "path": _Param("the name", _NAME, required=True),
    "dtab": _Param("preferred to the router's"),
    "namespace": _Param("a router's label; by default the first"),
}
_ASKED_IN_BODY = _record("path", **{name: param.schema for name, param in _ASKED.items()})
_SET_LEVEL = _record(logger={"enum": list(LOGGERS)}, level={"enum": list(LEVELS)})
_FLAT: Schema = {"type": ["object", "number"]}
_NAMER = _record(prefix=_STRING, kind=_STRING, names=_by_name(_list(_ref("Watched"))))

ENDPOINTS = (
    _Endpoint("/", "An overview for people.", _HTML),
    _Endpoint("/admin/ping", "Answers pong while the process lives.", _TEXT),
    _Endpoint("/ready", "Whether workers serve.", _TEXT),
    _Endpoint("/admin/ready", "The same.", _TEXT),
    _Endpoint("/config.json", "The configuration in use.", answer=_OBJECT),
    _Endpoint("/delegator.json", "How a name is delegated.", answer=_ref("Delegation"), params=_ASKED, more=(400,)),
    _Endpoint(
        "/delegator.json", "How a name is delegated.", answer=_ref("Delegation"), body=(_JSON, _ASKED_IN_BODY),
        more=(400, 413, 415), method="post",
    ),
    _Endpoint("/client_state.json", "What the balancers know, by bound name.", answer=_by_name(_ref("Endpoints"))),
    _Endpoint("/bound-names.json", "The bound names that are in use, or that namers know.", answer=_list(_STRING)),
    _Endpoint(
        "/namer_state/{prefix}.json", "What a namer watches.", answer=_NAMER,
        params={"prefix": _Param("its prefix, such as io.l5d.fs", required=True)},
    ),
    _Endpoint("/logging.json", "Loggers and their levels.", answer=_ref("Loggers")),
    _Endpoint(
        "/logging.json", "Set the level of a logger.", answer=_ref("Loggers"), body=(_FORM, _SET_LEVEL), more=(400,),
        method="post",
    ),
    _Endpoint("/admin/metrics.json", "Metrics by Linkerd's names.", answer=_FLAT, params=_METRICS),
    _Endpoint("/metrics.json", "The same.", answer=_FLAT, params=_METRICS),
    _Endpoint("/admin/metrics/prometheus", "Metrics for Prometheus by Linkerd's names.", _TEXT),
    _Endpoint("/admin/metrics/influxdb", "Metrics for InfluxDB.", _TEXT),
    _Endpoint("/metrics", "Metrics for Prometheus or OpenMetrics by conventional names.", _TEXT),
    _Endpoint("/admin/workers.json", "The worker processes.", answer=_ref("Workers")),
    _Endpoint("/admin/events.json", "Ejections, reloads and the like, the oldest first.", answer=_list(_ref("Event"))),
    _Endpoint("/requests", "The last requests that were recorded, for people.", _HTML),
    _Endpoint("/requests.json", "The same, the newest first.", answer=_list(_ref("Request"))),
    _Endpoint("/admin/shutdown", "Drain and stop.", _TEXT, method="post"),
    _Endpoint(
        "/admin/reload", "Read the configuration file again.", answer=_record(reloaded=_STRING), more=(409,), method="post",
    ),
    _Endpoint("/openapi.json", "This document.", answer=_OBJECT),
)  # fmt: skip


def document(version: str) -> dict[str, Any]:
    """The document."""
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "waypost admin", "version": version},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _operation(endpoint: _Endpoint) -> dict[str, Any]:
    """What is switched off is not found; what comes at a bad moment, by a strange name, or across origins, is refused."""
    statuses = {404, 421, 503, *endpoint.more, *([403] if endpoint.method == "post" else [])}
    done = {"description": "Done.", "content": {endpoint.content: {"schema": endpoint.answer}}}
    described: dict[str, Any] = {
        "summary": endpoint.summary,
        "responses": {"200": done} | {str(status): _failed(endpoint, status) for status in sorted(statuses)},
    }
    if endpoint.params:
        described["parameters"] = [_parameter(endpoint, name, param) for name, param in endpoint.params.items()]
    if endpoint.body is not None:
        content, schema = endpoint.body
        described["requestBody"] = {"content": {content: {"schema": schema}}, "required": True}
    return described


def _failed(endpoint: _Endpoint, status: int) -> dict[str, Any]:
    content: dict[str, Any] = {_JSON: {"schema": _ref("Error")}}
    if status == 503 and endpoint.path.endswith("/ready"):
        content[_TEXT] = {"schema": _STRING}
    return {"description": "It failed.", "content": content}


def _parameter(endpoint: _Endpoint, name: str, param: _Param) -> dict[str, Any]:
    where = "path" if f"{{{name}}}" in endpoint.path else "query"
    return {"name": name, "in": where, "required": param.required, "description": param.text, "schema": param.schema}
