"""The head that is sent on: hop-by-hop fields off, context on, Via appended; in one pass, and once per shared head.

``Via`` names us ``waypost`` where Linkerd says ``linkerd``. ``maxCallDepth`` bounds the hops that Via lists. gRPC's
``te: trailers`` stays, since servers insist on it.
"""

from __future__ import annotations

from dtab import Dtab, Path
from router.dtab_headers import write_linkerd
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Field, Fields, RequestHead, ResponseHead
from router.model.service import Conducting, Service

HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
# Fields that only we may set towards a backend, or that end here.
_OURS = frozenset(
    (b"l5d-dtab", b"l5d-ctx-dtab", b"l5d-dst-service", b"l5d-dst-client", b"l5d-dst-residual", b"x-forwarded-client-cert")
)
_DROPPED_REQUEST = HOP_BY_HOP | _OURS | {b"via", b"host"}
_DROPPED_RESPONSE = HOP_BY_HOP | {b"via"}
_TRAILERS = (b"te", b"trailers")


class Plan:
    """What is put on requests for one (service, client, residual): an object with an identity, for the heads' caches."""

    __slots__ = ("extra",)

    def __init__(self, service: Path, client: Path, residual: Path, local: Dtab | None) -> None:
        extra: list[Field] = [(b"l5d-dst-service", service.show().encode()), (b"l5d-dst-client", client.show().encode())]
        if residual:
            extra.append((b"l5d-dst-residual", residual.show().encode()))
        context = write_linkerd(local or Dtab())
        if context is not None:
            extra.append(context)
        self.extra: Fields = tuple(extra)

    def apply(self, head: RequestHead) -> RequestHead:
        """The head to send on."""
        cached = head.forwarded
        if cached is not None and cached[0] is self:
            known: RequestHead = cached[1]
            return known
        fields = [field for field in head.fields if field[0] not in _DROPPED_REQUEST]
        if head.version < (2, 0):
            fields = _drop_named(head, fields)
        if head.grpc:
            fields.append(_TRAILERS)
        fields.append((b"via", _via(head.get_all(b"via"), head.version)))
        fields += self.extra
        sent = head.with_fields(tuple(fields))
        if head.shared:
            head.forwarded = (self, sent)
        return sent


def _drop_named(head: RequestHead | ResponseHead, fields: list[Field]) -> list[Field]:
    """Without the fields that ``Connection`` names (RFC 9110 §7.6.1)."""
    named = b",".join(head.get_all(b"connection"))
    if not named:
        return fields
    gone = {name.strip().lower() for name in named.split(b",")} - {b"content-length"}  # never unframe a body
    return [field for field in fields if field[0] not in gone]


def _via(before: list[bytes], version: tuple[int, int]) -> bytes:
    hop = b"h2 waypost" if version >= (2, 0) else b"%d.%d waypost" % version
    return b", ".join([*before, hop]) if before else hop


def call_depth(limit: int, next_service: Service) -> Service:
    """Refuse a request that came through more than ``limit`` hops."""

    def call_depth_service(exchange: Exchange) -> Conducting:
        if exchange.request.get(b"via") is not None:
            hops = sum(value.count(b",") + 1 for value in exchange.request.get_all(b"via"))
            if hops > limit:
                raise Failure(Kind.LOOP, _LOOP.format(limit), Blame.CLIENT)
        return next_service(exchange)

    return call_depth_service


_LOOP = "Maximum number of calls ({}) has been exceeded. Please check for proxy loops."


def response_headers(next_service: Service) -> Service:
    """Clean the response's head of hop-by-hop fields and append Via."""

    def edit(head: ResponseHead) -> ResponseHead:
        cached = head.forwarded
        if cached is not None and cached[0] is edit:
            known: ResponseHead = cached[1]
            return known
        fields = [field for field in head.fields if field[0] not in _DROPPED_RESPONSE]
        fields = _drop_named(head, fields)
        fields.append((b"via", b", ".join([*head.get_all(b"via"), b"1.1 waypost"])))
        sent = head.with_fields(tuple(fields))
        if head.shared:
            head.forwarded = (edit, sent)
        return sent

    def response_headers_service(exchange: Exchange) -> Conducting:
        exchange.edit(edit)
        return next_service(exchange)

    return response_headers_service


_CLIENT_CERT = b"x-forwarded-client-cert"


def forward_client_cert(wanted: bool, next_service: Service) -> Service:
    """Tell the endpoint whom the client's certificate is for; what the client says of that itself never gets here.

    Only certificates that were verified: a server that does not ask for them (``requireClientAuth``) has none.
    """
    if not wanted:
        return next_service

    def forward_client_cert_service(exchange: Exchange) -> Conducting:
        certificate = exchange.reply.client_certificate
        if certificate is not None:
            exchange.request = _with_certificate(exchange.request, certificate)
        return next_service(exchange)

    return forward_client_cert_service


def _with_certificate(head: RequestHead, certificate: bytes) -> RequestHead:
    """The head with the header; a connection has one certificate, hence a shared head of it one such head."""
    cached = head.forwarded
    if cached is not None and cached[0] is certificate:
        known: RequestHead = cached[1]
        return known
    sent = head.with_fields((*head.fields, (_CLIENT_CERT, certificate)))
    if head.shared:
        head.forwarded = (certificate, sent)
    return sent


def context_out(plan: Plan, next_service: Service) -> Service:
    """Send the request on under ``plan``."""

    def context_out_service(exchange: Exchange) -> Conducting:
        exchange.request = plan.apply(exchange.request)
        return next_service(exchange)

    return context_out_service
