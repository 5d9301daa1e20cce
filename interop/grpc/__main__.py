"""`python -m interop.grpc`: the standard gRPC interop cases, client x server x case, through the router."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from interop import _support as support
from interop.grpc.cases import CASES
from interop.grpc.fronts import FRONTS
from interop.grpc.matrix import as_json, render, run_matrix, tally
from interop.grpc.peers import PEERS

QUICK = ["go", "python"]


def names_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """A converter of `a,b,c` that accepts known names only."""

    def convert(text: str) -> list[str]:
        names = list(dict.fromkeys(text.split(",")))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return convert


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m interop.grpc", description=__doc__)
    parser.add_argument("--clients", type=names_of(PEERS), metavar="A,B", help=f"default: {','.join(PEERS)}")
    parser.add_argument("--servers", type=names_of(PEERS), metavar="A,B", help=f"default: {','.join(PEERS)}")
    parser.add_argument("--cases", type=names_of(CASES), metavar="A,B", default=list(CASES), help="default: all")
    parser.add_argument("--quick", action="store_true", help=f"clients and servers default to {','.join(QUICK)}")
    parser.add_argument("--via", choices=FRONTS, default="router", help="what stands in between (default: router)")
    parser.add_argument("--direct", dest="via", action="store_const", const="direct", help="nothing stands in between")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every cell to FILE")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    default = QUICK if options.quick else list(PEERS)
    clients, servers = options.clients or default, options.servers or default
    print(", ".join(PEERS[name].version for name in dict.fromkeys([*clients, *servers])), flush=True)
    cells = run_matrix(clients, servers, options.cases, options.via, progress=lambda line: print(line, flush=True))
    if options.json:
        options.json.write_text(json.dumps(as_json(cells, options.via), indent=1) + "\n")
    print(f"\n{render(cells)}\n\n{tally(cells)}")
    return tally(cells).exit_code


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
