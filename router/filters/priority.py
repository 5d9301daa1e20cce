"""How important a request is, from the header ``l5d-ctx-priority``.

Four classes, named after those of Google's "Handling Overload" (Site Reliability Engineering, ch. 21). Without the header a
request is ``critical``, so that a mesh in which nobody sets it behaves as one without priorities, and clients can step back
(``sheddable-plus`` for what can wait a while, ``sheddable`` for what may fail for hours) or, rarely, forward.

The name begins with ``l5d-ctx-`` because the importance of a call is that of the request on whose behalf it is made: Linkerd's
routers pass such headers on, ``clearContext`` takes them off at an untrusted edge, and applications that take part in
Linkerd's tracing or dtab overrides already copy them to their own calls. RFC 9218's ``priority`` is about the order of
responses on one connection, ends at the first hop, and comes from browsers for every image.
"""

from __future__ import annotations

from router.model.headers import RequestHead
from router.model.metrics import Metrics

PRIORITY = b"l5d-ctx-priority"
CLASSES = ("critical-plus", "critical", "sheddable-plus", "sheddable")
DEFAULT = CLASSES.index("critical")
_RANKS = {name.encode(): rank for rank, name in enumerate(CLASSES)}


class Priorities:
    """Reads the class of requests; what is no class, or more than one, is ignored and counted (``priority/malformed``)."""

    __slots__ = ("_malformed",)

    def __init__(self, metrics: Metrics) -> None:
        self._malformed = metrics.scope("priority").counter("malformed")

    def rank(self, head: RequestHead) -> int:
        """The index into :data:`CLASSES`: 0 is the most important."""
        value = head.get(PRIORITY)
        if value is None:
            return DEFAULT
        rank = _RANKS.get(value) if len(head.get_all(PRIORITY)) == 1 else None
        if rank is None:
            self._malformed.value += 1
            return DEFAULT
        return rank
