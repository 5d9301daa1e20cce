"""When a file gives way to a new one."""

from __future__ import annotations

import time

import pytest

from router.config.access_log import RollPolicy, read_policy

DAY = 86400.0


def moment(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> float:
    return time.mktime((year, month, day, hour, minute, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("Never", RollPolicy()),
        ("hourly", RollPolicy(period="hourly")),
        ("Daily", RollPolicy(period="daily")),
        ("weekly(2)", RollPolicy(period="weekly", day=1)),
        ("3.megabytes", RollPolicy(size=3 << 20)),
        ("1.Gigabyte", RollPolicy(size=1 << 30)),
    ],
)
def test_linkerds_policies(text: str, policy: RollPolicy) -> None:
    assert read_policy(text) == policy


@pytest.mark.parametrize("text", ["", "yearly", "weekly(8)", "0.bytes", "3 megabytes", "-1.bytes"])
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(ValueError, match="must be never, hourly"):
        read_policy(text)


@pytest.mark.parametrize(
    ("text", "opened", "now", "due"),
    [
        ("never", moment(2026, 1, 1), moment(2027, 1, 1), False),
        ("hourly", moment(2026, 1, 1, 5, 1), moment(2026, 1, 1, 5, 59), False),
        ("hourly", moment(2026, 1, 1, 5, 59), moment(2026, 1, 1, 6, 0), True),
        ("hourly", moment(2026, 1, 1, 5, 59), moment(2026, 1, 2, 5, 59), True),
        ("daily", moment(2026, 1, 1, 0, 1), moment(2026, 1, 1, 23, 59), False),
        ("daily", moment(2026, 1, 1, 23, 59), moment(2026, 1, 2), True),
        ("weekly(1)", moment(2026, 11, 22), moment(2026, 11, 28, 23), False),  # a Sunday, the Saturday after it
        ("weekly(1)", moment(2026, 11, 28), moment(2026, 11, 29), True),
        ("weekly(4)", moment(2026, 11, 24), moment(2026, 11, 25), True),  # Tuesday, Wednesday
    ],
)
def test_periods(text: str, opened: float, now: float, due: bool) -> None:
    assert read_policy(text).due(1, opened, now) is due
    assert not read_policy(text).due(0, opened, now)  # an empty file has nothing to give


def test_sizes() -> None:
    policy = read_policy("2.kilobytes")
    assert not policy.due(2047, 0.0, 9e9)
    assert policy.due(2048, 0.0, 0.0)
