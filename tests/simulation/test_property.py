"""Whatever fails when: every exchange ends once, with one outcome, and nothing is left of it."""

from __future__ import annotations

import re
from itertools import cycle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.bind.segments import SERVER, ServerParams
from router.filters.budget import BudgetConfig
from router.filters.deadline import DeadlineConfig, Deadlines
from router.filters.hedge import HedgePolicy
from router.model.stack import Stack
from router.model.timers import TICK
from tests.simulation.chaos import Chaos, Client, Plan
from tests.simulation.endpoints import Machine
from tests.simulation.routing import BALANCERS, Policies, Router
from tests.simulation.world import World, play

ANSWERS = ["ok", "body", "body late", "trailers", "bad trailers", "at once", "slow", "never", "500", "503 body late",
           "503 endless", "429", "reset", "reset within", "refused", "goaway", "lost"]  # fmt: skip
CONNECTS = ["ok", "ok", "ok", "slow", "refused", "hang", "dies"]
ENDPOINTS = 3

moments = st.floats(0, 0.6)
plans = st.builds(
    Plan,
    at=st.floats(0, 1.5),
    method=st.sampled_from([b"GET", b"POST"]),
    grpc=st.booleans(),
    chunks=st.none() | st.lists(st.sampled_from([0.0, 0.001, 0.004, 0.02, 0.3]), min_size=1, max_size=4).map(sorted).map(tuple),
    gone=st.none() | moments,
    patience=st.none() | st.floats(0.001, 0.6),
    late=st.booleans(),
)
policies = st.builds(
    Policies,
    balancer=st.sampled_from(sorted(BALANCERS)),
    retries=st.booleans(),
    budget=st.sampled_from([BudgetConfig(), BudgetConfig(0, 0.0), BudgetConfig(1, 0.5)]),
    requeues=st.sampled_from([BudgetConfig(), BudgetConfig(0, 0.0)]),
    max_retries=st.integers(0, 4),
    accrual=st.sampled_from([None, "io.l5d.consecutiveFailures"]),
    accruing=st.just({"failures": 2}),
    fail_fast=st.booleans(),
    attempt_timeout=st.none() | st.sampled_from([0.01, 0.1]),
    total_timeout=st.none() | st.sampled_from([0.05, 0.3]),
    hedge=st.none() | st.builds(HedgePolicy, delay=st.sampled_from([0.001, 0.01, 0.1])),
)
subsets = st.sets(st.integers(0, ENDPOINTS - 1))


class Trial:
    """One schedule against one router."""

    def __init__(
        self, world: World, policies: Policies, net: Chaos, plans: list[Plan], changes: list[tuple[float, Any]]
    ) -> None:
        self.world, self.net = world, net
        self.machines = [Machine(world, at + 1, 1, lambda: 0.0) for at in range(ENDPOINTS)]
        self.router = Router(world, self.machines, policies, net.connect)
        self.metrics = self.router.metrics.scope("server")
        params = ServerParams(self.metrics, 10, Deadlines(DeadlineConfig(), self.metrics), None)
        service = Stack(SERVER.modules).make(params, self.router.core.route)
        self.clients = [Client(world, net.account, service, plan) for plan in plans]
        self.targets: dict[int, Any] = {}
        for at, which in changes:
            world.at(at, self._change, which)

    def _change(self, which: set[int]) -> None:
        self._note()
        self.router.discover([self.machines[at] for at in which])

    def _note(self) -> None:
        for client in self.router.core.clients.values():
            self.targets.update({id(target): target for target in client.balancer.targets})

    async def run(self) -> None:
        await self.world.advance(3.0)
        for client in self.clients:  # streams that nothing limits end with their client
            client._leave(None)
        await self.world.advance(5.0)
        self._note()

    def check(self) -> None:
        flat = self.router.metrics.flat()
        for client in self.clients:
            assert client.done == 1
            assert client.finished, "a client that was told nothing"
            assert len(set(re.findall(rb"<\d+>", client.got))) <= 1, "two attempts in one answer"
            if client.plan.patience is not None:
                assert client.over_at <= client.plan.at + client.plan.patience + 2 * TICK
            assert client.sink is client.source is None
        assert {name: value for name, value in flat.items() if name.endswith(("pending", "load")) and value} == {}
        assert flat.get("server/requests", 0) == len(self.clients)
        assert len(self.clients) == sum(flat.get(f"server/{name}", 0) for name in ("success", "failures", "cancelled"))
        assert self.net.account.received == self.net.account.credited
        for target in self.targets.values():
            assert target.load == 0
            assert target.pool.waiting == 0
        assert not any(session.running for session in self.net.sessions)
        assert all(value <= 100 + len(self.clients) for name, value in flat.items() if name.endswith("budget"))
        self.router.core.close()
        assert self.world.host.timers.pending() == 0


async def perform(
    world: World, policies: Policies, connects: list[str], answers: list[str], streams: int, plans: list[Plan], changes: Any
) -> None:
    trial = Trial(world, policies, Chaos(world, cycle(connects), cycle(answers), streams), plans, changes)
    await trial.run()
    trial.check()
    await world.advance(world.time + 0.01)
    assert world.tasks.alive == 0
    assert all(session.closed for session in trial.net.sessions)


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    policies,
    st.lists(st.sampled_from(CONNECTS), min_size=1, max_size=5),
    st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=12),
    st.sampled_from([1, 2, 100]),
    st.lists(plans, min_size=1, max_size=12),
    st.lists(st.tuples(st.floats(0, 1.5), subsets), max_size=3),
)
def test_any_schedule(policies: Any, connects: Any, answers: Any, streams: int, plans: Any, changes: Any) -> None:
    play(1, lambda world: perform(world, policies, connects, answers, streams, plans, changes))
