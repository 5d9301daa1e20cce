"""The matrix as text, and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from interop import _support as support
from interop.negative.probing import CLIENTS, Expect, Probe
from interop.negative.suite import Cell, tally


def by_client(cells: Sequence[Cell], front: str) -> str:
    """Probes x clients, of one proxy."""
    mine = {(cell.probe, cell.client): cell.outcome for cell in cells if cell.front == front}
    clients = [name for name in CLIENTS if any(client == name for _, client in mine)]
    probes = list(dict.fromkeys(probe for probe, _ in mine))
    rows = [[probe, *(mine.get((probe, client), "") for client in clients)] for probe in probes]
    return support.table([[front, *clients], *rows])


def by_front(cells: Sequence[Cell], fronts: Sequence[str]) -> list[list[str]]:
    """Probes x proxies: how many of the clients saw what they must."""
    probes = list(dict.fromkeys(cell.probe for cell in cells))
    return [["probe", *fronts], *([probe, *(_count(cells, probe, front) for front in fronts)] for probe in probes)]


def _count(cells: Sequence[Cell], probe: str, front: str) -> str:
    mine = tally([cell for cell in cells if cell.probe == probe and cell.front == front])
    ran = mine.passed + mine.failed
    if not ran:
        return "-"
    return "ok" if not mine.failed else f"{mine.passed}/{ran}"


def render(cells: Sequence[Cell], fronts: Sequence[str]) -> str:
    """Everything that a terminal gets."""
    parts = [by_client(cells, fronts[0])]
    if len(fronts) > 1:
        parts.append(support.table(by_front(cells, fronts)))
    parts += filter(None, (_skips(cells), _late(cells), _failures([cell for cell in cells if cell.front == fronts[0]])))
    return "\n\n".join(parts)


def _skips(cells: Sequence[Cell]) -> str:
    reasons: dict[str, int] = {}
    for cell in cells:
        if cell.outcome == "skip":
            reasons[cell.reason] = reasons.get(cell.reason, 0) + 1
    return "\n".join(f"skip: {reason} ({count})" for reason, count in reasons.items())


def _late(cells: Sequence[Cell]) -> str:
    late = [f"{cell.front}: {cell.probe}: {cell.client}" for cell in cells if cell.outcome == "ok" and cell.reason]
    return "\n".join(f"passed at the second attempt: {cell}" for cell in late)


def _failures(cells: Sequence[Cell]) -> str:
    return "\n".join(f"FAIL {cell.probe}: {cell.client}: {cell.reason}" for cell in cells if cell.outcome == "FAIL")


def page(cells: Sequence[Cell], probes: Sequence[Probe], fronts: Sequence[str], versions: Sequence[str], *, quick: bool) -> str:
    """`docs/interop-negative.md`."""
    totals = [str(tally([cell for cell in cells if cell.front == front])) for front in fronts]
    lines = [
        "# Backends that misbehave",
        "",
        f"What `python -m interop.negative{' --quick' * quick} --peers {','.join(fronts[1:])}` found, which also writes this",
        "page: see `interop/README.md`. Each row is something that a backend or a client does wrong, or rarely; its cells",
        "count the clients that saw, and let the backend see, what the second table asks for. Clients:",
        ", ".join([name for name in CLIENTS if any(cell.client == name for cell in cells)]) + ".",
        "",
        "waypost runs with its defaults, with circuit breaking off and 64 KB for heads of HTTP/1.1. The others run with",
        "theirs, nothing configured but listeners and upstreams; a cell is about the version that is named.",
        "",
        "| proxy | cells |",
        "|---|---|",
        *(f"| {name} | {total} |" for name, total in zip(versions, totals, strict=True)),
        "",
        "## The matrix",
        "",
        "`-`: no such way through this proxy.",
        "",
    ]
    header, *rows = by_front(cells, fronts)
    lines += [_row(header), _row(["---"] * len(header)), *(_row(row) for row in rows)]
    lines += ["", "## What must be seen", "", _row(["probe", "client", "backend"]), _row(["---"] * 3)]
    named = {cell.probe for cell in cells}
    lines += [_row([p.name, _texts(p.client_sees), _texts(p.backend_sees)]) for p in probes if p.name in named]
    for front, name in zip(fronts, versions, strict=True):
        lines += ["", f"## Deviations: {name}", "", *(_deviations(cells, front) or ["None."])]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _texts(expected: Sequence[Expect]) -> str:
    return "; ".join(repr(each.text)[1:-1] for each in expected)


def _deviations(cells: Sequence[Cell], front: str) -> list[str]:
    """One line a probe: what was seen, by whom."""
    found: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        if cell.front == front and cell.outcome == "FAIL":
            found.setdefault(cell.probe, {}).setdefault(cell.reason, []).append(cell.client)
    return [
        f"- {probe}: " + ". ".join(f"{', '.join(who)}: {_plain(reason)}" for reason, who in reasons.items())
        for probe, reasons in found.items()
    ]


def _plain(text: str) -> str:
    return text.replace("client: ", "").replace("\n", " ").replace("|", "/")[:300]
