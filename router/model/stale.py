"""The race that idle connections bring: an endpoint closes one while a request is being given to it.

What can be repeated, and why:

1. Nothing of the request has left: our socket took none of it, or the end of the connection was read in the turn in which the
   request was written, before its flush. Certain, whatever the method.
2. The request has left, the connection had been idle, and it ended without a byte of response: whether the endpoint has seen
   the request is not known. Repeating it, once, harms nobody where its method is safe (RFC 9110 §9.2.1, RFC 9112 §9.3.1). A
   DELETE, though idempotent, would be told 404 of what it had deleted itself.
3. Everything else is not repeated here; a classifier may say that it can be.
"""

from __future__ import annotations

from router.model.failure import Blame, Failure, Kind

SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))


class StaleConnection(Failure):
    """A connection that had served before ended under a request that can be repeated on another one.

    ``sent``: the request, or part of it, has left (case 2 above).
    """

    __slots__ = ("sent",)

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(Kind.RESET, why, Blame.UPSTREAM, retryable=True)
        self.sent = sent


def lost_connection(why: str, method: bytes, *, sent: bool, used: bool, quiet: bool) -> Failure:
    """The failure of an exchange whose connection was lost before its response head.

    ``sent``: see above. ``used``: the connection has served other exchanges. ``quiet``: it had been idle, and nothing of a
    response has come.
    """
    text = f"connection to the endpoint lost: {why}"
    if used and (not sent or (quiet and method in SAFE)):
        return StaleConnection(text, sent=sent)
    return Failure(Kind.RESET, text, Blame.UPSTREAM, retryable=not sent)
