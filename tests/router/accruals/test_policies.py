"""When failures are too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.accruals.policies import MIN_REQUESTS, Consecutive, Never, Rate, Windowed


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def feed(policy: object, results: str) -> list[bool]:
    """``+`` success, ``-`` failure; what the policy said to each failure."""
    return [policy.failure() if result == "-" else policy.success() for result in results if result in "+-"]  # type: ignore[attr-defined]


def test_five_in_a_row() -> None:
    assert feed(Consecutive(5), "----+----") == [False] * 4 + [None] + [False] * 4
    assert feed(Consecutive(5), "-----")[-1] is True
    policy = Consecutive(2)
    feed(policy, "-")
    policy.revived()
    assert feed(policy, "-") == [False]


def test_a_rate_needs_its_requests() -> None:
    assert not any(feed(Rate(0.8, 10), "-" * 9))
    assert feed(Rate(0.8, 10), "-" * 10)[-1] is True
    assert feed(Rate(0.8, 10), "+" * 50 + "-")[-1] is False
    assert feed(Rate(0.8, 10), "+" * 50 + "---")[-1] is True
    policy = Rate(0.8, 10)
    feed(policy, "-" * 10)
    policy.revived()
    assert not any(feed(policy, "-" * 9))


def test_a_window_forgets() -> None:
    clock = Clock()
    policy = Windowed(0.8, 10, clock)
    assert feed(policy, "-" * (MIN_REQUESTS - 1)) == [False] * (MIN_REQUESTS - 1)
    assert feed(policy, "-") == [True]
    clock.time += 11
    assert feed(policy, "----") == [False] * 4
    clock.time += 5
    feed(policy, "+" * 16)
    assert feed(policy, "-") == [True]  # 16 of 21
    clock.time += 6
    assert feed(policy, "--") == [False, False]  # 16 of 19
    clock.time += 1e6
    assert feed(policy, "----") == [False] * 4


@given(st.text("+-", max_size=200), st.floats(0, 1), st.integers(1, 50))
def test_all_successes_never_eject_and_none_never_does(results: str, least: float, requests: int) -> None:
    assert not any(feed(Never(), results))
    for policy in (Consecutive(requests), Rate(least, requests), Windowed(least, requests, Clock())):
        assert not any(feed(policy, "+" * len(results)))


@given(st.integers(1, 100), st.floats(0.01, 1))
@pytest.mark.parametrize("kind", ["consecutive", "rate", "windowed"])
def test_nothing_but_failures_ejects_in_the_end(kind: str, requests: int, least: float) -> None:
    made = {"consecutive": Consecutive(requests), "rate": Rate(least, requests), "windowed": Windowed(least, requests, Clock())}
    said = feed(made[kind], "-" * max(requests, MIN_REQUESTS))
    assert said[-1] is True
