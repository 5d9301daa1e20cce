"""What the policies buy under faults, in simulation: each claim of ``docs/reliability.md`` as an assertion."""

from __future__ import annotations

from math import log

import pytest

from tests.simulation import scenarios
from tests.simulation.routing import Policies
from tests.simulation.scenarios import BY_NAME, FAULT, MACHINES, PATIENCE, WORK, Scenario, run
from tests.simulation.world import play

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("simulation")]  # runs are shared
BUDGET = 0.2  # percentCanRetry
RESERVE = 100  # minRetriesPerSec x ttlSecs


def served_p99() -> float:
    """p99 of a call that never waits for a worker: nothing can be better."""
    return WORK + WORK * log(100)


@pytest.mark.parametrize("kind", BY_NAME["calm"].variants)
def test_calm(kind: str) -> None:
    calm = run("calm", kind)
    assert calm.success() == 1
    assert calm.band < 1.1
    assert calm.latency(0.99) < served_p99() * (1.03 if kind == "heap" else 1.1)


def test_shares_are_exact_by_turns_and_close_by_load() -> None:
    assert run("calm", "roundRobin").band < 1.01
    assert run("calm", "p2c").band < 1.05
    assert run("calm", "heap").band < 1.06


def test_one_slow_endpoint_is_avoided_by_load_and_more_by_latency() -> None:
    tails = {kind: run("slow", kind).latency(0.999) for kind in ("p2c", "ewma")}
    assert run("slow", "roundRobin").success() < 0.96  # a twentieth waits in vain
    assert run("slow", "p2c").success() > 0.999
    assert run("slow", "ewma").success() > 0.9995
    assert tails["p2c"] > 1.0
    assert tails["ewma"] < 1.1 * run("calm", "ewma").latency(0.999)
    assert run("slow", "ewma").latency(0.99) < 1.05 * run("calm", "ewma").latency(0.99)


def test_hedging_cuts_the_tail_for_five_per_cent_more_calls() -> None:
    hedged = run("slow", "p2c, hedging")
    assert hedged.success() == 1
    assert hedged.latency(0.999) < 0.25 * run("slow", "p2c").latency(0.999)
    assert 1.03 < hedged.amplification < 1.06


def test_who_fails_fast_attracts_p2c_and_not_ewma() -> None:
    assert run("failing", "p2c").success() < run("failing", "roundRobin").success() < 0.955
    assert run("failing", "ewma").success() > 0.996


def test_accrual_and_retries_make_up_for_who_fails_fast() -> None:
    assert run("failing", "p2c, accrual").success() > 0.999
    both = run("failing", "p2c, retries, accrual")
    assert both.success() == 1
    assert both.amplification < 1.002 < 1.05 < run("failing", "p2c, retries").amplification < 1 + BUDGET


def test_rates_find_what_consecutive_failures_do_not() -> None:
    bare, row, rate = (run("flaky", name) for name in ("p2c", "p2c, consecutiveFailures", "p2c, successRateWindowed"))
    assert 1 - rate.success() < 0.4 * (1 - row.success()) < 0.4 * (1 - bare.success())
    assert run("flaky", "p2c, retries").success() == 1


def test_a_rolling_restart_is_not_seen_by_who_may_be_retried() -> None:
    assert run("rolling", "p2c").success() > 0.997  # what never arrived is sent elsewhere
    for name in ("p2c, retries", "p2c, retries, accrual"):
        assert run("rolling", name).success() == 1
        assert run("rolling", name).amplification < 1.005


def test_accrual_spares_connections_to_who_restarts() -> None:
    def connects(name: str) -> int:
        return sum(machine.connects for machine in run("rolling", name).machines)

    assert connects("p2c, failFast") < connects("p2c, retries, accrual") < connects("p2c, retries")


def test_a_black_hole_needs_a_timeout_an_accrual_and_retries() -> None:
    assert run("blackhole", "roundRobin").success() < 0.92
    assert run("blackhole", "p2c").success() < 0.99
    assert run("blackhole", "p2c, accrual").success() == run("blackhole", "p2c").success()  # clients' deadlines eject nobody
    timed = run("blackhole", "p2c, attempts ≤ 300 ms, retries")
    both = run("blackhole", "p2c, attempts ≤ 300 ms, retries, accrual")
    assert timed.success() == both.success() == 1
    assert both.latency(0.99) < 0.5 * timed.latency(0.99)


def test_retries_within_the_budget_do_not_keep_an_overload_going() -> None:
    calls = run("overload", "retries, default budget")
    end = BY_NAME["overload"].seconds
    assert run("overload", "no retries").success(end - 10, end) > 0.999
    assert calls.success(end - 2, end) > 0.999
    assert calls.amplification < 1.1  # of which the first seconds of the surge have most


def test_retries_without_a_budget_keep_an_overload_going_for_ever() -> None:
    assert run("overload", "retries without a budget").success(BY_NAME["overload"].seconds - 6) < 0.01


def test_an_adaptive_limit_keeps_an_overload_short() -> None:
    limited = run("overload", "retries, default budget, adaptive limit")
    assert limited.success(FAULT, FAULT + 3) > 0.6  # of 1.5 times what can be done
    assert limited.success(FAULT + 4, limited.seconds) > 0.999
    assert limited.latency(0.99) < 0.25


@pytest.mark.parametrize("name", ["p2c, accrual", "p2c, retries, accrual", "ewma, retries, accrual"])
def test_a_third_of_the_endpoints_may_die_at_once(name: str) -> None:
    died = run("correlated", name)
    assert died.success() > 0.999
    assert died.amplification < 1.01
    assert died.latency(0.99) < 1.25 * run("calm", "p2c").latency(0.99)  # on two thirds of the capacity


@pytest.mark.parametrize("name", BY_NAME["alldead"].variants)
def test_all_endpoints_may_die_and_are_all_in_use_at_once_when_they_return(name: str) -> None:
    returned = FAULT + 3
    dead = run("alldead", name)
    assert dead.success(FAULT + 1, returned - 0.1) == 0
    assert dead.success(returned + 1, dead.seconds) > 0.999
    assert dead.latency(0.999) < 3 * run("calm", "p2c").latency(0.999)
    assert dead.band < 1.3
    assert sum(machine.connects for machine in dead.machines) < 12 * MACHINES


@pytest.mark.parametrize(("name", "variant"), [(name, variant) for name in BY_NAME for variant in BY_NAME[name].variants])
def test_amplification_stays_within_the_budget(name: str, variant: str) -> None:
    played = run(name, variant)
    if BY_NAME[name].variants[variant].budget.percent_can_retry == BUDGET:
        seconds = played.seconds + PATIENCE
        assert played.amplification <= 1 + BUDGET + RESERVE * (1 + seconds / 10) / len(played.seen)


def test_a_seed_means_one_run() -> None:
    scenario = Scenario("short", "", BY_NAME["rolling"].faults, {}, window=(0, 6), seconds=6.0)
    policies = Policies(retries=True)
    runs = [play(scenarios.SEED, lambda world: scenarios.perform(world, scenario, policies)) for _ in range(2)]
    assert runs[0].seen == runs[1].seen
    assert runs[0].counters == runs[1].counters
    assert len(runs[0].seen) > scenarios.CAPACITY / 2 * 5
