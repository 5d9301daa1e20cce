"""`python -m interop.prometheus`: a real Prometheus scrapes the router every second, by conventional names and by Linkerd's.

A known number of calls goes through two workers, with a reload between its halves. Then Prometheus is asked, by its API, for
counters and histogram buckets: they must be the calls that were made, and no counter may ever have gone back.
"""

from __future__ import annotations

import http.client
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from interop import _support as support
from interop.prometheus.backend import SLOW, serving

PATIENCE = 20.0  # seconds for a scrape that has everything: one second between two, as much between two answers of a worker
HALVES = ({"a": {"/": 60, "/slow": 4}, "b": {"/": 30, "/500": 11}}, {"a": {"/": 45, "/slow": 3}, "b": {"/": 20, "/500": 9}})

Check = tuple[str, bool, str]
Samples = dict[tuple[tuple[str, str], ...], float]


class Prometheus:
    """The server's API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://{support.LOOPBACK}:{port}"

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urlopen(f"{self._url}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def query(self, text: str) -> Samples:
        """The samples of an instant query, by their labels without the name."""
        found = self._ask(f"query?{urlencode({'query': text})}")["result"]
        return {_labels(one["metric"]): float(one["value"][1]) for one in found}

    def names(self) -> list[str]:
        """Of all metrics."""
        found: list[str] = self._ask("label/__name__/values")
        return found

    def _ask(self, what: str) -> Any:
        with urlopen(f"{self._url}/api/v1/{what}", timeout=5) as response:
            return json.load(response)["data"]

    def value(self, text: str) -> float | None:
        """The only sample of a query; None where there is none."""
        found = list(self.query(text).values())
        assert len(found) <= 1, (text, found)
        return found[0] if found else None

    def until(self, text: str, wanted: float) -> float | None:
        """The value, as soon as it is what is wanted, or else what it is when patience ends."""
        deadline = time.monotonic() + PATIENCE
        while (value := self.value(text)) != wanted and time.monotonic() < deadline:
            time.sleep(0.2)
        return value


def _labels(metric: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted([(name, value) for name, value in metric.items() if name != "__name__"]))


def call(port: int, host: str, path: str, count: int) -> None:
    """So many calls over one connection; the next call's connection goes to whichever worker is free."""
    connection = http.client.HTTPConnection(support.LOOPBACK, port, timeout=10)
    for _ in range(count):
        connection.request("GET", path, headers={"host": host})
        response = connection.getresponse()
        response.read()
        assert response.status == (500 if path == "/500" else 200), response.status
    connection.close()


def drive(port: int, half: Mapping[str, Mapping[str, int]]) -> None:
    """The calls of one half, a few on each connection, so that both workers have some."""
    for host, paths in half.items():
        for path, count in paths.items():
            for at in range(0, count, 10):
                call(port, host, path, min(10, count - at))


def made(host: str, *paths: str) -> int:
    """How many calls there were in both halves."""
    return sum(half[host].get(path, 0) for half in HALVES for path in paths)


def judge(prometheus: Prometheus) -> list[Check]:
    """Prometheus' figures against the calls."""
    a, b = made("a", "/", "/slow"), made("b", "/", "/500")
    wanted = {
        "sum(waypost_server_requests_total)": a + b,
        "sum(waypost_server_success_total)": a + made("b", "/"),
        "sum(waypost_server_failures_total)": made("b", "/500"),
        'waypost_service_requests_total{service="/svc/a"}': a,
        'waypost_service_requests_total{service="/svc/b"}': b,
        'sum(waypost_service_status_total{service="/svc/b",status="500"})': made("b", "/500"),
        'waypost_service_request_latency_seconds_count{service="/svc/a"}': a,
        'waypost_service_request_latency_seconds_bucket{service="/svc/a",le="+Inf"}': a,
        'rt:service:requests{rt="web",service="/svc/a"}': a,
        'rt:service:failures{rt="web",service="/svc/b"}': made("b", "/500"),
    }
    found = {query: prometheus.until(query, count) for query, count in wanted.items()}
    checks = [(query, found[query] == count, f"{found[query]}, and {count} calls") for query, count in wanted.items()]
    return [*checks, *buckets(prometheus), *history(prometheus)]


def buckets(prometheus: Prometheus) -> list[Check]:
    """The histogram of a service of which a few calls were slow: where they are, and that counts add up."""
    name = 'waypost_service_request_latency_seconds_bucket{service="/svc/a"}'
    by_bound = sorted((float(dict(labels)["le"]), count) for labels, count in prometheus.query(name).items())
    counts = [count for _, count in by_bound]
    a, slow = made("a", "/", "/slow"), made("a", "/slow")
    below = max(count for bound, count in by_bound if bound < SLOW)
    total = prometheus.value('waypost_service_request_latency_seconds_sum{service="/svc/a"}') or 0.0
    median = prometheus.value(f"histogram_quantile(0.5, {name})")
    top = prometheus.value(f"histogram_quantile(0.99, {name})")
    return [
        ("buckets", counts == sorted(counts) and len(counts) > 10, f"not cumulative, or too few: {by_bound}"),
        ("slow calls", below <= a - slow, f"{below} calls below {SLOW} s, and {slow} of {a} took longer"),
        ("sum", total >= slow * SLOW, f"{total} s in all, and {slow} calls of {SLOW} s"),
        ("quantiles", median is not None and top is not None and median < SLOW <= top * 1.2, f"p50 {median}, p99 {top}"),
    ]


def history(prometheus: Prometheus) -> list[Check]:
    """What Prometheus thought of the scrapes themselves."""
    up = prometheus.query("min_over_time(up[1m])")
    counters = [name for name in prometheus.names() if name.startswith("waypost_") and name.endswith(("_total", "_bucket"))]
    back = [name for name in counters if prometheus.query(f"resets({name}[2m]) > 0")]
    return [
        ("scrapes", sorted(up.values()) == [1.0, 1.0], f"a scrape failed: {up}"),
        ("counters", len(counters) > 20 and not back, f"of {len(counters)} went back: {back}"),
    ]


def reloaded(port: int) -> Callable[[], bool]:
    """Whether the router serves a second generation, and the first is gone."""

    def done() -> bool:
        with urlopen(f"http://{support.LOOPBACK}:{port}/admin/workers.json", timeout=5) as response:
            answer = json.load(response)
        return answer["generation"] == 2 and not any(worker["draining"] for worker in answer["workers"])

    return done


def run() -> list[Check]:
    program = support.tool("prometheus")
    port, admin, api = support.free_ports(3)
    file = support.log_file("prometheus-router").with_suffix(".yaml")
    with serving() as backend, tempfile.TemporaryDirectory(prefix="waypost-prometheus-") as folder:

        def configure(depth: int) -> None:
            server = {"port": port, "maxCallDepth": depth}
            router = {"protocol": "http", "label": "web", "dtab": f"/svc => /$/inet/127.0.0.1/{backend}", "servers": [server]}
            router["client"] = {"failureAccrual": {"kind": "none"}}
            file.write_text(yaml.safe_dump({"admin": {"port": admin}, "workers": 2, "routers": [router]}))

        configure(1000)
        scrapes = Path(folder) / "prometheus.yml"
        scrapes.write_text(yaml.safe_dump(scraping(f"{support.LOOPBACK}:{admin}")))
        argv = [sys.executable, "-m", "router.cli", "run", file]
        server = [
            program, f"--config.file={scrapes}", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={support.LOOPBACK}:{api}", "--log.level=warn",
        ]  # fmt: skip
        with (
            support.serving("prometheus-router", argv, ports=[port], admin=admin) as router,
            support.serving("prometheus", server, ports=[api]),
        ):
            prometheus = Prometheus(api)
            assert until(prometheus.ready), "prometheus listens, and does not become ready"
            prometheus.until("min(up)", 1.0)
            drive(port, HALVES[0])
            prometheus.until("sum(waypost_server_requests_total)", sum(sum(paths.values()) for paths in HALVES[0].values()))
            configure(1001)
            router.popen.send_signal(signal.SIGHUP)
            checks = [("reload", until(reloaded(admin)), "no second generation within 20 s")]
            drive(port, HALVES[1])
            return checks + judge(prometheus)


def scraping(target: str) -> dict[str, object]:
    """Prometheus' configuration: both forms of the metrics."""
    paths = {"conventional": "/metrics", "linkerd": "/admin/metrics/prometheus"}
    jobs = [{"job_name": name, "metrics_path": path, "static_configs": [{"targets": [target]}]} for name, path in paths.items()]
    return {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}


def until(done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if done():
            return True
        time.sleep(0.1)
    return False


def main() -> int:
    try:
        checks = run()
    except support.Unavailable as missing:
        tally = support.Tally(0, 0, 1)
        print(f"skip: {missing}\n\n{tally}")
        return tally.exit_code
    for name, good, what in checks:
        print(f"{'pass' if good else 'FAIL'} {name}{'' if good else f': {what}'}")
    failed = sum(not good for _, good, _ in checks)
    tally = support.Tally(len(checks) - failed, failed, 0)
    print(f"\n{tally}")
    return tally.exit_code


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
