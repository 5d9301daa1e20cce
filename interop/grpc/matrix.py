"""Run the matrix: build the peers, start the servers and the front, run every cell in turn.

Cells run one after the other, so that a line in the router's log belongs to one case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from interop import _support as support
from interop.grpc.cases import skip_reason
from interop.grpc.fronts import FRONTS
from interop.grpc.peers import PEERS

CLIENT_LIMIT = 30.0  # seconds


@dataclass(frozen=True)
class Cell:
    """One client x server x case: `outcome` is ok, FAIL or skip, `reason` says why not ok."""

    client: str
    server: str
    case: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Obstacle:
    """Why a whole row or column of the matrix cannot run; `outcome` is FAIL or skip."""

    outcome: str
    reason: str


Folders = Mapping[str, Path | Obstacle]


def run_matrix(
    clients: Sequence[str], servers: Sequence[str], cases: Sequence[str], via: str, progress: Callable[[str], None]
) -> list[Cell]:
    """The outcome of every cell; `progress` gets a line for every pair of client and server."""
    folders = {name: _build(name) for name in dict.fromkeys([*clients, *servers])}
    cells: list[Cell] = []
    with ExitStack() as stack:
        ports = _start(stack, folders, servers, via)
        for client in clients:
            for server in servers:
                pair = list(_pair(client, server, cases, folders[client], ports[server]))
                progress(_progress(client, server, pair))
                cells += pair
    return cells


def _build(name: str) -> Path | Obstacle:
    try:
        return PEERS[name].build()
    except support.Unavailable as error:
        return Obstacle("skip", str(error))
    except support.BuildError as error:
        return Obstacle("FAIL", f"build: {error}")


def _start(stack: ExitStack, folders: Folders, servers: Sequence[str], via: str) -> dict[str, int | Obstacle]:
    """Start servers and front; the port for each server, or why it has none."""
    ports = {name: _start_server(stack, name, folders[name]) for name in servers}
    backends = {name: port for name, port in ports.items() if isinstance(port, int)}
    try:
        return {**ports, **stack.enter_context(FRONTS[via](backends))}
    except support.Unavailable as error:
        return dict.fromkeys(servers, Obstacle("skip", str(error)))
    except support.StartError as error:
        return {**ports, **dict.fromkeys(backends, Obstacle("FAIL", str(error)))}


def _start_server(stack: ExitStack, name: str, folder: Path | Obstacle) -> int | Obstacle:
    if isinstance(folder, Obstacle):
        return folder
    peer, port = PEERS[name], support.free_ports(1)[0]
    server = support.serving(f"grpc-server-{name}", peer.server(folder, port), ports=[port], env=peer.env(folder))
    try:
        stack.enter_context(server)
    except support.StartError as error:
        return Obstacle("FAIL", str(error))
    return port


def _pair(client: str, server: str, cases: Sequence[str], folder: Path | Obstacle, port: int | Obstacle) -> Iterator[Cell]:
    for case in cases:
        lacking = skip_reason(client, server, case)
        if lacking:
            yield Cell(client, server, case, "skip", lacking)
        elif isinstance(folder, Obstacle):
            yield Cell(client, server, case, folder.outcome, folder.reason)
        elif isinstance(port, Obstacle):
            yield Cell(client, server, case, port.outcome, port.reason)
        else:
            yield _run_cell(client, server, case, folder, port)


def _run_cell(client: str, server: str, case: str, folder: Path, port: int) -> Cell:
    peer = PEERS[client]
    done = support.run("grpc-client", peer.client(folder, port, case), limit=CLIENT_LIMIT, env=peer.env(folder))
    seconds = round(done.seconds, 3)
    if done.code == 0:
        return Cell(client, server, case, "ok", seconds=seconds)
    return Cell(client, server, case, "FAIL", f"{done.verdict}\n{done.tail}", seconds)


def _progress(client: str, server: str, cells: Sequence[Cell]) -> str:
    counts = tally(cells)
    return f"{client} -> {server}: {counts} ({sum(cell.seconds for cell in cells):.1f} s)"


# --- report -------------------------------------------------------------------------------------------------------------------


def tally(cells: Sequence[Cell]) -> support.Tally:
    outcomes = [cell.outcome for cell in cells]
    return support.Tally(outcomes.count("ok"), outcomes.count("FAIL"), outcomes.count("skip"))


def render(cells: Sequence[Cell]) -> str:
    """A table of cases x servers for each client, the reasons of what was skipped, the output of what failed."""
    parts = [_client_table(client, cells) for client in dict.fromkeys(cell.client for cell in cells)]
    parts += filter(None, (_skips(cells), _failures(cells)))
    return "\n\n".join(parts)


def _client_table(client: str, cells: Sequence[Cell]) -> str:
    mine = {(cell.case, cell.server): cell.outcome for cell in cells if cell.client == client}
    servers = list(dict.fromkeys(server for _, server in mine))
    cases = list(dict.fromkeys(case for case, _ in mine))
    rows = [[case, *(mine[case, server] for server in servers)] for case in cases]
    return support.table([[f"{client} client to", *servers], *rows])


def _skips(cells: Sequence[Cell]) -> str:
    reasons: dict[str, int] = {}
    for cell in cells:
        if cell.outcome == "skip":
            reasons[cell.reason] = reasons.get(cell.reason, 0) + 1
    return "\n".join(f"skip: {reason} ({count})" for reason, count in reasons.items())


def _failures(cells: Sequence[Cell]) -> str:
    """Failed cells with the same reason (a server that did not start) are told once."""
    groups: dict[str, list[str]] = {}
    for cell in cells:
        if cell.outcome == "FAIL":
            groups.setdefault(cell.reason, []).append(f"FAIL {cell.client} -> {cell.server} {cell.case}")
    return "\n".join("\n".join([*names, support.indented(reason)]) for reason, names in groups.items())


def as_json(cells: Sequence[Cell], via: str) -> dict[str, object]:
    """The run as data: the versions of the peers, the counts, every cell."""
    names = dict.fromkeys(name for cell in cells for name in (cell.client, cell.server))
    versions = {name: PEERS[name].version for name in names}
    return {"via": via, "versions": versions, **asdict(tally(cells)), "cells": [asdict(cell) for cell in cells]}
