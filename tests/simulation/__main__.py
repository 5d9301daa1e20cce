"""``python -m tests.simulation``: every scenario played, ``docs/reliability/*.svg`` and the tables of ``docs/reliability.md``
written. ``--tables``: those only, which needs no matplotlib."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.simulation.report import Run
from tests.simulation.scenarios import SCENARIOS, run

DOCS = Path(__file__).parents[2] / "docs"
HEAD = "| | success, % | p50, ms | p99, ms | p99.9, ms | calls per request |\n|---|--:|--:|--:|--:|--:|\n"


def row(name: str, played: Run) -> str:
    """One line of a table."""
    p50, p99, p999 = (round(1000 * played.latency(share)) for share in (0.5, 0.99, 0.999))
    return f"| {name} | {100 * played.success():.2f} | {p50} | {p99:,} | {p999:,} | {played.amplification:.3f} |\n"


def put(text: str, name: str, table: str) -> str:
    """``text`` with ``table`` between the marks of that name. Raises LookupError where there are none."""
    begin, end = f"<!-- figures: {name} -->\n", "<!-- end -->"
    replaced, times = re.subn(re.escape(begin) + r".*?" + re.escape(end), lambda _: begin + table + end, text, flags=re.DOTALL)
    if times != 1:
        raise LookupError(f"docs/reliability.md needs the line {begin.strip()!r} once")
    return replaced


def main(plots: bool) -> None:
    """Play and write."""
    page = DOCS / "reliability.md"
    text = page.read_text("utf-8")
    for scenario in SCENARIOS:
        runs = {name: run(scenario.name, name) for name in scenario.variants}
        text = put(text, scenario.name, HEAD + "".join(row(name, played) for name, played in runs.items()))
        if plots:
            from tests.simulation.plots import draw

            draw(scenario, runs, DOCS / "reliability")
        print(scenario.name, file=sys.stderr)
    page.write_text(text, "utf-8")


if __name__ == "__main__":
    main("--tables" not in sys.argv[1:])
