"""Keys of tracing: what is refused, where, and why."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import pytest

from router.config.load import Loaded, load_text
from router.config.plugins import Registry

TEXT = """telemetry:
- TELEMETER
routers:
- protocol: http
  PROPAGATOR
"""


def load(telemeter: str = "kind: io.l5d.zipkin", propagator: str = "label: web") -> Loaded:
    return load_text(TEXT.replace("TELEMETER", telemeter).replace("PROPAGATOR", propagator), "test.yaml", Registry())


@pytest.mark.parametrize(
    "telemeter",
    [
        "{kind: io.l5d.zipkin, host: zipkin, port: 9410, sampleRate: 1.0}",
        "{kind: io.l5d.tracelog, sampleRate: 0.2, level: TRACE}",
        "{kind: otlp, endpoint: 'https://collector:4318/v1/traces'}",
    ],
)
def test_what_is_taken(telemeter: str) -> None:
    loaded = load(telemeter)
    assert loaded.config is not None, loaded.render()
    (chosen,) = loaded.config.telemeters
    assert chosen.plugin.tracer is not None
    assert chosen.plugin.tracer(chosen.config).rate == chosen.config.sample_rate


@pytest.mark.parametrize(
    ("telemeter", "place", "text"),
    [
        ("{kind: io.l5d.zipkin, sampleRate: 1.5}", "2:37", "between 0 and 1"),
        ("{kind: io.l5d.zipkin, port: 0}", "2:31", "between 1 and 65535"),
        ("{kind: io.l5d.tracelog, level: LOUD}", "2:34", "must be one of ALL, TRACE"),
        ("{kind: otlp, endpoint: 'collector:4317'}", "2:26", "must be a URL"),
        ("{kind: otlp, endpoint: 'http://x:y/'}", "2:26", ""),
    ],
)
def test_what_is_refused(telemeter: str, place: str, text: str) -> None:
    loaded = load(telemeter)
    assert loaded.config is None
    assert f"test.yaml:{place}" in loaded.render()
    assert text in loaded.render()


@pytest.mark.parametrize("kind", ["io.l5d.default", "io.l5d.zipkin", "w3c"])
def test_propagators(kind: str) -> None:
    loaded = load(propagator=f"tracePropagator: {{kind: {kind}}}")
    assert loaded.config is not None
    assert loaded.config.routers[0].base.trace_propagator.plugin.kind == kind


def test_a_propagator_that_there_is_not() -> None:
    loaded = load(propagator="tracePropagator: {kind: io.l5d.jaeger}")
    assert loaded.config is None
    assert "test.yaml:5:27" in loaded.render()
    assert "io.l5d.default, io.l5d.zipkin, w3c" in loaded.render()


def test_without_the_extra_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    monkeypatch.delitem(sys.modules, "router.tracing.otlp", raising=False)
    loaded = load("kind: otlp")
    monkeypatch.delitem(sys.modules, "router.tracing.otlp", raising=False)
    assert loaded.config is None
    assert "test.yaml:2:9" in loaded.render()
    assert "pip install 'waypost[tracing]'" in loaded.render()
