"""`python -m interop.negative`: backends that misbehave, and what each client and each backend must see through the router."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import trio

from interop import _support as support
from interop.grpc.__main__ import names_of
from interop.negative import report
from interop.negative.fronts import FRONTS, version
from interop.negative.probes import PROBES
from interop.negative.probing import CLIENTS
from interop.negative.suite import run, tally

QUICK = ("grpcio", "grpc-go", "curl-h2", "nghttp", "curl")
PEERS = [name for name in FRONTS if name not in ("waypost", "direct")]
PAGE = Path("docs/interop-negative.md")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m interop.negative", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"clients {','.join(QUICK)}, without the slow probes")
    parser.add_argument("--clients", type=names_of(CLIENTS), metavar="A,B", help=f"default: {','.join(CLIENTS)}")
    parser.add_argument("--peers", type=names_of(PEERS), metavar="A,B", default=[], help=f"also through {','.join(PEERS)}")
    parser.add_argument("--only", metavar="TEXT", help="probes whose name contains TEXT")
    parser.add_argument("--front", type=names_of(FRONTS), metavar="A", default=["waypost"], help="in the place of waypost")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"write the page; with all --peers by default {PAGE}")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    clients = options.clients or (QUICK if options.quick else CLIENTS)
    probes = [
        probe
        for probe in PROBES.values()
        if not (options.quick and probe.slow) and (options.only or "").lower() in probe.name.lower()
    ]
    fronts = [*options.front, *options.peers]
    cells = trio.run(run, fronts, probes, clients, lambda line: print(line, flush=True))
    whole = not options.only and not options.quick and not options.clients and options.peers == PEERS
    page = options.page or (PAGE if whole else None)
    if page is not None:
        page.write_text(report.page(cells, probes, fronts, [version(front) for front in fronts], quick=options.quick))
    # Peers are there for comparison: the verdict is about the first front.
    verdict = tally([cell for cell in cells if cell.front == fronts[0]])
    print(f"\n{report.render(cells, fronts)}\n\n{verdict}")
    return verdict.exit_code


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
