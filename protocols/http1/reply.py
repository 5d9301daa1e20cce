"""The answer to one request of HTTP/1.1, framed as its version and method allow; and the answers of the connection itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.http1 import render, websocket
from protocols.http1.halves import Http1Sink
from router.model.answers import err_header
from router.model.body import Sink
from router.model.ends import Ends
from router.model.failure import Failure
from router.model.headers import CONNECT, Field, RequestHead, ResponseHead

if TYPE_CHECKING:
    from protocols.http1.server_connection import Http1ServerConnection


class Http1Reply(Http1Sink):
    """The answer to one request."""

    __slots__ = ("connection", "request", "started")

    carries_grpc = False
    discreet = False

    def __init__(self, connection: Http1ServerConnection, request: RequestHead) -> None:
        super().__init__(connection.wire, chunked=False)
        self.connection = connection
        self.request = request
        self.started = False

    @property
    def ends(self) -> Ends:
        """See :class:`router.model.exchange.Reply`."""
        return self.wire.ends

    @property
    def client_certificate(self) -> bytes | None:
        """See :class:`router.model.exchange.Reply`."""
        return self.wire.client_certificate

    @property
    def peer(self) -> str:
        """See :class:`router.model.exchange.Reply`."""
        return self.wire.peer

    def inform(self, head: ResponseHead) -> None:
        """Informational responses exist since HTTP/1.1."""
        if not self.started and self.request.version >= (1, 1):
            self.wire.write(render.response_head(head, b""))

    def start(self, head: ResponseHead, end: bool) -> Sink:
        """Send the head, framed as the request's version and method allow."""
        self.started = True
        connection = self.connection
        if head.status == 101:
            return self._switch(*websocket.answer(self.request, head))
        if self.request.tunnel == CONNECT and head.status < 300:
            return self._switch(head, b"")
        extra = b""
        bodiless = self.request.method == b"HEAD" or head.status in (204, 304)
        if head.length is None and not bodiless:
            if end:
                extra = b"content-length: 0\r\n"
            elif self.request.version >= (1, 1):
                extra, self.chunked = b"transfer-encoding: chunked\r\n", True
            else:
                connection.keep_alive = False
        if not connection.keep_alive:
            extra += b"connection: close\r\n"
        elif self.request.version == (1, 0):
            extra += b"connection: keep-alive\r\n"
        self.wire.write(render.response_head(head, extra))
        if end:
            self.ended = True
            self.on_ended()
        elif bodiless:
            self.chunked = False
        return self

    def _switch(self, head: ResponseHead, extra: bytes) -> Sink:
        """Leave HTTP/1.1 for the tunnel that was asked for."""
        self.wire.write(render.response_head(head, extra))
        return self.connection.open_tunnel()

    def abort(self, failure: Failure) -> None:
        self.connection.keep_alive = False
        super().abort(failure)

    def on_ended(self) -> None:
        self.connection.answered()


def refusal(status: int, text: str, *more: Field) -> bytes:
    """A whole response that ends the connection."""
    body = text.encode()
    fields = (
        (b"content-type", b"text/plain"),
        (b"l5d-err", err_header(text)),
        (b"content-length", b"%d" % len(body)),
        *more,
        (b"connection", b"close"),
    )
    return render.response_head(ResponseHead(status, fields), b"") + body
