"""Waits between tries: every kind, and every stream that the model has, within their bounds for ever."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.model import backoff
from router.spi import Plugin
from tests.contracts.conftest import plugins

SETTINGS = {"constant": {"ms": 30}, "jittered": {"min_ms": 10, "max_ms": 200}, "fullJitter": {"min_ms": 10, "max_ms": 200}}


@pytest.mark.parametrize("plugin", plugins("backoff"), ids=lambda one: one.kind)
def test_every_kind_makes_endless_bounded_waits_each_time_anew(plugin: Plugin) -> None:
    begin = plugin.make(plugin.config(**SETTINGS[plugin.kind]), None)
    for _ in range(3):
        waits = list(islice(begin(), 100))
        assert all(0 <= wait <= 0.2 for wait in waits)
        assert waits[0] <= 0.03
    with pytest.raises(ValueError, match="must be between 0 and 3600000"):
        plugin.config(**dict.fromkeys(SETTINGS[plugin.kind], -1))


@given(st.floats(0.001, 10), st.floats(1, 100), st.floats(0, 0.999999))
def test_streams_stay_between_their_bounds(low: float, factor: float, draw: float) -> None:
    high = low * factor
    top = high * (1 + 1e-9)
    assert list(islice(backoff.constant(low)(), 3)) == [low] * 3
    assert all(low <= wait <= top for wait in islice(backoff.decorrelated(low, high, lambda: draw)(), 30))
    assert all(0 <= wait <= top for wait in islice(backoff.full_jitter(low, high, lambda: draw)(), 30))
    assert all(low / 2 <= wait <= top for wait in islice(backoff.equal_jitter(low, high, lambda: draw)(), 30))


def test_they_grow_to_their_bounds() -> None:
    assert list(islice(backoff.equal_jitter(5, 300, lambda: 0.0)(), 8)) == [2.5, 5, 10, 20, 40, 80, 150, 150]
    assert list(islice(backoff.full_jitter(1, 4, lambda: 0.5)(), 4)) == [0.5, 1, 2, 2]
    assert list(islice(backoff.decorrelated(1, 10, lambda: 1.0)(), 4)) == [1, 3, 9, 10]
