"""What an exchange that is over was worth, and who says so."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from router.model.exchange import Exchange
    from router.model.headers import ResponseHead


class Verdict(Enum):
    """The classes of Linkerd's response classifiers."""

    SUCCESS = "success"
    FAILURE = "failure"  # it must not be sent again
    RETRYABLE = "retryable"  # a failure that may be sent again


SUCCESS, FAILURE, RETRYABLE = Verdict.SUCCESS, Verdict.FAILURE, Verdict.RETRYABLE


class Classifier(Protocol):
    """Judges exchanges. Stateless; one serves many names."""

    def __call__(self, exchange: Exchange) -> Verdict:
        """The verdict on an exchange, or an attempt, that is over.

        ``exchange.complete``: the response ended as it should; ``exchange.failure``: what else ended it.
        """
        ...

    def holds(self, exchange: Exchange, head: ResponseHead, end: bool) -> bool:
        """Whether a response with this head may still turn out RETRYABLE, so that the client should not see it yet.

        ``end``: the head is all there is.
        """
        ...


class _ByCompletion:
    """What ended is a success: the classifier of exchanges that have been given none."""

    def __call__(self, exchange: Exchange) -> Verdict:
        return SUCCESS if exchange.complete else FAILURE

    def holds(self, exchange: Exchange, head: ResponseHead, end: bool) -> bool:
        return False


BY_COMPLETION: Classifier = _ByCompletion()
