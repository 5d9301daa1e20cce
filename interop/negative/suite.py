"""Run the cells: every probe with each of its clients, through one proxy after the other.

Cells run one at a time. Each begins with fresh backend connections and ends when the backend has seen what it must, or after
`SETTLE` seconds without that. A cell that fails is run once more, since a busy machine can be late for any time limit; what
passes then is said to have passed at the second attempt.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from interop import _support as support
from interop.negative.backend1 import Backend1, Script1
from interop.negative.backend2 import Backend, Record
from interop.negative.clients.drivers import STARTERS, Ask, Stuck
from interop.negative.fronts import FRONTS, Ports
from interop.negative.probing import Answer, Probe

SETTLE = 2.0
PROBE_LIMIT = 120.0


@dataclass(frozen=True)
class Cell:
    """`outcome` is ok, FAIL or skip; `reason` says why not ok."""

    front: str
    probe: str
    client: str
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Obstacle:
    """Why a client or a front cannot take part."""

    outcome: str
    reason: str


async def run(
    fronts: Sequence[str], probes: Sequence[Probe], clients: Sequence[str], progress: Callable[[str], None]
) -> list[Cell]:
    """The outcome of every cell; `progress` gets a line for every front and every failure."""
    backends = {"h2": Backend(0), "h1": Backend1(0)}
    for backend, port in zip(backends.values(), support.free_ports(2), strict=True):
        backend.port = port
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        stack.callback(nursery.cancel_scope.cancel)
        for backend in backends.values():
            await backend.run(nursery)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waypost-negative-")))
        asks = {name: await _start_client(stack, name, scratch) for name in clients}
        cells: list[Cell] = []
        for front in fronts:
            mine = [cell async for cell in _through(front, backends, probes, clients, asks, scratch, progress)]
            progress(f"{front}: {tally(mine)}")
            cells += mine
    return cells


async def _start_client(stack: AsyncExitStack, name: str, scratch: Path) -> Ask | Obstacle:
    folder = scratch / name
    folder.mkdir()
    try:
        return await stack.enter_async_context(STARTERS[name](folder))
    except support.Unavailable as error:
        return Obstacle("skip", str(error))
    except support.BuildError as error:
        return Obstacle("FAIL", f"build: {error}")


async def _through(
    front: str,
    backends: Mapping[str, Backend],
    probes: Sequence[Probe],
    clients: Sequence[str],
    asks: Mapping[str, Ask | Obstacle],
    scratch: Path,
    progress: Callable[[str], None],
) -> object:
    with ExitStack() as stack:
        ports = _start_front(stack, front, scratch, backends)
        for probe in probes:
            for client in probe.clients:
                if client not in clients:
                    continue
                for attempt in (1, 2):
                    cell = await _cell(front, ports, probe, client, asks[client], backends)
                    if cell.outcome != "FAIL" or isinstance(ports, Obstacle):
                        break
                    progress(f"FAIL {front}: {probe.name}: {client}, attempt {attempt}: {cell.reason}")
                    if not _listens(ports[probe.way]):
                        cell = replace(cell, reason=f"{cell.reason}; the proxy ended")
                        stack.close()
                        ports = _start_front(stack, front, scratch, backends)
                if cell.outcome == "ok" and attempt == 2:
                    cell = replace(cell, reason="at the second attempt")
                yield cell


def _start_front(stack: ExitStack, front: str, scratch: Path, backends: Mapping[str, Backend]) -> Ports | Obstacle:
    folder = Path(tempfile.mkdtemp(prefix=f"{front}-", dir=scratch))
    try:
        return stack.enter_context(FRONTS[front](folder, backends["h2"].port, backends["h1"].port))
    except support.Unavailable as error:
        return Obstacle("skip", str(error))
    except (support.StartError, support.BuildError) as error:
        return Obstacle("FAIL", str(error))


def _listens(port: int | str) -> bool:
    """Whether the proxy is still there, for the way that has a port."""
    if isinstance(port, str):
        return True
    try:
        socket.create_connection((support.LOOPBACK, port), timeout=1.0).close()
    except OSError:
        return False
    return True


async def _cell(
    front: str, ports: Ports | Obstacle, probe: Probe, client: str, ask: Ask | Obstacle, backends: Mapping[str, Backend]
) -> Cell:
    for obstacle in (ask, ports):
        if isinstance(obstacle, Obstacle):
            return Cell(front, probe.name, client, obstacle.outcome, obstacle.reason)
    assert not isinstance(ports, Obstacle)
    port = ports[probe.way]
    if isinstance(port, str):
        return Cell(front, probe.name, client, "skip", port)
    if client in probe.skip:
        return Cell(front, probe.name, client, "skip", f"{client}: {probe.skip[client]}")
    backend = backends["h1" if isinstance(probe.backend, Script1) or probe.way in ("h1", "h2-h1") else "h2"]
    record = await backend.play(probe.backend)
    try:
        with trio.fail_after(PROBE_LIMIT):
            answers = await ask(port, probe.calls, probe.parallel)
    except (Stuck, trio.TooSlowError) as error:
        return Cell(front, probe.name, client, "FAIL", f"client: {error or 'hangs'}")
    wrong = await _settle(probe, answers, record)
    return Cell(front, probe.name, client, "FAIL" if wrong else "ok", "; ".join(wrong))


async def _settle(probe: Probe, answers: Sequence[Answer], record: Record) -> list[str]:
    """What is otherwise than expected; what the backend must see may take a moment."""
    deadline = trio.current_time() + SETTLE
    while True:
        backend = [f"backend: {text}" for text in _otherwise(probe.backend_sees, answers, record)]
        backend += [f"backend: {text}" for text in dict.fromkeys(record.errors)]
        if not backend or trio.current_time() > deadline:
            break
        await trio.sleep(0.02)
    client = [f"client: {text}" for text in _otherwise(probe.client_sees, answers, record)]
    if len(answers) != len(probe.calls):
        client.insert(0, f"client: {len(answers)} answers for {len(probe.calls)} calls")
    return client + backend


def _otherwise(expected: Sequence[object], answers: Sequence[Answer], record: Record) -> Iterator[str]:
    for expect in expected:
        found = expect.check(answers, record)  # type: ignore[attr-defined]
        if found is not None:
            yield found


def tally(cells: Sequence[Cell]) -> support.Tally:
    outcomes = [cell.outcome for cell in cells]
    return support.Tally(outcomes.count("ok"), outcomes.count("FAIL"), outcomes.count("skip"))
