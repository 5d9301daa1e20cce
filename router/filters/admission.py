"""Limits on requests under way, without a queue (servers) or with one (clients).

Theory of operation

1. A :class:`Gate` has ``limit`` places. An exchange that finds one takes it and gives it back when both of its directions
   are over. While nobody waits and there is room for every class that costs one comparison.
2. Without a queue whoever finds no place is refused at once (Linkerd's ``maxConcurrentRequests``). The last places are for
   the more important: sheddable requests find ``SHARES`` of the limit only.
3. With a queue all places are for all, and who finds none waits: by class, within a class in order of arrival. Free places
   go to the most important. When the queue is full, a newcomer takes the place of the last of the least important class if
   that is below its own; otherwise it is refused itself.
4. Who cannot be served in time is not let wait: the queue knows how fast it moves (``_gap``, seconds from place to place)
   and in what time 19 of 20 responses come (``_typical``). A newcomer whose deadline is before both have passed is refused.
   A waiting one is taken out as soon as what is left is shorter than ``_typical``: its place is worth more to the next.
   The first in the queue is not judged by ``_gap``, and a refusal after which nobody waits makes ``_typical`` shorter:
   neither estimate can keep itself alive.
5. Waking one who waits runs its strand, which may end at once and give its place back: a loop hands places on, never
   recursion.
6. Bounds: ``limit`` under way (a limit that was lowered is reached as exchanges end), ``size`` waiting.

First in first out is kept under overload too: with rule 4 those at the front have their time still before them. To serve the
last come first would answer three in a hundred more in time, and starve whoever came in a bad moment.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Any

from router.filters.priority import CLASSES, Priorities
from router.filters.shedding import Shedding
from router.model.exchange import Exchange
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.service import Conducting, Service
from router.model.strand import Waiter
from router.model.timers import Bucket, take

SHARES = (1.0, 1.0, 0.9, 0.8)  # of the limit, for each class, where nobody can wait
BUSY = 0.1  # seconds of a moving queue that are enough to know its pace
SHORTER, LONGER = 0.998, 1.038  # steps that balance where 19 samples of 20 are shorter
DOUBT = 0.9  # of an estimate that has refused one behind whom nobody waits to prove it


class _Place(Waiter[float]):
    """One who waits; woken with the time at which its turn came."""

    __slots__ = ("bucket", "deadline", "gate", "granted", "queued", "rank", "since")

    def __init__(self, gate: Gate, rank: int, deadline: float, since: float) -> None:
        super().__init__()
        self.gate = gate
        self.rank = rank
        self.deadline = deadline
        self.since = since
        self.bucket: Bucket | None = None  # of the timer wheel
        self.granted = self.queued = False

    def expire(self) -> None:
        """What is left is not enough."""
        self.gate.give_up(self)


class Gate:
    """See the theory of operation. ``running``: exchanges under way; ``room``: below that anybody may pass."""

    __slots__ = (
        "_busy", "_dispatching", "_floor", "_gap", "_host", "_metrics", "_pace", "_priorities", "_queues", "_served",
        "_shares", "_shedding", "_size", "_typical", "_waited", "limit", "room", "running", "waiting",
    )  # fmt: skip

    def __init__(self, host: Host, limit: int, size: int, shedding: Shedding, metrics: Metrics) -> None:
        self._host = host
        self._size = size
        self._shedding = shedding
        self._priorities = Priorities(metrics)
        self._queues: list[dict[int, _Place]] = [{} for _ in CLASSES]
        self._dispatching = False
        self._gap = self._typical = self._busy = self._pace = 0.0
        self._served = 0
        self._waited = metrics.stat("queue_ms")
        self.running = self.waiting = 0
        self.resize(limit)
        metrics.gauge("request_concurrency", lambda: self.running)
        metrics.gauge("request_queue_size", lambda: self.waiting)
        metrics.gauge("concurrency_limit", lambda: self.limit)

    def resize(self, limit: int) -> None:
        """Another limit; who waits may find a place now."""
        self.limit = limit
        self._shares = [limit] * len(CLASSES) if self._size else [ceil(limit * share) for share in SHARES]
        self._floor = self._shares[-1]
        self.room = 0 if self.waiting else self._floor
        if self.waiting:
            self.hand_on()

    # -- coming and going -----------------------------------------------------------------------------------

    async def enter(self, exchange: Exchange) -> float:
        """Take a place, after a wait if need be. Returns when the wait was over, 0 if there was none. Raises OVERLOADED."""
        rank = self._priorities.rank(exchange.request)
        if not self.waiting and self.running < self._shares[rank]:
            self.running += 1
            return 0.0
        place = self._join(exchange, rank)
        try:
            return await place
        except BaseException:
            if place.granted:
                self.running -= 1
                self.hand_on()
            elif place.queued:
                self._remove(place)
            raise

    def squeeze(self, exchange: Exchange) -> None:
        """Take one of the last places, without a wait. Raises OVERLOADED where it is too late for one of its class."""
        rank = self._priorities.rank(exchange.request)
        if self.running >= self._shares[rank]:
            raise self._refuse("limit", rank)
        self.running += 1

    def leave(self) -> None:
        """Give a place back."""
        self.running -= 1
        if self.waiting:
            self.hand_on()

    def learn(self, exchange: Exchange, since: float) -> None:
        """An exchange that waited until ``since`` is over: how long did the response take?"""
        took = exchange.responded_at - since
        if exchange.response is None or took < 0:
            return
        if self._typical == 0:
            self._typical = took
        else:
            self._typical *= SHORTER if took < self._typical else LONGER

    # -- the queue ------------------------------------------------------------------------------------------

    def _join(self, exchange: Exchange, rank: int) -> _Place:
        if not self._size:
            raise self._refuse("limit", rank)
        now, deadline = self._host.timers.now(), exchange.deadline
        ahead = sum([len(queue) for queue in self._queues[: rank + 1]])
        if now + ahead * self._gap + self._typical >= deadline:
            raise self._hopeless(rank)
        victim = None
        if self.waiting >= self._size:
            victim = self._least_important(rank)
            if victim is None:
                raise self._refuse("queue_full", rank)
            self._remove(victim)
        place = self._add(rank, deadline, now)
        if victim is not None:
            victim.throw(self._refuse("evicted", victim.rank))
        return place

    def _add(self, rank: int, deadline: float, now: float) -> _Place:
        place = _Place(self, rank, deadline, now)
        if not self.waiting:
            self._pace = now
        self.waiting += 1
        self.room = 0
        self._queues[rank][id(place)] = place
        place.queued = True
        if deadline != inf:
            place.bucket = self._host.timers.put(deadline - self._typical, place)
        return place

    def _remove(self, place: _Place) -> None:
        del self._queues[place.rank][id(place)]
        place.queued = False
        if place.bucket is not None:
            take(place.bucket, place)
        self.waiting -= 1
        if not self.waiting:
            self.room = self._floor

    def _least_important(self, rank: int) -> _Place | None:
        """The last of the least important class below ``rank``, if anybody there waits."""
        for queue in self._queues[:rank:-1]:
            if queue:
                return queue[next(reversed(queue))]
        return None

    def _first(self) -> _Place:
        """Whose turn it is."""
        return next(iter(next(filter(None, self._queues)).values()))

    def give_up(self, place: _Place) -> None:
        """Let ``place`` wait no longer."""
        self._remove(place)
        place.throw(self._hopeless(place.rank))

    def hand_on(self) -> None:
        """Give free places to those who wait. Called from within by a strand that ended at once, it leaves that to the loop."""
        if self._dispatching:
            return
        self._dispatching = True
        now = self._host.timers.now()
        try:
            while self.waiting and self.running < self.limit:
                place = self._first()
                self._remove(place)
                if now + self._typical >= place.deadline:
                    place.throw(self._hopeless(place.rank))
                    continue
                self._moved(now)
                self._waited.add((now - place.since) * 1000)
                self.running += 1
                place.granted = True
                place.wake(now)
        finally:
            self._dispatching = False

    def _moved(self, now: float) -> None:
        """One was served: keep the pace of the queue, over times at which there was one."""
        self._served += 1
        self._busy += now - self._pace
        self._pace = now
        if self._busy >= BUSY:
            gap = self._busy / self._served
            self._gap = (self._gap + gap) / 2 if self._gap else gap
            self._busy, self._served = 0.0, 0

    # -- refusals -------------------------------------------------------------------------------------------

    def _refuse(self, cause: str, rank: int) -> Any:
        waiting = f", {self.waiting} waiting" if self._size else ""
        return self._shedding.refuse(cause, rank, f"{self.running} under way{waiting}")

    def _hopeless(self, rank: int) -> Any:
        if not self.waiting:
            self._typical *= DOUBT
        return self._refuse("deadline", rank)


def admission(gate: Gate | None, next_service: Service) -> Service:
    """Let exchanges pass through a ``gate`` without a queue; whoever counts them all, also those refused, gives back the places
    that were taken (:func:`router.filters.stats.stats`). None: no limit, no layer."""
    if gate is None:
        return next_service
    places = gate

    def admission_service(exchange: Exchange) -> Conducting:
        if places.running < places.room:
            places.running += 1
        else:
            places.squeeze(exchange)
        exchange.place = places
        return next_service(exchange)

    return admission_service


def entrance(gate: Gate | None, next_service: Service) -> Service:
    """Let exchanges pass through ``gate``; the next service gives their places back: one coroutine counts them and lets them
    out. None: no limit, no layer."""
    if gate is None:
        return next_service
    places = gate

    def entrance_service(exchange: Exchange) -> Conducting:
        if places.running >= places.room:
            return waiting(exchange)
        places.running += 1
        return next_service(exchange)

    async def waiting(exchange: Exchange) -> None:
        since = await places.enter(exchange)
        try:
            await next_service(exchange)
        finally:
            if since:
                places.learn(exchange, since)

    return entrance_service
