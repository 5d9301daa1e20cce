"""What is looked at when a turn is over."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from router.model.turn import Turn


@attrs.define
class One:
    """Does something when it is looked at."""

    act: Callable[[], object]

    def look(self) -> None:
        self.act()


def test_what_is_added_outside_of_a_turn_makes_one_happen_once() -> None:
    turn, kicks, looked = Turn(), list[int](), list[int]()
    turn.kick = lambda: kicks.append(1)
    turn.add(One(lambda: looked.append(1)))
    turn.add(One(lambda: looked.append(2)))
    assert (kicks, looked) == ([1], [])
    turn.end(_never)
    turn.end(_never)
    assert looked == [1, 2]
    turn.running = True
    turn.add(One(lambda: looked.append(3)))
    assert kicks == [1]


def test_a_look_that_raises_does_not_disturb_the_others() -> None:
    turn, looked, crashes = Turn(), list[int](), list[Exception]()
    for act in (lambda: looked.append(1), lambda: looked[7], lambda: looked.append(2)):
        turn.add(One(act))
    turn.end(crashes.append)
    assert looked == [1, 2]
    assert [type(crash) for crash in crashes] == [IndexError]


def test_what_a_look_adds_is_for_the_next_turn() -> None:
    turn, looked = Turn(), list[int]()
    last = One(lambda: looked.append(2))
    turn.add(One(lambda: (looked.append(1), turn.add(last))))
    turn.end(_never)
    assert looked == [1]
    turn.end(_never)
    assert looked == [1, 2]


def _never(error: Exception) -> None:
    raise AssertionError("nothing should crash") from error
