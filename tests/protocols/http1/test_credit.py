"""Credit that a congested socket holds back is not lost with the exchange."""

from __future__ import annotations

from typing import Any

from protocols.http1.core import Limits
from protocols.http1.server import Http1Server
from protocols.http1.server_connection import Http1ServerConnection
from router.model.abuse import AbuseLimits
from router.model.answers import render_http
from router.model.body import Source
from router.model.events import Events
from router.model.exchange import Exchange
from router.model.headers import ResponseHead
from router.model.metrics import Metrics
from router.model.timers import Timers
from router.spi import ServerContext


class Body(Source):
    def __init__(self) -> None:
        super().__init__()
        self.credited = 0

    def credit(self, size: int) -> None:
        self.credited += size


class Wire:
    peer = "test"
    congested = True
    unsent = sent = 0
    secure = False
    client_certificate = None

    def write(self, data: Any) -> None:
        pass

    close = pause = resume = lambda self: None


class Host:
    """Nothing is timed here, and nothing crashes."""

    def __init__(self) -> None:
        self.timers = Timers(lambda: 0.0, self.crashed)
        self.events = Events()

    def crashed(self, error: Exception) -> None:
        raise error


def test_an_answer_that_ends_while_the_socket_is_full_gives_its_credit_back() -> None:
    body = Body()

    async def service(exchange: Exchange) -> None:
        body.join(exchange.respond(ResponseHead(200, (), length=5), False))
        exchange.conclude(())
        body.push(b"hello", 5, True)

    host: Any = Host()
    wire: Any = Wire()
    server = Http1Server(Limits(), ServerContext(host, None, service, render_http, Metrics()), AbuseLimits())
    connection = Http1ServerConnection(wire, Limits(), server, 0.0)
    connection.received(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    assert body.credited == 5
