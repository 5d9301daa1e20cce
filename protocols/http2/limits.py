"""What an HTTP/2 peer may have us do for nothing.

Theory of operation

1. The attacks on HTTP/2 are made of legal frames that cost the receiver more than the sender. No single frame tells an
   attack from heavy use, so each group of them has an :class:`Allowance`: a sum from which they take, and which grows back
   with time and in proportion to useful work. It is only settled when it runs low; until then a nuisance costs a
   subtraction.
2. *Work without gain*: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, frames of streams that are over, refused streams,
   frames of unknown types, and DATA of a few bytes that a tiny window forces upon us. A unit is about a microsecond of our
   time (``COSTS``). What a peer needs for its requests it has earned with them: ``PER_STREAM`` for a stream, ``PER_DATA``
   for each DATA frame that we sent (two WINDOW_UPDATE and a PING, as of a client that measures its bandwidth),
   ``PER_READ`` for each read: who waits for our answer before it sends the next PING is paced by us, however fast.
3. *Premature resets* (rapid reset): a stream that its client resets within ``PREMATURE`` seconds and before we answered has
   escaped the limit of concurrent streams. Each takes one, each stream that went otherwise gives one back: who cancels half
   of its calls stays where it is, and the sum is at least the number of concurrent streams, so that everything that is open
   may be cancelled at once.
4. *Faults* (made resets): a frame that breaks a stream makes us reset it, which escapes that limit as well. Each takes
   one; streams that went well give one back each, since a proxy in front of us may pass on its clients' faults.
5. One read is worked off in turns of about ``TURN`` units (some forty requests), so that whatever a peer packs into it, the
   others wait for a few milliseconds at most. A connection of whose streams more than ``SUSPECT_AFTER`` and more than half did
   not go well, or that has spent half of its work without gain, has shorter turns, ``SUSPECT_TURN``, and pauses between
   them: with a tenth of the time at most, what it is up to takes it longer, and nobody else. Nothing grows back in pauses.
"""

from __future__ import annotations

import attrs

from router.model.abuse import AbuseLimits, between

# Units of work (rule 2).
PING_COST, SETTINGS_COST, SETTING_COST, GOAWAY_COST = 3, 10, 1, 3
FRAME_COST = 1  # PRIORITY, WINDOW_UPDATE, RST_STREAM, CONTINUATION, unknown types, acknowledgements
EMPTY_COST = 2  # DATA without data
STRAY_BLOCK_COST = 25  # a header block that begins nothing
TINY_COST = 30  # DATA that a tiny window cuts
STREAM_COST = 50  # towards the turn only: requests are what we are for
CUT_COST = 100  # likewise, of a stream that its client resets soon or breaks
TURN, SUSPECT_TURN, SUSPECT_AFTER = 2400, 200, 16
SUSPECT_PAUSE = 0.002  # seconds
PER_STREAM, PER_DATA, PER_READ = 20, 5, 3
WORK_PER_SECOND = 10_000

PREMATURE = 1.0
RESETS_PER_SECOND = 100
FAULTS_PER_SECOND = 10
TINY = 128  # bytes: DATA that was cut below this was cut by a tiny window

KINDS = (
    "connections", "idle", "head", "body", "stalled", "rapid_reset", "made_reset", "continuation", "settings", "ping",
    "priority", "window_update", "tiny_window", "empty", "stray", "refused", "unknown", "header_list",
)  # fmt: skip


@attrs.frozen
class Http2Limits(AbuseLimits):
    """The keys of ``abuse`` of an ``h2`` server; those of time and number are :class:`AbuseLimits`'.

    ``max_premature_resets``, ``max_stream_faults``: see the rules above. ``max_idle_work``: units of work without gain.
    ``max_header_fields``: of one header list.
    """

    max_premature_resets: int = attrs.field(default=1000, validator=between(1, 10_000_000))
    max_stream_faults: int = attrs.field(default=100, validator=between(1, 10_000_000))
    max_idle_work: int = attrs.field(default=10_000, validator=between(1000, 1_000_000_000))
    max_header_fields: int = attrs.field(default=1024, validator=between(10, 100_000))


class Allowance:
    """``left`` of a sum that grows back to ``most`` by ``per_second`` and by what is earned (rule 1)."""

    __slots__ = ("_earned", "_most", "_per_second", "_since", "left", "low")

    def __init__(self, most: int, per_second: int, now: float) -> None:
        self.left: float = most
        self.low = most // 2
        self._most = most
        self._per_second = per_second
        self._since = now
        self._earned = 0

    def restart(self, now: float) -> None:
        """The time until ``now`` was not the peer's to behave well in: it waited for us."""
        self._since = now

    def settle(self, now: float, earned: int) -> bool:
        """Add what time and ``earned``, a total that only grows, have brought; whether that makes up for what was taken."""
        gain = (now - self._since) * self._per_second + earned - self._earned
        self._since, self._earned = now, earned
        self.left = min(self.left + gain, self._most)
        return self.left >= 0
