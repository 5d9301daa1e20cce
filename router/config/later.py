"""What Linkerd 1.x knows and this version does not do yet, and what Linkerd itself has removed.

Such keys are recognised and refused at their line; ignoring them would make a router that only looks configured.
"""

from __future__ import annotations

_SOCKET = "socketOptions"
LATER: dict[str, frozenset[str]] = {
    "config": frozenset(),
    "admin": frozenset((_SOCKET,)),
    "router": frozenset(
        (
            "announcers", "maxErrResponseKB",
            "streamAfterContentLengthKB", "streamingEnabled", "compressionLevel", "thriftProtocol",
            "thriftMethodInDst",
        )
    ),
    "server": frozenset(
        (
            "announce", "timeoutMs", _SOCKET, "thriftFramed", "label",
        )
    ),
    "client": frozenset(
        (
            _SOCKET, "requestAuthorizers", "thriftFramed", "attemptTTwitterUpgrade",
        )
    ),
    "plugin": frozenset(("transformers",)),
}  # fmt: skip

KINDS: dict[str, frozenset[str]] = {
    "protocol": frozenset(("thrift", "mux", "thriftmux")),
    "identifier": frozenset(("io.l5d.ingress", "io.l5d.k8s.istio")),
    "namer": frozenset(
        (
            "io.l5d.dnssrv", "io.l5d.consul", "io.l5d.k8s", "io.l5d.k8s.external", "io.l5d.k8s.ns", "io.l5d.k8s.istio",
            "io.l5d.marathon", "io.l5d.serversets", "io.l5d.zkLeader", "io.l5d.curator", "io.l5d.rancher",
        )
    ),
    "interpreter": frozenset(
        (
            "io.l5d.fs", "io.l5d.namerd", "io.l5d.namerd.http", "io.l5d.mesh", "io.l5d.k8s.configMap",
            "io.l5d.consul.interpreter", "io.l5d.k8s.istio", "io.l5d.static",
        )
    ),
}  # fmt: skip

REMOVED: dict[str, dict[str, str]] = {
    "config": {"tracers": "was renamed to 'telemetry' in Linkerd 0.9.0"},
    "router": {
        "baseDtab": "was renamed to 'dtab' in Linkerd 0.9.0",
        "timeoutMs": "became 'totalTimeoutMs' of a service and 'requestAttemptTimeoutMs' of a client in Linkerd 1.0",
        "responseClassifier": "belongs under 'service' since Linkerd 1.0",
        "retries": "belongs under 'service' since Linkerd 1.0",
        "loadBalancer": "belongs under 'client' since Linkerd 1.0",
        "maxRequestKB": "was removed in Linkerd 1.7.0",
        "maxResponseKB": "was removed in Linkerd 1.7.0",
        "maxChunkKB": "was removed in Linkerd 1.6.0",
    },
    "server": {"engine": "was removed in Linkerd 1.3.0"},
    "client": {"engine": "was removed in Linkerd 1.3.0", "loggers": "became 'requestAuthorizers' in Linkerd 1.4.0"},
}

NAMERD_KEYS = frozenset(("interfaces", "storage"))
