"""``grpc-previous-rpc-attempts``: a gRPC endpoint is told how many attempts there were before this one (gRFC A6)."""

from __future__ import annotations

from router.model.headers import RequestHead
from router.model.metrics import Counter

ATTEMPTS = b"grpc-previous-rpc-attempts"


def numbered(request: RequestHead, before: int, malformed: Counter) -> RequestHead:
    """``request`` for an attempt with ``before`` others of ours before it; those of routers before us are added."""
    if not request.grpc:
        return request
    said = request.get(ATTEMPTS)
    if said is not None and not (said.isdigit() and len(said) < 4):
        malformed.value += 1
        said = None
    count = before + (0 if said is None else int(said))
    fields = [field for field in request.fields if field[0] != ATTEMPTS]
    head = request.with_fields((*fields, (ATTEMPTS, b"%d" % count)))
    head.shared = False
    return head
