"""`python -m interop.fuzz.seeds`: write the seed corpus, from what independent peers say and from `docs/`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h11
import hpack

CORPUS = Path(__file__).with_name("corpus")
TOP = Path(__file__).parents[2]
HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/a?b=c"), (":authority", "web")]


def http2_server() -> Iterator[bytes]:
    """What an h2 client sends behind its greeting."""
    for number, act in enumerate((_post, _reset, _ping, _trailers, _priority, _window, _goaway)):
        client = h2.connection.H2Connection(h2.config.H2Configuration())
        client.initiate_connection()
        client.data_to_send()
        act(client)
        yield bytes([number % 3]) + client.data_to_send()


def _post(client: h2.connection.H2Connection) -> None:
    client.send_headers(1, [*HEAD, ("content-length", "5")])
    client.send_data(1, b"hello", end_stream=True)
    client.send_headers(3, [(":method", "GET"), *HEAD[1:]], end_stream=True)


def _reset(client: h2.connection.H2Connection) -> None:
    client.send_headers(1, HEAD)
    client.send_data(1, b"x" * 300, pad_length=7)
    client.reset_stream(1, 8)


def _ping(client: h2.connection.H2Connection) -> None:
    client.ping(b"12345678")
    client.update_settings({4: 1000, 1: 0})


def _trailers(client: h2.connection.H2Connection) -> None:
    client.send_headers(1, [*HEAD, ("te", "trailers"), ("content-type", "application/grpc"), ("grpc-timeout", "1S")])
    client.send_data(1, bytes(5))
    client.send_headers(1, [("x-end", "yes")], end_stream=True)


def _priority(client: h2.connection.H2Connection) -> None:
    client.send_headers(1, HEAD, priority_weight=10, priority_depends_on=0)
    client.prioritize(3, weight=5, depends_on=1)
    client.end_stream(1)


def _window(client: h2.connection.H2Connection) -> None:
    client.increment_flow_control_window(1000)
    client.send_headers(1, [*HEAD, *[("x-much", "y" * 3000)] * 8])
    client.increment_flow_control_window(1000, 1)


def _goaway(client: h2.connection.H2Connection) -> None:
    client.send_headers(1, HEAD, end_stream=True)
    client.close_connection(0, b"bye")


def hpack_blocks() -> Iterator[bytes]:
    """Two blocks of one encoder each."""
    for huffman in (False, True):
        for resize in (None, 0, 100):
            encoder = hpack.Encoder()
            first = encoder.encode([*HEAD, ("x-id", "1"), ("cookie", "a=b")], huffman=huffman)
            if resize is not None:
                encoder.header_table_size = resize
            second = encoder.encode([*HEAD, ("x-id", "2"), ("authorization", "secret", True)], huffman=huffman)
            yield bytes([len(first)]) + first + second


def http1_requests() -> Iterator[bytes]:
    """What an h11 client sends, and what it would not."""
    for number, framing in enumerate(({"content-length": "5"}, {"transfer-encoding": "chunked"})):
        client = h11.Connection(h11.CLIENT)
        request = h11.Request(method="POST", target="/a", headers=[("host", "web"), *framing.items()])
        events = (request, h11.Data(data=b"hello"), h11.EndOfMessage())
        yield bytes([number]) + b"".join([client.send(event) or b"" for event in events])
    yield b"\3GET /a HTTP/1.1\r\nhost: web\r\n\r\nGET http://b/c HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    yield b"\1POST /a HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n"
    yield b"\0\r\nOPTIONS * HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 3, 3\r\n\r\nabc"


def http1_responses() -> Iterator[bytes]:
    """What servers answer."""
    yield b"\0HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    yield b"\1HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + chunked
    yield b"\2HTTP/1.0 200 OK\r\n\r\nuntil the end"
    yield b"\3HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"


def dtabs() -> Iterator[bytes]:
    """Every form of the grammar."""
    yield b"/svc => /#/io.l5d.fs ; /host/* => 3 * /a & .5 * /b ; # a comment\n/x => (/a | /b & /c) | ~ | ! | $ ;"
    yield b"/a=>/$/inet/127.0.0.1/80;/b=>/$/io.buoyant.rinet/80/a.b;/c=>/$/nil"
    yield b"/utf\\x20 => /a\\x2fb ;;"
    yield b"/a => /b /c"
    yield b"/" + b"(" * 70


def configs() -> Iterator[bytes]:
    """The examples of the documents, and files with faults."""
    for file in sorted((TOP / "docs" / "examples").glob("*.yaml")):
        yield file.read_bytes()
    yield json.dumps({"routers": [{"protocol": "http", "servers": [{"port": 0}], "dtab": "/svc => /a"}]}).encode()
    yield b"routers:\n- protocol: h2\n  dtab: /svc =>\n  servers: [{port: 99999, tls: {certPath: x}}]\n  client: {kind: nope}\n"
    yield b"namers: [&a {kind: io.l5d.fs, rootDir: /tmp}, *a]\nrouters: []\nadmin: {port: x}\n"
    yield b"routers:\n- protocol: grpc\n  service: {retries: {budget: {percentCanRetry: 2.5}}, totalTimeoutMs: -1}\n"


SEEDS = {
    "http2-server": http2_server,
    "hpack": hpack_blocks,
    "http1-request": http1_requests,
    "http1-response": http1_responses,
    "dtab": dtabs,
    "config": configs,
}


def main() -> None:
    for name, seeds in SEEDS.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(seeds()):
            (folder / f"seed-{number:02}").write_bytes(data)


if __name__ == "__main__":
    main()
