"""The scenarios as plots, one file each. Needs matplotlib (``pip install 'waypost[docs]'``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

from tests.simulation.report import Run, percentile
from tests.simulation.scenarios import Scenario

COLOURS = ("#9aa0a6", "#d55e00", "#0072b2", "#e69f00", "#56b4e9", "#009e73")  # the first is what one begins with
STEP = 1.0  # seconds a point
Drawn = list[tuple[str, Run, str]]

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "waypost", "font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "axes.edgecolor": "#80868b", "axes.titlesize": 9.5, "axes.titlelocation": "left",
        "xtick.color": "#5f6368", "ytick.color": "#5f6368", "grid.color": "#e8eaed", "legend.frameon": False,
    }
)  # fmt: skip


def draw(scenario: Scenario, runs: dict[str, Run], folder: Path) -> None:
    """Write ``folder/<name>.svg``."""
    drawn = [(name, played, COLOURS[at % len(COLOURS)]) for at, (name, played) in enumerate(runs.items())]
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.5), layout="constrained")
    for axis, panel in zip(axes, scenario.panels, strict=True):
        axis.grid(visible=True)
        axis.set_axisbelow(True)
        PANELS[panel](axis, scenario, drawn)
    labels, names = axes[0].get_legend_handles_labels()
    figure.legend(labels, names, loc="outside lower center", ncols=3)
    figure.savefig(folder / f"{scenario.name}.svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def _over_time(axis: Any, scenario: Scenario) -> list[float]:
    axis.set_xlabel("seconds")
    axis.set_xlim(0, scenario.seconds)
    if scenario.fault is not None:
        axis.axvspan(*scenario.fault, color="#fce8e6", lw=0, zorder=0)
    return [at * STEP for at in range(round(scenario.seconds / STEP))]


def _success(axis: Any, scenario: Scenario, drawn: Drawn) -> None:
    axis.set_title("requests that succeed, %")
    times = _over_time(axis, scenario)
    for name, played, colour in drawn:
        shares = [100 * played.success(time, time + STEP) for time in times]
        axis.plot([time + STEP / 2 for time in times], shares, label=name, color=colour, lw=1.6)


def _p99(axis: Any, scenario: Scenario, drawn: Drawn) -> None:
    axis.set_title("p99 of the latency of successes, ms")
    times = _over_time(axis, scenario)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(_plain))
    axis.yaxis.set_minor_formatter(FuncFormatter(_plain))
    axis.tick_params(axis="y", which="minor", labelsize=7)
    for name, played, colour in drawn:
        tails = [1000 * percentile(played.latencies(time, time + STEP), 0.99) or float("nan") for time in times]
        axis.plot([time + STEP / 2 for time in times], tails, label=name, color=colour, lw=1.6)


def _plain(value: float, _: Any) -> str:
    return f"{value:g}" if f"{value:e}"[0] in "125" else ""


def _tail(axis: Any, scenario: Scenario, drawn: Drawn) -> None:
    axis.set_title("requests that take longer (or fail), %")
    axis.set_xlabel("milliseconds")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(0.02, 100)
    axis.set_xlim(20, 2500)
    for formatted in (axis.xaxis, axis.yaxis):
        formatted.set_major_formatter(FuncFormatter(_plain))
    grid = [20 * 10 ** (at / 100) for at in range(211)]
    for name, played, colour in drawn:
        slower = played.slower([one / 1000 for one in grid])
        axis.plot(grid, [100 * share for share in slower], label=name, color=colour, lw=1.6)


def _shares(axis: Any, scenario: Scenario, drawn: Drawn) -> None:
    axis.set_title("calls of each endpoint, % of the average")
    axis.set_xlabel("endpoints, the least busy first")
    for name, played, colour in drawn:
        calls = sorted(len(machine.arrivals) for machine in played.machines)
        mean = sum(calls) / len(calls)
        ranks = range(1, len(calls) + 1)
        axis.plot(ranks, [100 * one / mean for one in calls], label=name, color=colour, lw=1.6, marker="o", ms=3)


def _per_second(times: list[float], moments: list[float]) -> list[float]:
    counts = Counter(int(moment / STEP) for moment in moments)
    return [counts[round(time / STEP)] / STEP for time in times]


def _goodput(axis: Any, scenario: Scenario, drawn: Drawn) -> None:
    axis.set_title("requests that succeed, per second")
    times = _over_time(axis, scenario)
    axis.plot(times, [scenario.rate(time) for time in times], color="#202124", lw=1, ls=":", label="asked for")
    for name, played, colour in drawn:
        ended = _per_second(times, [ended for _, ended, good in played.seen if good])
        axis.plot([time + STEP / 2 for time in times], ended, label=name, color=colour, lw=1.6)


def _calls(axis: Any, scenario: Scenario, drawn: Drawn) -> None:
    axis.set_title("calls that reach an endpoint, per second")
    times = _over_time(axis, scenario)
    capacity = scenario.capacity
    axis.axhline(capacity, color="#202124", lw=1, ls=":")
    axis.annotate("capacity", (scenario.seconds, capacity), ha="right", va="bottom", color="#202124", fontsize=8)
    for name, played, colour in drawn:
        moments = [moment for machine in played.machines for moment in machine.arrivals]
        axis.plot([time + STEP / 2 for time in times], _per_second(times, moments), label=name, color=colour, lw=1.6)


PANELS: dict[str, Callable[[Any, Scenario, Drawn], None]] = {
    "success": _success, "p99": _p99, "tail": _tail, "shares": _shares, "goodput": _goodput, "calls": _calls,
}  # fmt: skip
