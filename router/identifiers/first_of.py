"""Several identifiers: the first that has a name for the request wins."""

from __future__ import annotations

from collections.abc import Sequence

from dtab import Path
from router.model.headers import RequestHead
from router.spi import Identifier


def first_of(identifiers: Sequence[Identifier]) -> Identifier:
    """Try each in order; a request that none identifies is told every reason. Raises ValueError for an empty list."""
    if not identifiers:
        raise ValueError("a router needs at least one identifier")
    if len(identifiers) == 1:
        return identifiers[0]
    candidates = tuple(identifiers)

    def identify(head: RequestHead) -> Path | tuple[Path, RequestHead] | str:
        reasons: list[str] = []
        for candidate in candidates:
            found = candidate(head)
            if not isinstance(found, str):
                return found
            reasons.append(found)
        return "; ".join(reasons)

    return identify
