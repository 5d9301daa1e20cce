"""Dtabs that come with a request: ``l5d-ctx-dtab`` (set by the routers before us), then ``l5d-dtab`` (the user's).

Both are removed from the request; what they said together goes on as ``l5d-ctx-dtab``. A CONNECT is not obeyed: it would reach
whatever it names, and we be an open proxy. Bounds: ``MAX_BYTES`` of headers per request, ``CACHED`` parsed tables per router.
"""

from __future__ import annotations

from dtab import Dtab, DtabError
from router.dtab_headers import CTX_DTAB, USER_DTAB, read_linkerd
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import CONNECT, Fields, RequestHead
from router.model.service import Conducting, Service

MAX_BYTES = 8192
CACHED = 256


def dtab_context(next_service: Service) -> Service:
    """Set ``exchange.local_dtab`` from the request's headers; None where there are none."""
    cache: dict[Fields, Dtab] = {}

    def dtab_context_service(exchange: Exchange) -> Conducting:
        head = exchange.request
        if (head.get(USER_DTAB) is not None or head.get(CTX_DTAB) is not None) and head.tunnel != CONNECT:
            exchange.local_dtab = local_dtab(head, cache) or None
        return next_service(exchange)

    return dtab_context_service


def local_dtab(head: RequestHead, cache: dict[Fields, Dtab]) -> Dtab:
    """What the request's headers say together. Raises a MALFORMED :class:`Failure` for what is no dtab, or too long."""
    fields = tuple([field for field in head.fields if field[0] == CTX_DTAB or field[0] == USER_DTAB])
    table = cache.get(fields)
    if table is not None:
        return table
    if sum(len(value) for _, value in fields) > MAX_BYTES:
        raise Failure(Kind.MALFORMED, f"the request's dtab headers are longer than {MAX_BYTES} bytes", Blame.CLIENT)
    try:
        table = read_linkerd(list(fields))
    except DtabError as error:
        raise Failure(Kind.MALFORMED, str(error), Blame.CLIENT) from None
    if len(cache) >= CACHED:
        cache.clear()
    cache[fields] = table
    return table
