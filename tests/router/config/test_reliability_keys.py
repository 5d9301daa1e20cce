"""Values of retries, timeouts, balancers and breakers that mean nothing are refused where they stand."""

from __future__ import annotations

import pytest

from router.config.load import load_text
from router.config.plugins import Registry

REGISTRY = Registry()


@pytest.mark.parametrize(
    ("where", "line", "key", "why"),
    [
        ("service", "totalTimeoutMs: 0", "totalTimeoutMs", "must be 1 or more"),
        ("service", "retries: {budget: {percentCanRetry: 1001}}", "percentCanRetry", "between 0 and 1000"),
        ("service", "retries: {budget: {ttlSecs: 61}}", "ttlSecs", "between 1 and 60"),
        ("service", "retries: {budget: {minRetriesPerSec: -1}}", "minRetriesPerSec", "must be 0 or more"),
        ("service", "retries: {maxRetries: -1}", "maxRetries", "between 0 and 1000"),
        ("service", "retries: {backoff: {kind: jittered, minMs: 5, maxMs: 2}}", "maxMs", "must not be below minMs, which is 5"),
        ("service", "retries: {backoff: {kind: fullJitter, minMs: -5, maxMs: 2}}", "minMs", "between 0 and 3600000"),
        ("service", "classificationTimeoutMs: -1", "classificationTimeoutMs", "between 0 and 10000"),
        ("service", "retryBufferSize: {responseBytes: 9999999}", "responseBytes", "must be between 0"),
        ("service", "hedging: {percentile: 100}", "percentile", "between 50 and 99.9"),
        ("service", "hedging: {delayMs: 0}", "delayMs", "between 1 and 60000"),
        (
            "service",
            "responseClassifier: {kind: io.l5d.h2.grpc.retryableStatusCodes, retryableStatusCodes: [-1]}",
            "retryableStatusCodes",
            "must be gRPC status codes",
        ),
        ("client", "requestAttemptTimeoutMs: 0", "requestAttemptTimeoutMs", "must be 1 or more"),
        ("client", "requeueBudget: {percentCanRetry: -1}", "percentCanRetry", "between 0 and 1000"),
        ("client", "loadBalancer: {kind: p2c, maxEffort: 0}", "maxEffort", "between 1 and 100"),
        ("client", "loadBalancer: {kind: p2c, maxEffort: 1000000}", "maxEffort", "between 1 and 100"),
        ("client", "loadBalancer: {kind: ewma, decayTimeMs: 0}", "decayTimeMs", "must be more than 0"),
        ("client", "loadBalancer: {kind: heap, slowStartSecs: -1}", "slowStartSecs", "must be >= 0"),
        ("client", "loadBalancer: {kind: aperture, lowLoad: 3, highLoad: 2}", "highLoad", "more than lowLoad, which is 3"),
        ("client", "loadBalancer: {kind: aperture, minAperture: 0}", "minAperture", "must be more than 0"),
        ("client", "loadBalancer: {kind: aperture, peers: 2, peer: 2}", "peer", "between 0 and 1"),
        ("client", "failureAccrual: {kind: io.l5d.consecutiveFailures, failures: 0}", "failures", "must be 1 or more"),
        ("client", "failureAccrual: {kind: io.l5d.successRate, successRate: 2, requests: 3}", "successRate", "between 0 and 1"),
        ("client", "failureAccrual: {kind: io.l5d.successRate, successRate: 1, requests: 0}", "requests", "1 or more"),
        ("client", "failureAccrual: {kind: io.l5d.successRateWindowed, successRate: 1, window: 0}", "window", "1 or more"),
    ],
)
def test_refused_at_its_line(where: str, line: str, key: str, why: str) -> None:
    text = f"routers:\n- protocol: h2\n  {where}:\n    {line}\n"
    loaded = load_text(text, "f.yaml", REGISTRY)
    assert loaded.config is None
    first = loaded.render().splitlines()[0]
    assert first.startswith("f.yaml:4:")
    assert why in first
    assert f".{key}]" in first
