"""Pages, and the first of them: what runs, and where to look further. Plain HTML, nothing is loaded from elsewhere."""

from __future__ import annotations

from html import escape

from starlette.requests import Request
from starlette.responses import Response

from router import __version__
from router.serve.supervisor import Supervisor

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}"
    "h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd}td.n{font-variant-numeric:tabular-nums}"
    "code{background:#f4f4f4;padding:0 .2rem}"
)
LINKS = {
    "/admin/metrics.json?pretty=true": "metrics",
    "/metrics": "metrics for Prometheus",
    "/client_state.json": "endpoints",
    "/admin/events.json": "events",
    "/requests": "the last requests, where they are recorded",
    "/admin/workers.json": "workers",
    "/config.json": "configuration",
    "/logging.json": "loggers",
    "/openapi.json": "this interface, described",
}


def html(title: str, body: str) -> Response:
    """A page; ``body`` is HTML already."""
    text = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>waypost: {title}</title><style>{STYLE}</style>{body}'
    headers = {"cache-control": "no-store", "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(text, 200, headers, "text/html")


async def overview(supervisor: Supervisor, request: Request) -> Response:
    """The page."""
    generation = supervisor.generation
    assert generation is not None
    total, _ = await supervisor.gatherer.snapshot()
    rows = []
    for label, ip, port in generation.addresses:
        names = [f"rt\0{label}\0server\0{ip}\0{port}\0{name}" for name in ("requests", "success", "failures")]
        numbers = [f'<td class="n">{total.counters.get(name, 0):,}' for name in names]
        rows.append(f"<tr><td>{escape(label)}<td>{escape(ip)}:{port}{''.join(numbers)}")
    workers = "".join([f"<tr><td>{slot.number}<td>{slot.pid}<td>{slot.starts}" for slot in generation.slots])
    links = "".join([f'<li><a href="{href}">{escape(text)}</a>' for href, text in LINKS.items()])
    body = (
        f"<h1>waypost {__version__}</h1><p>{escape(generation.loaded.name)}, generation {generation.number}"
        f"<h2>Servers</h2><table><tr><th>router<th>address<th>requests<th>success<th>failures{''.join(rows)}</table>"
        f"<h2>Workers</h2><table><tr><th>number<th>pid<th>starts{workers}</table><h2>More</h2><ul>{links}</ul>"
    )
    return html("overview", body)
