"""Endpoints of metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from router.admin.answers import as_json, error
from router.admin.requests import Endpoint
from router.serve.supervisor import Supervisor
from router.telemeters import influxdb, linkerd_json, prometheus

TEXT = "text/plain; version=0.0.4; charset=utf-8"


def endpoints(supervisor: Supervisor) -> dict[str, Endpoint]:
    """By path."""
    gatherer = supervisor.gatherer

    async def metrics_json(request: Request) -> Response:
        asked = request.query_params
        values = linkerd_json.flat(*await gatherer.snapshot())
        pretty = asked.get("pretty", "").lower() in ("true", "1")
        if not {"tree", "q"} & set(asked):
            return as_json(values, pretty=pretty)
        try:
            return as_json(linkerd_json.part(linkerd_json.tree(values), asked.get("q", "")), pretty=pretty)
        except KeyError:
            return error(404, f"there are no metrics below {asked['q']!r}")

    async def linkerds(request: Request) -> Response:
        configured = supervisor.telemetry.endpoints.get(request.scope["path"])
        if configured is not None:
            return Response(await configured(""), media_type=TEXT)
        return Response(prometheus.linkerd_text(*await gatherer.snapshot()), media_type=TEXT)

    async def conventional(request: Request) -> Response:
        total, _ = await gatherer.snapshot()
        data, content_type = prometheus.conventional(total, request.headers.get("accept", ""))
        return Response(data, headers={"content-type": content_type})

    async def influx(request: Request) -> Response:
        host = request.headers.get("host", "localhost")
        return Response(influxdb.text(*await gatherer.snapshot(), host), media_type=TEXT)

    return {
        "/admin/metrics.json": metrics_json,
        "/metrics.json": metrics_json,
        "/admin/metrics/prometheus": linkerds,
        "/admin/metrics/influxdb": influx,
        "/metrics": conventional,
    }
