"""Values over time.

Theory of operation

1. An activity is always in one state: :class:`Pending`, :class:`Ok` or :class:`Failed`, and may go from any to any.
2. A :class:`Source` is set by whoever knows; a :class:`Computed` is a pure function of other activities, which it names by
   *tracking* them while it runs. It is computed again when one of them changes.
3. Lazy: a computed activity tracks, and a source is started, only while somebody observes. Unobserved, ``sample`` computes
   once without leaving a trace.
4. Quiet: a state equal to the present one does not propagate. Closed: an exception of a function becomes Failed.
5. Ordered: a change runs through the graph by level (sources first), and a node that is tracked while it waits to be
   computed is computed then; so no function ever sees one input changed and another not yet (no glitches).
   Callbacks run after all nodes. Everything happens within the call to ``Source.set``.
6. Make before break: what a node tracks now is subscribed before what it tracked before is dropped.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

T = TypeVar("T")
U = TypeVar("U")


@attrs.frozen
class Pending:
    """Nothing is known yet."""


@attrs.frozen
class Ok(Generic[T]):
    """A value."""

    value: T


@attrs.frozen
class Failed:
    """The value could not be had."""

    error: Exception = attrs.field(eq=lambda error: (type(error), error.args))


State: TypeAlias = Pending | Ok[T] | Failed
PENDING = Pending()

Track = Callable[["Activity[Any]"], "State[Any]"]


class Observation:
    """A subscription; ``close`` ends it."""

    __slots__ = ("_activity", "callback")

    def __init__(self, activity: Activity[Any], callback: Callable[[Any], None]) -> None:
        self._activity: Activity[Any] | None = activity
        self.callback = callback

    def close(self) -> None:
        """Hear no more; harmless when repeated."""
        activity, self._activity = self._activity, None
        if activity is not None:
            activity._drop(self)


class Activity(Generic[T]):
    """A value over time. Use :class:`Source`, :class:`Computed` and the methods here."""

    __slots__ = ("_dependents", "_observers", "level", "state")

    def __init__(self, state: State[T]) -> None:
        self.state: State[T] = state
        self.level = 0
        self._observers: dict[int, Observation] = {}
        self._dependents: dict[int, Computed[Any]] = {}

    # -- reading --------------------------------------------------------------------------------------------

    def observe(self, callback: Callable[[State[T]], None]) -> Observation:
        """Call ``callback`` with the present state now, and with each later one."""
        self._attach()
        observation = Observation(self, callback)
        self._observers[id(observation)] = observation
        callback(self.state)
        return observation

    def sample(self) -> State[T]:
        """The present state, computed for the occasion if nobody observes."""
        return self.state

    @property
    def observed(self) -> bool:
        """Whether anybody depends on it."""
        return bool(self._observers or self._dependents)

    # -- deriving -------------------------------------------------------------------------------------------

    def map(self, change: Callable[[T], U]) -> Activity[U]:
        """The values changed by a function."""

        def compute(track: Track) -> State[U]:
            state = track(self)
            return Ok(change(state.value)) if isinstance(state, Ok) else state

        return Computed(compute)

    def flat_map(self, change: Callable[[T], Activity[U]]) -> Activity[U]:
        """The activity that a function makes of the value. The function runs once per distinct value."""
        last: list[Any] = [None, None]

        def compute(track: Track) -> State[U]:
            state = track(self)
            if not isinstance(state, Ok):
                return state
            if last[0] != state:
                last[:] = [state, change(state.value)]
            inner: State[U] = track(last[1])
            return inner

        return Computed(compute)

    def stabilize(self) -> Activity[T]:
        """The same until it is first Ok; from then on the last Ok in the place of Pending and Failed."""
        last: list[State[T]] = [PENDING]

        def compute(track: Track) -> State[T]:
            state: State[T] = track(self)
            if isinstance(state, Ok) or not isinstance(last[0], Ok):
                last[0] = state
            return last[0]

        return Computed(compute)

    # -- plumbing -------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Somebody is about to depend on this."""

    def _detach(self) -> None:
        """Nobody does any more."""

    def _drop(self, observation: Observation) -> None:
        if self._observers.pop(id(observation), None) is not None and not self.observed:
            self._detach()

    def _link(self, node: Computed[Any]) -> None:
        self._attach()
        self._dependents[id(node)] = node

    def _unlink(self, node: Computed[Any]) -> None:
        if self._dependents.pop(id(node), None) is not None and not self.observed:
            self._detach()


class Source(Activity[T]):
    """An activity that is set. ``start`` is called when the first observer comes, ``stop`` when the last has gone."""

    __slots__ = ("_start", "_stop")

    def __init__(
        self,
        state: State[T] = PENDING,
        start: Callable[[], None] | None = None,
        stop: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(state)
        self._start = start
        self._stop = stop

    def set(self, state: State[T]) -> None:
        """Change the state, and everything that follows from it, now."""
        if state == self.state:
            return
        self.state = state
        _Wave().run(self)

    def _attach(self) -> None:
        if self._start is not None and not self.observed:
            self._start()

    def _detach(self) -> None:
        if self._stop is not None:
            self._stop()


class Computed(Activity[T]):
    """A pure function of other activities. ``compute(track)`` gets their states through ``track``."""

    __slots__ = ("_compute", "_inputs", "_live", "_wave")

    def __init__(self, compute: Callable[[Track], State[T]]) -> None:
        super().__init__(PENDING)
        self._compute = compute
        self._inputs: dict[int, Activity[Any]] = {}
        self._live = False
        self._wave: _Wave | None = None  # the wave that this node waits to be computed in

    def sample(self) -> State[T]:
        if self._live:
            return self.state
        return self._run(lambda activity: activity.sample())

    def _run(self, track: Track) -> State[T]:
        try:
            return self._compute(track)
        except Exception as error:  # noqa: BLE001 - rule 4: closed
            return Failed(error)

    def _attach(self) -> None:
        if not self._live:
            self._live = True
            self._refresh()

    def _refresh(self) -> bool:
        """Compute; returns whether the state changed."""
        before, now = self._inputs, {}
        top = 0

        def track(activity: Activity[Any]) -> State[Any]:
            nonlocal top
            key = id(activity)
            if key not in now:
                now[key] = activity
                if key not in before:
                    activity._link(self)
                if isinstance(activity, Computed) and activity._wave is not None:
                    activity._wave.compute(activity)
                top = max(top, activity.level)
            return activity.state

        state = self._run(track)
        self._inputs = now
        self.level = top + 1
        for key, activity in before.items():
            if key not in now:
                activity._unlink(self)
        changed = state != self.state
        self.state = state
        return changed

    def _detach(self) -> None:
        self._live = False
        inputs, self._inputs = self._inputs, {}
        for activity in inputs.values():
            activity._unlink(self)


class _Wave:
    """One change on its way through the graph."""

    __slots__ = ("_calls", "_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Computed[Any]]] = []
        self._calls: list[tuple[Activity[Any], Observation]] = []
        self._serial = 0

    def run(self, origin: Activity[Any]) -> None:
        self._spread(origin)
        while self._heap:
            _, _, node = heapq.heappop(self._heap)
            self.compute(node)
        for activity, observation in self._calls:
            if id(observation) in activity._observers:
                observation.callback(activity.state)

    def compute(self, node: Computed[Any]) -> None:
        """Compute a node that waits, unless that was done when somebody tracked it."""
        if node._wave is not None:
            node._wave = None
            if node._live and node._refresh():
                self._spread(node)

    def _spread(self, changed: Activity[Any]) -> None:
        for node in list(changed._dependents.values()):
            if node._wave is None:
                node._wave = self
                self._serial += 1
                heapq.heappush(self._heap, (node.level, self._serial, node))
        self._calls += [(changed, observation) for observation in changed._observers.values()]


def constant(value: T) -> Activity[T]:
    """An activity that is Ok for ever."""
    return Source(Ok(value))


def collect(activities: list[Activity[T]]) -> Activity[list[T]]:
    """All values, once all are Ok; the first failure; else pending."""

    def compute(track: Track) -> State[list[T]]:
        states: list[State[T]] = [track(activity) for activity in activities]
        for state in states:
            if isinstance(state, Failed):
                return state
        values = [state.value for state in states if isinstance(state, Ok)]
        return Ok(values) if len(values) == len(states) else PENDING

    return Computed(compute)
