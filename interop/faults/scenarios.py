"""What is done to the backends, and what their clients may notice of it.

Each scenario returns what it saw, in a few words, or raises `Broken`. The controls show the same faults without the router's
help: they must be noticed, or the load would show nothing.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from interop.faults.stage import ATTEMPT, PROBE, TOTAL, Call, Load, Stage

SLACK = 0.35  # seconds by which a busy machine may be late
RETURN = PROBE + 1.0  # seconds within which a backend that is back is served from again: its probe, and a busy machine
DOWN = 0.7  # seconds for which a fault lasts


class Broken(Exception):
    """What should not have been seen."""


@dataclass(frozen=True)
class Scenario:
    """`quick`: part of the short form."""

    name: str
    run: Callable[[Stage], str]
    quick: bool = False


def _check(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Broken(otherwise)


def _all_good(stage: Stage, load: Load) -> str:
    """Every call went well; how many, and how long the slowest took."""
    calls = load.calls()
    outcomes = Counter(call.outcome for call in calls)
    _check(set(outcomes) == {stage.peer.good}, f"failures: {dict(outcomes)}")
    return f"{len(calls)} calls, all good, slowest {max(call.took for call in calls) * 1000:.0f} ms"


def _some_failed(stage: Stage, load: Load) -> str:
    calls = load.calls()
    failed = Counter(call.outcome for call in calls if call.outcome != stage.peer.good)
    _check(bool(failed), f"none of {len(calls)} calls failed: this load cannot show a fault")
    return f"{failed.total()} of {len(calls)} calls failed: {', '.join(sorted(failed))}"


def _share(calls: list[Call], name: str) -> float:
    return sum(call.served_by == name for call in calls) / max(1, len(calls))


def _returns(load: Load, name: str, since: float) -> float:
    """Seconds until a backend serves again; raises `Broken` after `RETURN`."""

    def found(calls: list[Call]) -> bool:
        return any(call.served_by == name and call.began >= since for call in calls)

    _check(load.until(found, RETURN + SLACK), f"{name} is back, but was not served from within {RETURN:.1f} s")
    first = min(call.began for call in load.calls() if call.served_by == name and call.began >= since)
    _check(first - since <= RETURN, f"{name} came back after {first - since:.2f} s")
    return first - since


def killed(stage: Stage) -> str:
    with stage.loaded("guarded") as load:
        stage.backends[0].kill()
        time.sleep(DOWN)
        stage.backends[0].start()
        back = _returns(load, "a", time.monotonic())
    return f"{_all_good(stage, load)}; back after {back:.2f} s"


def killed_bare(stage: Stage) -> str:
    with stage.loaded("bare") as load:
        stage.backends[0].kill()
        time.sleep(DOWN / 2)
    return _some_failed(stage, load)


def restarted(stage: Stage) -> str:
    backs = []
    with stage.loaded("guarded") as load:
        for backend in stage.backends:
            backend.kill()
            time.sleep(DOWN / 2)
            backend.start()
            backs.append(_returns(load, backend.name, time.monotonic()))
    return f"{_all_good(stage, load)}; back after {', '.join(f'{back:.2f}' for back in backs)} s"


def paused(stage: Stage) -> str:
    with stage.loaded("guarded") as load:
        stage.backends[1].tell(signal.SIGSTOP)
        time.sleep(DOWN + ATTEMPT)
        stage.backends[1].tell(signal.SIGCONT)
        back = _returns(load, "b", time.monotonic())
    return f"{_all_good(stage, load)}; back after {back:.2f} s"


def paused_bare(stage: Stage) -> str:
    with stage.loaded("bare") as load:
        stage.backends[1].tell(signal.SIGSTOP)
        time.sleep(DOWN)
        stage.backends[1].tell(signal.SIGCONT)
    calls = load.calls()
    slow = sum(call.took > ATTEMPT for call in calls)
    _check(slow > 0, "no call hung: this load cannot show a pause")
    return f"{slow} of {len(calls)} calls hung, for up to {max(call.took for call in calls) * 1000:.0f} ms"


def slowed(stage: Stage) -> str:
    with stage.loaded("by latency") as load:
        stage.backends[2].tell(signal.SIGUSR1)
        time.sleep(DOWN * 2)
    good = _all_good(stage, load)
    calls = load.calls()
    share = _share(calls[len(calls) // 2 :], "c")
    _check(share < 0.25, f"the slow backend had {share:.0%} of the calls")
    return f"{good}; the slow one had {share:.0%} of them"


def slowed_bare(stage: Stage) -> str:
    with stage.loaded("bare") as load:
        stage.backends[2].tell(signal.SIGUSR1)
        time.sleep(DOWN)
    calls = [call for call in load.calls() if call.began >= load.began]
    share = _share(calls, "c")
    _check(share > 0.28, f"the slow backend had {share:.0%} of the calls without any help")
    return f"the slow one had {share:.0%} of {len(calls)} calls"


def drained(stage: Stage) -> str:
    """Needs neither retries by policy nor accrual, except that an idle HTTP/1.1 connection may be closed under a request."""
    with stage.loaded("guarded" if stage.peer.protocol == "http" else "bare") as load:
        stage.backends[0].tell(signal.SIGTERM)
        stage.backends[0].wait()
        gone = time.monotonic()
        time.sleep(DOWN / 2)
    good = _all_good(stage, load)
    late = [call for call in load.calls() if call.served_by == "a" and call.began > gone]
    _check(not late, f"{len(late)} calls were served by a process that is gone")
    return good


def all_paused(stage: Stage) -> str:
    with stage.loaded("limited") as load:
        for backend in stage.backends:
            backend.tell(signal.SIGSTOP)
        began = time.monotonic()
        time.sleep(TOTAL + SLACK + DOWN / 2)
        for backend in stage.backends:
            backend.tell(signal.SIGCONT)
    calls = [call for call in load.calls() if began <= call.began <= began + DOWN / 2]
    outcomes = Counter(call.outcome for call in calls)
    _check(set(outcomes) == {stage.peer.late}, f"outcomes: {dict(outcomes)}")
    longest, shortest = max(call.took for call in calls), min(call.took for call in calls)
    in_time = shortest >= TOTAL - 0.02 and longest <= TOTAL + SLACK
    _check(in_time, f"calls of {TOTAL} s took {shortest:.2f} to {longest:.2f} s")
    return f"{len(calls)} calls ended with {stage.peer.late} after {shortest:.2f} to {longest:.2f} s"


SCENARIOS = (
    Scenario("slowed", slowed),
    Scenario("slowed without help", slowed_bare),
    Scenario("killed", killed, quick=True),
    Scenario("killed without help", killed_bare, quick=True),
    Scenario("restarted in turn", restarted),
    Scenario("paused", paused, quick=True),
    Scenario("paused without help", paused_bare),
    Scenario("drained", drained, quick=True),
    Scenario("all paused", all_paused, quick=True),
)
