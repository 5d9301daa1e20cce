"""`python -m interop.soak`: mixed traffic with cancels, resets, slow and broken peers; then everything is as it was before.

The same traffic first warms the router up for a while. After either part clients and backends stop; what the worker then has in
its hands (tasks, timers, sockets, open streams, credit, loads, what is pending) must be 0, or what it was after the warm-up.
Memory may be `TOLERANCE` above that, and must not climb by more than `CLIMB` from the second to the last fifth of the run.
"""

from __future__ import annotations

import argparse
import ssl
import statistics
import sys
import time
from pathlib import Path

import trustme
import yaml

from interop import _support as support
from interop.soak.load import Load
from interop.soak.measure import Held, Probe

MIB = 1 << 20
TOLERANCE = 8 * MIB
CLIMB = 6 * MIB
SETTLE = 45.0  # seconds in which everything must have come to an end
SAMPLE = 2.0  # seconds between two looks at the memory

Check = tuple[str, bool, str]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m interop.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true", help="two minutes")
    options = parser.parse_args()
    if options.quick:
        options.minutes = 2.0
    return options


class Setting:
    """Ports, certificate and configuration of one run."""

    def __init__(self) -> None:
        self.http, self.grpc, self.secure, self.admin, self._to_grpc, self._to_http = support.free_ports(6)
        self.config = support.log_file("soak").with_suffix(".yaml")
        authority = trustme.CA()
        self.tls = ssl.create_default_context()
        authority.configure_trust(self.tls)
        self.config.write_text(yaml.safe_dump(self._config(authority), sort_keys=False))

    def _config(self, authority: trustme.CA) -> dict[str, object]:
        cert, key = [support.log_file(f"soak-{name}").with_suffix(".pem") for name in ("cert", "key")]
        made = authority.issue_cert("localhost")
        cert.write_bytes(b"".join([blob.bytes() for blob in made.cert_chain_pems]))
        key.write_bytes(made.private_key_pem.bytes())
        tls = {"certPath": str(cert), "keyPath": str(key)}
        return {
            "admin": {"ip": support.LOOPBACK, "port": self.admin},
            "routers": [
                {
                    "protocol": "http",
                    "dtab": f"/svc => /$/inet/127.0.0.1/{self._to_http}",
                    "client": {"failureAccrual": {"kind": "none"}},
                    "servers": [{"port": self.http}, {"port": self.secure, "tls": tls}],
                },
                {
                    "protocol": "grpc",
                    "dtab": f"/svc => /$/inet/127.0.0.1/{self._to_grpc}",
                    "client": {"failureAccrual": {"kind": "none"}},
                    "servers": [{"port": self.grpc}],
                },
            ],
        }

    def traffic(self, seconds: float, probe: Probe) -> tuple[Load, list[int]]:
        """Backends and clients for a while; returns the clients' counts, and the worker's memory from look to look."""
        argv = [sys.executable, str(Path(__file__).with_name("backend.py")), str(self._to_grpc), str(self._to_http)]
        load = Load(self.http, self.grpc, self.secure, self.tls)
        resident: list[int] = []
        with support.serving("soak-backend", argv, ports=[self._to_grpc, self._to_http]), load.running():
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                time.sleep(SAMPLE)
                resident.append(probe.resident())
        return load, resident


def main() -> int:
    options = arguments()
    setting, seconds = Setting(), options.minutes * 60
    argv = [sys.executable, "-m", "router.cli", "run", setting.config]
    ports = [setting.http, setting.grpc, setting.secure]
    with support.serving("soak", argv, ports=ports, admin=setting.admin) as process:
        probe = Probe(process.popen.pid, setting.admin)
        setting.traffic(max(15.0, min(seconds / 6, 120.0)), probe)
        before = probe.settled(None, SETTLE)
        load, resident = setting.traffic(seconds, probe)
        after = probe.settled(before, SETTLE)
    show(load, before, after, resident)
    checks = judge(load, before, after, resident)
    for name, good, what in checks:
        print(f"{'ok  ' if good else 'FAIL'} {name}{'' if good else ': ' + what}")
    failed = sum(not good for _, good, _ in checks)
    tally = support.Tally(len(checks) - failed, failed, 0)
    print(f"\n{tally}")
    return tally.exit_code


def judge(load: Load, before: Held, after: Held, resident: list[int]) -> list[Check]:
    """What was asked for, kind by kind."""
    checks: list[Check] = []
    for name, value in after.idle.items():
        checks.append((f"no {name}", value == 0, f"{value} left"))
    for name, value in after.kept.items():
        checks.append((f"{name} as before", value <= before.kept[name], f"{value}, was {before.kept[name]}"))
    fifth = max(1, len(resident) // 5)
    climb = statistics.median(resident[-fifth:]) - statistics.median(resident[fifth : 2 * fifth] or resident)
    grown = after.resident - before.resident
    return [
        *checks,
        (f"memory at rest: {grown / MIB:+.1f} MiB", grown <= TOLERANCE, f"at most {TOLERANCE / MIB:.0f}"),
        (f"memory under load: {climb / MIB:+.1f} MiB", climb <= CLIMB, f"at most {CLIMB / MIB:.0f}"),
        ("no bugs caught", after.crashes == 0, f"{after.crashes}: see the router's log"),
        ("traffic of every kind", all(count > 10 for count in load.done.values()) and len(load.done) == 19, str(load.done)),
        ("no call failed that should not", not load.faults, str(load.faults)),
    ]


def show(load: Load, before: Held, after: Held, resident: list[int]) -> None:
    print(
        support.table(
            [["traffic", "done", "failed"], *[[kind, str(n), str(load.failed[kind])] for kind, n in sorted(load.done.items())]]
        )
    )
    held = [["held", "before", "after"]]
    for kind in ("idle", "kept"):
        held += [[name, str(getattr(before, kind)[name]), str(value)] for name, value in getattr(after, kind).items()]
    held.append(
        ["resident MiB", f"{before.resident / MIB:.1f}", f"{after.resident / MIB:.1f} (most {max(resident) / MIB:.1f})"]
    )
    print("\n" + support.table(held) + "\n")


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
