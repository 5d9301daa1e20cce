"""`python -m interop.faults`: real backends that fail under load, through the router: scenario x kind of backend."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from interop import _support as support
from interop.faults.peers import PEERS, Peer
from interop.faults.scenarios import SCENARIOS, Broken, Scenario
from interop.faults.stage import Stage, stage
from interop.grpc.__main__ import names_of


@dataclass(frozen=True)
class Cell:
    """One scenario with one kind of backend: `outcome` is ok, FAIL or skip."""

    scenario: str
    peer: str
    outcome: str
    detail: str
    seconds: float = 0.0


def _one(scenario: Scenario, on: Stage) -> Cell:
    began = time.monotonic()
    try:
        on.heal()
        outcome, detail = "ok", scenario.run(on)
    except (Broken, support.StartError) as error:
        outcome, detail = "FAIL", str(error)
    return Cell(scenario.name, on.peer.name, outcome, detail, time.monotonic() - began)


def cells(peer: Peer, scenarios: list[Scenario]) -> Iterator[Cell]:
    """Run the scenarios one after the other in front of the same backends."""
    try:
        with stage(peer) as on:
            for scenario in scenarios:
                yield _one(scenario, on)
    except support.Unavailable as missing:
        yield from (Cell(scenario.name, peer.name, "skip", str(missing)) for scenario in scenarios)
    except (support.BuildError, support.StartError) as error:
        yield Cell("start", peer.name, "FAIL", str(error))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m interop.faults", description=__doc__)
    parser.add_argument("--peers", type=names_of(PEERS), metavar="A,B", default=list(PEERS), help="default: all")
    parser.add_argument("--scenarios", type=names_of([each.name for each in SCENARIOS]), metavar="A,B", help="default: all")
    parser.add_argument("--quick", action="store_true", help="the scenarios that matter most, in less than a minute")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    wanted = options.scenarios or [each.name for each in SCENARIOS if each.quick or not options.quick]
    scenarios = [each for each in SCENARIOS if each.name in wanted]
    done: list[Cell] = []
    for name in options.peers:
        for cell in cells(PEERS[name], scenarios):
            print(f"{cell.outcome:4}  {cell.peer:9} {cell.scenario:20} {cell.seconds:4.1f} s  {cell.detail}", flush=True)
            done.append(cell)
    outcome = {(cell.scenario, cell.peer): cell.outcome for cell in done}
    rows = [[each.name, *[outcome.get((each.name, peer), "-") for peer in options.peers]] for each in scenarios]
    counts = [sum(cell.outcome == kind for cell in done) for kind in ("ok", "FAIL", "skip")]
    tally = support.Tally(*counts)
    print(f"\n{support.table([['scenario', *options.peers], *rows])}\n\n{tally}")
    return tally.exit_code


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
