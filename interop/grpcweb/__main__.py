"""`python -m interop.grpcweb`: grpc-web in headless Chromium calls a gRPC server through the router."""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from interop import _support as support

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LIMIT = 60.0  # seconds for all cases


def browser() -> str:
    """The path of a Chromium; raises `Unavailable`."""
    for name in BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise support.Unavailable(f"no browser found ({', '.join(BROWSERS)})")


def build() -> Path:
    """The page's script, with grpc-web in it; raises `Unavailable` or `BuildError`."""
    support.tool("node")
    npm = support.tool("npm")
    inputs = [HERE / "page" / name for name in ("package.json", "package-lock.json", "page.js")]

    def make(folder: Path) -> None:
        for each in inputs:
            shutil.copy(each, folder)
        support.step([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
        esbuild = folder / "node_modules" / ".bin" / "esbuild"
        support.step([esbuild, "page.js", "--bundle", "--format=iife", "--outfile=bundle.js"], cwd=folder)

    return support.built("grpcweb", inputs, make) / "bundle.js"


@contextmanager
def page(script: Path, ways: object) -> Iterator[tuple[str, queue.Queue[Any]]]:
    """Serve the page: its URL, and where its results arrive."""
    results: queue.Queue[Any] = queue.Queue()
    files = {
        "/": ("text/html", b"<!doctype html><meta charset=utf-8><script src=/bundle.js></script>"),
        "/bundle.js": ("text/javascript", script.read_bytes()),
        "/ways": ("application/json", json.dumps(ways).encode()),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = files.get(self.path, ("text/plain", b""))
            self._answer(200 if self.path in files else 404, kind, body)

        def do_POST(self) -> None:
            results.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._answer(204, "text/plain", b"")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it has
            pass

    with ThreadingHTTPServer((support.LOOPBACK, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{support.LOOPBACK}:{server.server_address[1]}", results
        finally:
            server.shutdown()


def routers(origin: str, back: int, clear: int, secure: int, denied: int) -> list[dict[str, object]]:
    """One router with three servers: in clear, with TLS, and one at which pages of our origin may not call."""
    allowed = {"allowOrigins": [origin], "allowHeaders": ["x-token"], "exposeHeaders": ["x-echo"]}
    servers = [
        {"ip": support.LOOPBACK, "port": clear, "grpcWeb": allowed},
        {"ip": support.LOOPBACK, "port": secure, "grpcWeb": allowed, "tls": support.certificate("grpcweb")},
        {"ip": support.LOOPBACK, "port": denied, "grpcWeb": {"allowOrigins": ["https://elsewhere.example"]}},
    ]
    dtab = f"/svc/waypost.Echo => /$/inet/{support.LOOPBACK}/{back};"
    return [{"protocol": "grpc", "dtab": dtab, "servers": servers}]


def run(chromium: str, script: Path) -> list[dict[str, str]]:
    """Every case, as the page reports it; raises `StartError`."""
    back, clear, secure, denied = support.free_ports(4)
    shared = {"denied": f"http://{support.LOOPBACK}:{denied}"}
    ways = [
        {"name": "http1", "base": f"http://{support.LOOPBACK}:{clear}", "via": "1.1 waypost", **shared},
        {"name": "h2-tls", "base": f"https://{support.LOOPBACK}:{secure}", "via": "h2 waypost", **shared},
    ]
    backend = [sys.executable, "-m", "interop.grpcweb.backend", str(back)]
    with ExitStack() as stack:
        stack.enter_context(support.serving("grpcweb-backend", backend, ports=[back]))
        url, results = stack.enter_context(page(script, ways))
        stack.enter_context(support.router("grpcweb-router", routers(url, back, clear, secure, denied)))
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        flags = [
            "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--ignore-certificate-errors", f"--user-data-dir={profile}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]  # fmt: skip
        process = stack.enter_context(support.serving("chromium", [chromium, *flags, url], ports=[]))
        try:
            found: list[dict[str, str]] = results.get(timeout=LIMIT)
        except queue.Empty:
            raise support.StartError(f"no results from the browser in {LIMIT:.0f} s\n{process.tail()}") from None
        return found


def render(cases: Sequence[dict[str, str]]) -> str:
    rows = [[case["outcome"], case["name"], case["why"].replace("\n", " ")] for case in cases]
    return support.table([["", "case", ""], *rows])


def main() -> int:
    argparse.ArgumentParser(prog="python -m interop.grpcweb", description=__doc__).parse_args()
    support.end_on_sigterm()
    try:
        cases = run(browser(), build())
    except support.Unavailable as error:
        report, verdict = f"skip: {error}", support.Tally(0, 0, 1)
    except (support.BuildError, support.StartError) as error:
        report, verdict = f"FAIL: {error}", support.Tally(0, 1, 0)
    else:
        outcomes = [case["outcome"] for case in cases]
        report = render(cases)
        verdict = support.Tally(outcomes.count("ok"), outcomes.count("FAIL"), outcomes.count("skip"))
    print(f"{report}\n\n{verdict}")
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
