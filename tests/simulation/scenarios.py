"""What goes wrong, and the policies that are tried against it.

Unless a scenario says otherwise there are ``MACHINES`` endpoints with ``WORKERS`` workers each; a call takes 25 ms and an
exponentially distributed rest of 25 ms on average, which makes a capacity of 800 requests a second, of which half is asked for,
at random moments, for ``SECONDS``. What goes wrong begins after ``FAULT`` seconds. Clients wait for ``PATIENCE`` seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import attrs

from router.filters.adaptive import AdaptiveConfig
from router.filters.budget import BudgetConfig
from router.filters.hedge import HedgePolicy
from tests.simulation.endpoints import Machine
from tests.simulation.report import Run
from tests.simulation.routing import Policies, Router
from tests.simulation.traffic import Traffic
from tests.simulation.world import World, play

SEED = 2
MACHINES, WORKERS = 20, 2
SECONDS, FAULT, PATIENCE = 25.0, 4.0, 2.0
WORK = 0.025  # seconds, twice
CAPACITY = MACHINES * WORKERS / (2 * WORK)
CONSECUTIVE = "io.l5d.consecutiveFailures"
Farm = list[Machine]


@attrs.frozen
class Scenario:
    """``faults(world, machines)`` plans what happens; ``variants``: policies by name. Figures are about requests that began in
    ``window``. ``fault``: from when to when something is wrong. ``panels``: what the plot shows."""

    name: str
    title: str
    faults: Callable[[World, Farm], None]
    variants: dict[str, Policies]
    window: tuple[float, float] = (FAULT, SECONDS)
    panels: tuple[str, ...] = ("success", "p99")
    rate: Callable[[float], float] = lambda _: CAPACITY / 2
    machines: int = MACHINES
    workers: int = WORKERS
    seconds: float = SECONDS
    fault: tuple[float, float] | None = (FAULT, SECONDS)

    @property
    def capacity(self) -> float:
        """Requests a second that the endpoints can serve."""
        return self.machines * self.workers / (2 * WORK)


def calm(world: World, machines: Farm) -> None:
    """Nothing goes wrong."""


def one_slow(world: World, machines: Farm) -> None:
    """One endpoint becomes twenty times as slow."""
    world.at(FAULT, lambda _: setattr(machines[2], "slowness", 20.0))


def one_failing_fast(world: World, machines: Farm) -> None:
    """One endpoint answers 503 within a millisecond."""
    world.at(FAULT, lambda _: setattr(machines[2], "failing", 1.0))


def one_flaky(world: World, machines: Farm) -> None:
    """One endpoint answers a third of its calls with 503."""
    world.at(FAULT, lambda _: setattr(machines[2], "failing", 1 / 3))


def rolling_restart(world: World, machines: Farm) -> None:
    """One endpoint after the other is killed, and is back after 800 ms; every second the next."""
    for at, machine in enumerate(machines):
        world.at(FAULT + at, lambda _, machine=machine: machine.stop())
        world.at(FAULT + at + 0.8, lambda _, machine=machine: machine.start())


def black_hole(world: World, machines: Farm) -> None:
    """Three endpoints accept everything and answer nothing, for 12 s."""
    for machine in machines[:3]:
        world.at(FAULT, lambda _, machine=machine: setattr(machine, "silent", True))
        world.at(FAULT + 12, lambda _, machine=machine: setattr(machine, "silent", False))


def third_gone(world: World, machines: Farm) -> None:
    """A third of the endpoints is killed at once, and is back after 12 s."""
    for machine in machines[: len(machines) // 3]:
        world.at(FAULT, lambda _, machine=machine: machine.stop())
        world.at(FAULT + 12, lambda _, machine=machine: machine.start())


def all_gone(world: World, machines: Farm) -> None:
    """All endpoints are killed at once, and are back after 3 s."""
    for machine in machines:
        world.at(FAULT, lambda _, machine=machine: machine.stop())
        world.at(FAULT + 3, lambda _, machine=machine: machine.start())


def surge(time: float) -> float:
    """80 % of the capacity, for three seconds 150 %, then 80 % again."""
    return CAPACITY / 2 * (1.5 if FAULT <= time < FAULT + 3 else 0.8)


NO_BUDGET = BudgetConfig(min_retries_per_sec=1_000_000, percent_can_retry=1000)
BOTH = Policies(retries=True, accrual=CONSECUTIVE)
TIMED = attrs.evolve(BOTH, attempt_timeout=0.3)
TAIL = ("tail", "p99")

SCENARIOS = [
    Scenario(
        "calm", "All is well", calm,
        {kind: Policies(kind) for kind in ("roundRobin", "p2c", "ewma", "heap", "aperture")},
        panels=("tail", "shares"), rate=lambda _: CAPACITY * 0.7, fault=None,
    ),
    Scenario(
        "slow", "One of twenty endpoints becomes 20 times as slow", one_slow,
        {
            "roundRobin": Policies("roundRobin"),
            "p2c": Policies("p2c"),
            "ewma": Policies("ewma"),
            "p2c, hedging": Policies("p2c", retries=True, hedge=HedgePolicy(percentile=95)),
            "p2c, attempts ≤ 300 ms, retries, accrual": TIMED,
        },
        panels=TAIL,
    ),
    Scenario(
        "failing", "One of twenty endpoints fails at once", one_failing_fast,
        {
            "roundRobin": Policies("roundRobin"),
            "p2c": Policies(),
            "ewma": Policies("ewma"),
            "p2c, accrual": Policies(accrual=CONSECUTIVE),
            "p2c, retries": Policies(retries=True),
            "p2c, retries, accrual": BOTH,
        },
    ),
    Scenario(
        "flaky", "One of twenty endpoints fails every third call", one_flaky,
        {
            "p2c": Policies(),
            "p2c, consecutiveFailures": Policies(accrual=CONSECUTIVE),
            "p2c, successRateWindowed": Policies(
                accrual="io.l5d.successRateWindowed", accruing={"success_rate": 0.8, "window": 10}
            ),
            "ewma": Policies("ewma"),
            "p2c, retries": Policies(retries=True),
        },
    ),
    Scenario(
        "rolling", "One endpoint after the other restarts", rolling_restart,
        {
            "p2c": Policies(),
            "p2c, failFast": Policies(accrual=CONSECUTIVE, fail_fast=True),
            "p2c, retries": Policies(retries=True),
            "p2c, retries, accrual": BOTH,
        },
    ),
    Scenario(
        "blackhole", "Three of twenty endpoints accept and never answer", black_hole,
        {
            "roundRobin": Policies("roundRobin"),
            "p2c": Policies(),
            "p2c, accrual": Policies(accrual=CONSECUTIVE),
            "p2c, attempts ≤ 300 ms, retries": attrs.evolve(TIMED, accrual=None),
            "p2c, attempts ≤ 300 ms, retries, accrual": TIMED,
            "p2c, hedging": Policies(retries=True, hedge=HedgePolicy(percentile=95)),
        },
        fault=(FAULT, FAULT + 12),
    ),
    Scenario(
        "overload", "More than can be done, for three seconds", calm,
        {
            "no retries": Policies(attempt_timeout=0.5),
            "retries, default budget": Policies(attempt_timeout=0.5, retries=True),
            "retries without a budget": Policies(attempt_timeout=0.5, retries=True, budget=NO_BUDGET),
            "retries, default budget, adaptive limit": Policies(attempt_timeout=0.5, retries=True, adaptive=AdaptiveConfig()),
        },
        rate=surge, panels=("goodput", "calls"), machines=MACHINES // 2, fault=(FAULT, FAULT + 3),
    ),
    Scenario(
        "correlated", "A third of the endpoints dies at once", third_gone,
        {
            "p2c": Policies(),
            "p2c, accrual": Policies(accrual=CONSECUTIVE),
            "p2c, retries, accrual": BOTH,
            "ewma, retries, accrual": attrs.evolve(BOTH, balancer="ewma"),
        },
        fault=(FAULT, FAULT + 12),
    ),
    Scenario(
        "alldead", "All endpoints die and come back", all_gone,
        {
            "p2c": Policies(),
            "p2c, retries, accrual": BOTH,
            "roundRobin, retries, accrual": attrs.evolve(BOTH, balancer="roundRobin"),
        },
        fault=(FAULT, FAULT + 3),
    ),
]  # fmt: skip
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@cache
def run(name: str, variant: str) -> Run:
    """Play one variant of one scenario; figures that were asked for before are kept."""
    scenario = BY_NAME[name]
    return play(SEED, lambda world: perform(world, scenario, scenario.variants[variant]))


async def perform(world: World, scenario: Scenario, policies: Policies) -> Run:
    """One run of a scenario, from the first request to the last answer."""

    def seconds() -> float:
        return WORK + world.rng.expovariate(1 / WORK)

    machines = [Machine(world, at + 1, scenario.workers, seconds) for at in range(scenario.machines)]
    router = Router(world, machines, policies)
    traffic = Traffic(world, router.core.route, scenario.rate, PATIENCE)
    scenario.faults(world, machines)
    traffic.begin(scenario.seconds)
    await world.advance(scenario.seconds + PATIENCE + 1)
    router.core.close()
    return Run(traffic.seen, machines, router.metrics.flat(), scenario.window, scenario.seconds)
