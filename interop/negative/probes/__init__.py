"""The probes, by what they need of the backend."""

from __future__ import annotations

from interop.negative.probes import bodies, flow, grpc, http1, resets
from interop.negative.probing import Probe

PROBES: dict[str, Probe] = {probe.name: probe for module in (resets, grpc, flow, bodies, http1) for probe in module.PROBES}
