"""Who is in use, and with which weight: endpoints that join slowly, and endpoints that stay on probation.

1. Slow start: an endpoint that joins others begins with a tenth of its weight, which grows in step with time to all of it
   (Envoy's slow start with aggression 1). Those that are there from the beginning begin in full.
2. Probation: what discovery drops stays in use while it is available, for at most ``MAX_PROBATION`` seconds; discovery advises,
   and an endpoint that answers is better evidence (Linkerd's ``enableProbation``).
3. While something ramps or leaves, :meth:`due` says when to look again.
"""

from __future__ import annotations

from math import inf
from typing import Protocol

import attrs

LEAST_SHARE = 0.1
STEPS = 20
MAX_PROBATION = 3600.0
PROBATION_STEP = 1.0


class Member(Protocol):
    """What the roster keeps of an endpoint. Seconds of the worker's clock; ``full`` is the weight that discovery gave."""

    full: float
    weight: float
    joined: float
    leaves: float

    @property
    def available(self) -> bool:
        """Whether its breaker lets it be used."""
        ...


@attrs.frozen
class Roster:
    """The rules of one client. ``slow_start``: seconds, 0 for none."""

    slow_start: float = 0.0
    probation: bool = False

    def joins(self, member: Member, now: float, *, alone: bool) -> None:
        """A new endpoint; ``alone``: there are no others yet."""
        member.joined = -inf if alone or not self.slow_start else now
        member.leaves = inf

    def stays(self, member: Member, now: float) -> bool:
        """Whether an endpoint that discovery has dropped is kept for now."""
        if not self.probation or not member.available:
            return False
        if member.leaves == inf:
            member.leaves = now + MAX_PROBATION
        return now < member.leaves

    def weigh(self, member: Member, now: float) -> None:
        """Set the weight of this moment."""
        share = 1.0 if not self.slow_start else (now - member.joined) / self.slow_start
        member.weight = member.full * min(1.0, max(LEAST_SHARE, share))

    def due(self, members: list[Member], now: float) -> float | None:
        """In how many seconds weights or membership change on their own; None: not."""
        if self.slow_start and any(now - member.joined < self.slow_start for member in members):
            return self.slow_start / STEPS
        return PROBATION_STEP if any(member.leaves < inf for member in members) else None
