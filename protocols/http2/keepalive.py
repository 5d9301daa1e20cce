"""Health of a session to an endpoint by PING: what finds out that a peer has vanished without a word.

Theory of operation

1. A :class:`Heartbeat` sits between the wire and its session and notes when bytes came; any byte is a sign of life. When none
   came for ``time`` seconds while exchanges are under way (or, ``without_calls``, at all), it sends a PING. When none came for
   ``timeout`` seconds after that, the session is dead: its exchanges fail as resets, and the wire is aborted.
2. Servers punish PINGs that come too often (GOAWAY ``ENHANCE_YOUR_CALM`` "too_many_pings"; gRPC's allow one in 5 minutes by
   default, fewer without streams). After such a GOAWAY the time between PINGs to that endpoint is doubled (gRFC A8), up to
   ``LONGEST``.
3. Nothing of this is there when it is not configured: the session is the wire's protocol itself.
4. Bound: ``MAX_DOUBLED`` endpoints whose time was doubled; the oldest is forgotten.
"""

from __future__ import annotations

from typing import Any

import attrs

from protocols.http2 import frames
from protocols.http2.client import Http2Session
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.timers import Timer

LONGEST = 7200.0
MAX_DOUBLED = 1000
_PAYLOAD = b"waypost?"


@attrs.frozen
class Times:
    """Seconds; see above."""

    time: float
    timeout: float = 20.0
    without_calls: bool = False


class KeepAlive:
    """The heartbeats of one client's sessions."""

    def __init__(self, times: Times, host: Host, metrics: Metrics) -> None:
        self.times = times
        self.host = host
        scope = metrics.scope("keepalive")
        self.pings, self.deaths = scope.counter("pings"), scope.counter("deaths")
        self._complaints = scope.counter("too_many_pings")
        self._doubled: dict[tuple[str, int], float] = {}

    def watch(self, session: Http2Session, address: tuple[str, int]) -> Heartbeat:
        """The protocol to put on the session's wire."""
        session.calmed = lambda: self._calm(address)
        return Heartbeat(self, session, self._doubled.get(address, self.times.time))

    def _calm(self, address: tuple[str, int]) -> None:
        """The endpoint complained."""
        self._complaints.value += 1
        time = min(2 * self._doubled.pop(address, self.times.time), max(LONGEST, self.times.time))
        self._doubled[address] = time
        if len(self._doubled) > MAX_DOUBLED:
            del self._doubled[next(iter(self._doubled))]
        host, port = address
        self.host.events.warn("session_calmed", endpoint=f"{host}:{port}", time_s=time)


class Heartbeat:
    """A wire's protocol that passes everything on to a session and listens for its pulse."""

    __slots__ = ("_heard", "_keepalive", "_now", "_pinged", "_session", "_time", "_timer")

    def __init__(self, keepalive: KeepAlive, session: Http2Session, time: float) -> None:
        timers = keepalive.host.timers
        self._keepalive = keepalive
        self._session = session
        self._time = time
        self._now = timers.now
        self._heard = timers.now()
        self._pinged: float | None = None  # a PING waits for a sign of life since
        self._timer: Timer | None = timers.after(time, self._look)

    def _look(self, _: Any) -> None:
        session, times = self._session, self._keepalive.times
        pinged, self._pinged = self._pinged, None
        quiet = self._now() - self._heard
        if pinged is not None and self._heard <= pinged:
            self._dead()
        elif quiet < self._time:
            self._after(self._time - quiet)
        elif session.streams or times.without_calls:
            self._pinged = self._now()
            self._keepalive.pings.value += 1
            session.wire.write(frames.ping(_PAYLOAD, ack=False))
            self._after(times.timeout)
        else:
            self._after(self._time)

    def _after(self, seconds: float) -> None:
        self._timer = self._keepalive.host.timers.after(seconds, self._look)

    def _dead(self) -> None:
        keepalive, session = self._keepalive, self._session
        keepalive.deaths.value += 1
        why = f"no answer to PING within {keepalive.times.timeout * 1000:g} ms"
        keepalive.host.events.warn("session_dead", endpoint=session.wire.peer, cause=why, streams=len(session.streams))
        session.vanished(why)

    # -- from the wire --------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """A sign of life."""
        self._heard = self._now()
        self._session.received(data)

    def eof(self) -> None:
        """See the session."""
        self._session.eof()

    def writable(self) -> None:
        """See the session."""
        self._session.writable()

    def lost(self, why: str) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._session.lost(why)
