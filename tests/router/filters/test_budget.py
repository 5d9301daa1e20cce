"""Retry budgets: Linkerd's figures, and that no schedule gets more than its share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.filters.budget import Budget, BudgetConfig


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_the_default_starts_with_a_hundred_and_five_requests_earn_one() -> None:
    clock = Clock()
    budget = Budget(BudgetConfig(), clock)
    assert budget.balance == 100
    for _ in range(10):
        budget.deposit(clock())
    assert budget.balance == 102


def test_half_of_the_requests() -> None:
    clock = Clock()
    budget = Budget(BudgetConfig(0, 0.5), clock)
    balances = []
    for _ in range(4):
        budget.deposit(clock())
        balances.append(budget.balance)
    assert balances == [0, 1, 1, 2]
    assert budget.withdraw()
    assert budget.withdraw()
    assert not budget.withdraw()
    assert budget.balance == 0


def test_deposits_are_forgotten_and_so_are_withdrawals() -> None:
    clock = Clock()
    budget = Budget(BudgetConfig(1, 1.0, ttl_secs=10), clock)
    for _ in range(20):
        budget.deposit(clock())
    assert budget.balance == 30
    clock.time += 5
    for _ in range(25):
        assert budget.withdraw()
    assert budget.balance == 5
    clock.time += 6
    assert not budget.withdraw()  # 20 deposits are gone, 25 withdrawals are not
    clock.time += 60
    assert budget.balance == 10


def test_who_fails_takes_his_deposit_back_as_long_as_it_is_there() -> None:
    clock = Clock()
    budget = Budget(BudgetConfig(0, 0.5, ttl_secs=10), clock)
    for _ in range(10):
        budget.deposit(clock())
    since = clock()
    for _ in range(4):
        budget.revoke(since)
    assert budget.balance == 3
    clock.time += 5
    for _ in range(6):
        budget.revoke(since)
    assert budget.balance == 0
    clock.time += 5
    budget.revoke(since)  # that deposit is forgotten
    for _ in range(20):
        budget.deposit(clock())
    clock.time += 6
    assert budget.balance == 10


@pytest.mark.parametrize(("share", "least", "balance"), [(0.0, 0, 0), (0.0, 3, 30), (1000.0, 0, 5000), (0.2, 0, 1)])
def test_extremes(share: float, least: int, balance: int) -> None:
    clock = Clock()
    budget = Budget(BudgetConfig(least, share), clock)
    for _ in range(5):
        budget.deposit(clock())
    assert budget.balance == balance


@given(
    st.floats(0, 2),
    st.integers(0, 5),
    st.lists(st.tuples(st.sampled_from("dwt"), st.floats(0, 8)), max_size=60),
)
def test_nobody_gets_more_than_the_share_and_the_reserve(share: float, least: int, steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    budget = Budget(BudgetConfig(least, share, ttl_secs=10), clock)
    requests = retries = 0
    for what, seconds in steps:
        if what == "t":
            clock.time += seconds
        elif what == "d":
            requests += 1
            budget.deposit(clock())
        else:
            retries += budget.withdraw()
        assert budget.balance >= -1e6
    windows = 1 + (clock.time - 100.0) / 9  # a reserve per time to live, and one slice of it more
    assert retries <= requests * share + least * 10 * windows + 1
