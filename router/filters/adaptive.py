"""An adaptive limit on requests under way: as many as the endpoints can work on, found from latency.

Theory of operation

1. Latency is measured from sending to the response's head, so that long streams tell as much as short calls, and averaged
   over windows of ``WINDOW`` seconds or ``SPAN`` times the base, and ``SAMPLES`` samples at least. The mean and not a
   percentile: by Little's law it is the mean that a queue at the endpoint lengthens in proportion, and with quick and slow
   calls a percentile jumps from one kind to the other. Samples are cut off at ten times the base, so that outliers do not
   matter. Windows that are short against the base would miss the slow calls.
2. After each window ``limit = g * limit + sqrt(g * limit)`` with ``g = 1.25 * base / mean`` within 0.5 and 2 (Envoy's
   gradient; the root is what it takes to find out that there is room). The limit stays while less than half of it is in
   use: one that nobody needs says nothing. Only what was sent under the present limit counts, so that no cut is made twice.
3. ``base`` is the mean latency without a queue. While less than half of the limit is in use it follows the mean, at most
   two per cent a window upward: an overload that builds up must not pass for a new base. While the limit is in use a base
   cannot be seen, and the old one would be believed for ever, whatever became of the endpoints. So the limit *dips* for a
   window, to ``DIP_TO`` of what the endpoints were found to work on, which drains the queue: every ``DIP_EVERY`` seconds,
   and soon after the limit has moved by ``MOVED`` or a dip has found a base that was not expected. Envoy pins the limit to
   3 for that, and sheds nearly everything meanwhile; these cost some hundredths of the throughput for a window. Until a dip
   has proven its base again a limit is not cut to less than a half: endpoints that became slower answer no sooner because
   fewer ask.
4. Dips come at the same time of day in all workers and routers, since the queue that one of them sees is everybody's.
5. Failures and refusals of the endpoint (5xx, 429, a gRPC status without a message) are no samples: they come fast. An
   attempt that ends without a head after more than the base took that long at least.
6. The worker's own loop must not pass for the endpoint: the mean lag of the loop is taken off each sample, and while the
   lag is more than half of what was measured nothing is learnt.
"""

from __future__ import annotations

from math import sqrt

import attrs

from router.filters.admission import Gate
from router.model.exchange import Exchange
from router.model.host import Host
from router.model.metrics import Metrics
from router.model.service import Service

START = 20  # the first limit
WINDOW, SPAN, SAMPLES = 0.25, 8, 50
TOLERANCE = 1.25
CUT_OFF = 10.0
DIP_EVERY, DIP_SOON, DIP_LONGEST, DIP_TO = 30.0, 1.0, 2.0, 0.6
MOVED, TRUST, DOUBT = 1.4, 1.25, 1.1
FOLLOW, RISE = 0.1, 1.02
PATIENCE = 5  # windows at the minimum


@attrs.frozen
class AdaptiveConfig:
    """The limit stays within ``low`` and ``high``."""

    low: int = 3
    high: int = 1000


class AdaptiveLimit:
    """Sets the limit of ``gate``. :meth:`heard` and :meth:`unheard` are told of attempts; time comes with them."""

    __slots__ = (
        "_at_minimum", "_before", "_config", "_dip_at", "_dips", "_epoch", "_exact", "_gate", "_host", "_lag", "_lagging",
        "_peak", "_proven", "_samples", "_sum", "base",
    )  # fmt: skip

    def __init__(self, config: AdaptiveConfig, gate: Gate, host: Host, metrics: Metrics) -> None:
        self._config = config
        self._gate = gate
        self._host = host
        self._lag = host.lag
        scope = metrics.scope("adaptive")
        self._dips, self._lagging = scope.counter("dips"), scope.counter("lagging")
        scope.gauge("base_latency_ms", lambda: self.base * 1000)
        self.base = 0.0  # seconds; 0: not known yet
        self._exact = 0.0  # the limit, with its fraction
        self._proven = float(max(config.low, min(config.high, START)))  # the limit that the base was last proven for
        self._before: float | None = None  # the limit before the dip under way
        self._at_minimum = 0
        self._epoch = self._sum = 0.0
        self._samples = self._peak = 0
        now = host.timers.now()
        self._dip_at = self._next(now, DIP_SOON)
        self._set(self._proven, now)

    # -- samples --------------------------------------------------------------------------------------------

    def heard(self, exchange: Exchange) -> None:
        """A response's head has come."""
        response = exchange.response
        assert response is not None
        if response.status < 500 and response.status != 429 and not (exchange.request.grpc and exchange.complete):
            self._sample(exchange.sent_at, exchange.responded_at)

    def unheard(self, exchange: Exchange) -> None:
        """An attempt has ended without a response's head."""
        now = self._host.timers.now()
        if now - exchange.sent_at > self.base > 0:
            self._sample(exchange.sent_at, now)

    def _sample(self, sent: float, now: float) -> None:
        if sent < self._epoch:
            return
        took, lag = now - sent, self._lag
        half = took / 2
        if lag.latest > half or lag.overdue(now) > half:
            self._lagging.value += 1
            return
        took -= min(half, lag.mean)
        base = self.base
        self._sum += took if took < CUT_OFF * base or not base else CUT_OFF * base
        self._samples = samples = self._samples + 1
        running = self._gate.running
        if running > self._peak:
            self._peak = running
        if samples >= SAMPLES and now - self._epoch >= max(WINDOW, SPAN * base):
            self._window(self._sum / samples, now)
        elif self._before is not None:
            if now - self._epoch > max(DIP_LONGEST, 3 * SPAN * self.base):  # traffic has ebbed away meanwhile
                self._undip(now)
        elif now >= self._dip_at:
            self._dip(now)

    # -- windows --------------------------------------------------------------------------------------------

    def _window(self, mean: float, now: float) -> None:
        if self.base == 0:
            self.base = mean
        if self._before is not None:
            self._prove(mean, now)
            self._undip(now)
        elif 2 * self._peak < self._exact:
            self._follow(mean, now)
        else:
            self._adjust(mean, now)

    def _follow(self, mean: float, now: float) -> None:
        """The limit is not in use: this is what latency is without it."""
        self.base = min(self.base + (mean - self.base) * FOLLOW, self.base * RISE)
        self._set(self._exact, now)

    def _adjust(self, mean: float, now: float) -> None:
        """The gradient."""
        low = float(self._config.low)
        scaled = self._exact * min(2.0, max(0.5, TOLERANCE * self.base / mean))
        limit = min(float(self._config.high), max(low, self._proven / 2, scaled + sqrt(scaled)))
        self._at_minimum = self._at_minimum + 1 if limit == low else 0
        if self._at_minimum == PATIENCE:
            self._at_minimum = 0
            self._prove(mean, now)
        elif not self._proven / MOVED < limit < self._proven * MOVED:
            self._dip_at = min(self._dip_at, self._next(now, DIP_SOON))
        self._set(limit, now)

    def _prove(self, mean: float, now: float) -> None:
        """``mean`` is what latency is without a queue. What was not expected is looked at again soon, above all what is lower:
        there may have been a queue still."""
        expected = self.base / DOUBT < mean < self.base * TRUST
        self.base = (self.base + mean) / 2 if expected else mean
        self._dip_at = self._next(now, DIP_EVERY if expected else DIP_SOON)

    def _set(self, limit: float, now: float) -> None:
        self._exact = limit
        self._epoch, self._sum = now, 0.0
        self._samples = self._peak = 0
        if int(limit) != self._gate.limit:
            self._gate.resize(int(limit))

    # -- dips -----------------------------------------------------------------------------------------------

    def _next(self, now: float, every: float) -> float:
        """The next time that is a multiple of ``every`` seconds of the epoch, on the host's clock."""
        return now + every - self._host.wall_ns() / 1e9 % every

    def _dip(self, now: float) -> None:
        """If the limit is in use, find out what latency is below it."""
        limit = self._exact
        if self.base == 0 or limit <= self._config.low or self._gate.running < 0.8 * limit:
            self._dip_at = self._next(now, DIP_SOON)
            return
        mean = self._sum / self._samples
        working = limit * min(1.0, self.base / mean)
        self._before = limit
        self._dips.value += 1
        self._set(max(self._config.low, DIP_TO * working), now)

    def _undip(self, now: float) -> None:
        limit, self._before = self._before, None
        assert limit is not None
        self._proven = limit
        self._set(limit, now)


def sampling(adaptive: AdaptiveLimit | None, next_service: Service) -> Service:
    """Let ``adaptive`` know of each attempt. None: no layer."""
    if adaptive is None:
        return next_service
    heard, unheard = adaptive.heard, adaptive.unheard

    async def sampling_service(exchange: Exchange) -> None:
        exchange.sent_at = exchange.host.timers.now()
        exchange.heard = heard
        try:
            await next_service(exchange)
        finally:
            exchange.heard = None
            if exchange.response is None:
                unheard(exchange)

    return sampling_service
