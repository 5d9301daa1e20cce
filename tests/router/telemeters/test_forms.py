"""Metrics in the forms of Linkerd, Prometheus and InfluxDB."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from router.model.metrics import Metrics
from router.telemeters import influxdb, linkerd_json, prometheus
from router.telemeters.names import labelled
from router.telemeters.snapshot import Snapshot


def snapshot() -> Snapshot:
    metrics = Metrics()
    rt = metrics.scope("rt", 'in"coming')
    server = rt.scope("server", "127.0.0.1", "4141")
    service, client = rt.scope("service", "svc/foo"), rt.scope("client", "$/inet/127.1/80")
    server.counter("requests").value = 3
    server.scope("status").counter("200").value = 2
    server.scope("status").counter("2XX").value = 2
    server.scope("failures").counter("Timeout").value = 1
    service.counter("requests").value = 1
    client.scope("service", "svc/foo").counter("requests").value = 4
    client.gauge("load", lambda: 1.5)
    for value in (1.0, 2.0, 80.0):
        service.stat("request_latency_ms").add(value)
    service.stat("empty_ms")
    metrics.scope("namer", "io.l5d.fs").counter("failures").value = 7
    return Snapshot().take(metrics.slots())


@pytest.mark.parametrize(
    ("elements", "kept", "labels"),
    [
        (["rt", "a", "server", "::1", "80", "requests"], "rt server requests", {"rt": "a", "server": "::1/80"}),
        (["rt", "a", "service", "svc/b/c", "success"], "rt service success", {"rt": "a", "service": "/svc/b/c"}),
        (["rt", "a", "client", "#/b", "service", "svc/c", "success"], "rt client service success",
         {"rt": "a", "client": "/#/b", "service": "/svc/c"}),
        (["rt", "a", "service", "b", "failures", "bar", "qux"], "rt service failures",
         {"rt": "a", "service": "/b", "exception": "bar:qux"}),
        (["rt", "a", "bindings"], "rt bindings", {"rt": "a"}),
        (["supervisor", "reloads"], "supervisor reloads", {}),
        (["rt"], "rt", {}),
    ],
)  # fmt: skip
def test_labels(elements: list[str], kept: str, labels: dict[str, str]) -> None:
    found = labelled("\0".join(elements))
    assert (" ".join(found.elements), found.labels) == (kept, labels)


def test_linkerds_json() -> None:
    values = linkerd_json.flat(snapshot(), snapshot())
    assert values['rt/in"coming/server/127.0.0.1/4141/status/200'] == 2
    assert values['rt/in"coming/service/svc/foo/request_latency_ms.count'] == 3
    assert values['rt/in"coming/service/svc/foo/request_latency_ms.max'] == 80.0
    assert values['rt/in"coming/service/svc/foo/request_latency_ms.avg'] == 27.667
    assert values['rt/in"coming/service/svc/foo/empty_ms.count'] == 0
    assert list(values) == sorted(values)
    tree = linkerd_json.tree(values)
    assert linkerd_json.part(tree, 'rt/in"coming/server/127.0.0.1/4141/status') == {"200": 2, "2XX": 2}
    with pytest.raises(KeyError):
        linkerd_json.part(tree, "rt/outgoing")
    with pytest.raises(KeyError):
        linkerd_json.part(tree, 'rt/in"coming/service/svc/foo/requests/deeper')


def test_a_name_that_is_a_value_and_a_scope() -> None:
    assert linkerd_json.tree({"a": 1, "a/b": 2}) == {"a": {"": 1, "b": 2}}
    assert linkerd_json.tree({"a/b": 2, "a": 1}) == {"a": {"": 1, "b": 2}}


def test_linkerds_text() -> None:
    lines = prometheus.linkerd_text(snapshot(), snapshot(), "linkerd_").splitlines()
    assert 'linkerd_rt:server:requests{rt="in\\"coming", server="127.0.0.1/4141"} 3' in lines
    assert 'linkerd_rt:client:service:requests{rt="in\\"coming", client="/$/inet/127.1/80", service="/svc/foo"} 4' in lines
    assert 'linkerd_rt:server:failures{rt="in\\"coming", server="127.0.0.1/4141", exception="Timeout"} 1' in lines
    assert 'linkerd_rt:client:load{rt="in\\"coming", client="/$/inet/127.1/80"} 1.5' in lines
    assert 'linkerd_rt:service:request_latency_ms_count{rt="in\\"coming", service="/svc/foo"} 3' in lines
    assert any(line.startswith("linkerd_rt:service:request_latency_ms{") and 'quantile="0.99"' in line for line in lines)
    assert not [line for line in lines if "empty" in line]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_conventional_names(accept: str) -> None:
    data, content_type = prometheus.conventional(snapshot(), accept)
    read = read_openmetrics if "openmetrics" in content_type else read_text
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read(data.decode())
        for sample in family.samples
    }
    on_server = (("router", 'in"coming'), ("server", "127.0.0.1/4141"))
    assert samples["waypost_server_requests_total", on_server] == 3
    assert samples["waypost_server_status_total", (*on_server, ("status", "200"))] == 2
    assert not [labels for _, labels in samples if ("status", "2XX") in labels]
    of_service = (("router", 'in"coming'), ("service", "/svc/foo"))
    assert samples["waypost_service_request_latency_seconds_count", of_service] == 3
    assert samples["waypost_service_request_latency_seconds_sum", of_service] == pytest.approx(0.083)
    buckets = [(labels, value) for (name, labels), value in samples.items() if name.endswith("latency_seconds_bucket")]
    values = [value for _, value in sorted(buckets, key=lambda bucket: float(dict(bucket[0])["le"]))]
    assert values == sorted(values)
    assert values[-1] == 3


def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian's prometheus) is not installed")
    data, _ = prometheus.conventional(snapshot(), "")
    done = subprocess.run([promtool, "check", "metrics"], input=data, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_influxdbs_lines() -> None:
    lines = influxdb.text(snapshot(), snapshot(), "here:9990").splitlines()
    assert 'rt:server,host=here:9990,rt=in"coming,server=127.0.0.1/4141 requests=3i' in lines
    assert "namer,host=here:9990,namer=/io.l5d.fs,exception= failures=7i" not in lines
    (latencies,) = [line for line in lines if line.startswith("rt:service")]
    assert "request_latency_ms_count=3" in latencies
