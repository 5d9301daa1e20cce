"""HTTP/1.1 backends: framing that lies, early closes, informational responses, races of kept connections, heads of any size."""

from __future__ import annotations

import trio

from interop.negative.backend1 import Request, Script1
from interop.negative.probes.flow import BUFFERS, MIB, intact, pattern
from interop.negative.probes.grpc import CURL_EARLY
from interop.negative.probing import (
    H1_CLIENTS,
    H2_CLIENTS,
    Call,
    Expect,
    Probe,
    answers_are,
    attempts,
    broken,
    closed,
    connections,
    field_is,
    http,
    record_has,
    whole,
)

OK = "HTTP/1.1 200 OK\r\n"
CHUNKED = f"{OK}Transfer-Encoding: chunked\r\n\r\n"


def says(text: str | bytes, *, pause: float = 0.0, step: int = 0, close: bool = True, rest: bool = True) -> Script1:
    """Answer with these bytes, in two halves with a pause between if the text has `|`, and close."""
    data = text.encode("latin-1") if isinstance(text, str) else text

    async def run(request: Request) -> None:
        if rest:
            await request.rest()
        for at, part in enumerate(data.split(b"|")):
            if at:
                await trio.sleep(0.05)
            await request.send(part, step=step, pause=pause)
        if close:
            await request.close()
        else:
            await request.conn.until_closed()

    return Script1(run)


async def kept(request: Request) -> None:
    await request.rest()
    await request.answer()


async def closes_idle(request: Request) -> None:
    """Closes after its answer without saying so."""
    await request.rest()
    await request.answer()
    await request.close()


async def closes_second(request: Request) -> None:
    """Closes a kept connection on its second request, as a server does whose idle limit passes at that moment."""
    if request.turn == 1:
        await request.close()
    await request.rest()
    await request.answer()


async def says_close(request: Request) -> None:
    await request.rest()
    await request.answer(fields="Connection: close\r\n")
    await request.conn.until_closed()


async def unasked(request: Request) -> None:
    """Bytes that nobody asked for behind an answer: a second response, waiting for whoever comes next."""
    await request.rest()
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison" if request.attempt == 0 else b""
    await request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + poison)


async def unasked_later(request: Request) -> None:
    await request.rest()
    await request.answer()
    if request.attempt == 0:
        await trio.sleep(0.05)
        await request.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await request.close()


async def bodiless(request: Request) -> None:
    """204 with a body."""
    await request.rest()
    if request.attempt == 0:
        await request.send(b"HTTP/1.1 204 No Content\r\n\r\npoison")
        await request.conn.until_closed()
    else:
        await request.answer()


async def head_with_body(request: Request) -> None:
    await request.rest()
    await request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + (b"hello" if request.line.startswith("GET") else b""))


async def until_eof(request: Request) -> None:
    await request.rest()
    await request.send(OK.encode() + b"\r\n" + pattern(100_000))
    await request.close()


async def early(request: Request) -> None:
    """413 after the first bytes of an upload, and the connection closed behind it, unread bytes and all."""
    await request.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large")
    await request.close()


async def early_reading(request: Request) -> None:
    await request.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large")
    await request.conn.until_closed()


async def big_head(request: Request) -> None:
    size = int(request.line.split()[1].rsplit("/", 1)[1])
    pads = "".join(f"X-Pad-{at}: {'p' * min(4000, size - at)}\r\n" for at in range(0, size, 4000))
    await request.answer(fields=pads)


async def silent(request: Request) -> None:
    await request.conn.until_closed()


async def flood(request: Request) -> None:
    await request.send(CHUNKED.encode())
    while True:
        await request.send(b"10000\r\n" + bytes(65_536) + b"\r\n")


async def large(request: Request) -> None:
    await request.rest()
    await request.send(f"{OK}Content-Length: {4 * MIB}\r\n\r\n".encode() + pattern(4 * MIB))


async def slow_reader(request: Request) -> None:
    await trio.sleep(0.5)
    size = int(request.get("content-length") or 0)
    if size:
        for _ in range(10):
            await request.some(size // 10)
            await trio.sleep(0.02)
        request.ended = True
    await request.rest()
    await request.answer()


async def trailers(request: Request) -> None:
    await request.rest()
    await request.send(f"{OK}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n".encode())


async def upload(request: Request) -> None:
    await request.rest()
    await request.answer()


HTTP_502 = [http(502)]
HELLO = http(200, size=5)
HELD_BACK: Expect = record_has(
    f"no more than {BUFFERS >> 20} MiB taken",
    lambda record: max((s.sent for s in record.streams), default=0),
    lambda got: 0 < got <= BUFFERS,
)  # type: ignore[operator]
BROKEN1, BROKEN2 = [broken("closed")], [broken("RST 1", "RST 2")]


def both(name: str, about: str, script: Script1, h1: list[Expect], h2: list[Expect] | None = None, backend: tuple = (), **more):
    """The same backend behind HTTP/1.1 and HTTP/2 clients."""
    yield Probe(name, about, "h1", H1_CLIENTS, script, h1, backend, **more)
    yield Probe(f"{name}, HTTP/2 client", about, "h2-h1", H2_CLIENTS, script, h2 or h1, backend, **more)


TRUNCATED = [
    ("chunk size that is no number", f"{CHUNKED}5\r\nhello\r\n|zz\r\nhello\r\n0\r\n\r\n"),
    ("chunk longer than its size", f"{CHUNKED}5\r\nhello\r\n|5\r\nhello!\r\n0\r\n\r\n"),
    ("chunk size with a sign", f"{CHUNKED}5\r\nhello\r\n|+5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size beyond 64 bits", f"{CHUNKED}5\r\nhello\r\n|fffffffffffffffff\r\nhello"),
    ("chunks without the last", f"{CHUNKED}5\r\nhello\r\n|5\r\nhello\r\n"),
    ("closed within a chunk", f"{CHUNKED}5\r\nhello\r\n|a\r\nhello"),
    ("closed within the trailers", f"{CHUNKED}5\r\nhello\r\n|0\r\nX-Sum: 4"),
    ("body below its length", f"{OK}Content-Length: 100\r\n\r\n|hello"),
]
REFUSED = [
    ("closed before the head", ""),
    ("closed within the head", "HTTP/1.1 200 OK\r\nContent-Le"),
    ("no HTTP at all", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
    ("HTTP/2 frames", b"\0\0\0\x04\0\0\0\0\0"),
    ("HTTP/0.9", "<html>hello</html>"),
    ("a version from the future", "HTTP/3.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("two lengths", f"{OK}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("a length that is no number", f"{OK}Content-Length: +5\r\n\r\nhello"),
    ("a negative length", f"{OK}Content-Length: -5\r\n\r\nhello"),
    ("length and chunks", f"{OK}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("chunked twice", f"{OK}Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("space before a colon", f"{OK}Content-Length : 5\r\n\r\nhello"),
    ("a folded line", f"{OK}X-Fold: a\r\n b\r\nContent-Length: 5\r\n\r\nhello"),
    ("NUL in a value", f"{OK}X-Nul: a\0b\r\nContent-Length: 5\r\n\r\nhello"),
    ("bare CR in a value", f"{OK}X-Cr: a\rb\r\nContent-Length: 5\r\n\r\nhello"),
    ("101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    ("1xx without end", "HTTP/1.1 100 Continue\r\n\r\n" * 200),
]

PROBES = [
    *(p for name, text in TRUNCATED for p in both(f"HTTP/1.1 backend: {name}", "7.4", says(text), BROKEN1, BROKEN2, (attempts(1),))),
    *(p for name, text in REFUSED for p in both(f"HTTP/1.1 backend: {name}", "RFC 9112", says(text), HTTP_502,
                                               [answers_are("HTTP 502 or RST 2", lambda a: a.http == 502 or a.broken == "RST 2")],
                                               (attempts(1),))),
    *both(
        "HTTP/1.1 backend: 103 before 200", "1.13",
        says("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n|HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        [http(200, size=5, informational=(103,))], None, (attempts(1),),
    ),
    *both(
        "HTTP/1.1 backend: 100 that nobody awaits", "RFC 9110 15.2",
        says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n|HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        [HELLO], None, (attempts(1),),
    ),
    *both(
        "HTTP/1.1 backend: connection closed between calls", "RFC 9112 9.5", Script1(closes_idle), [HELLO], None,
        (attempts(3),), calls=(Call(),) * 3,
    ),
    *both(
        "HTTP/1.1 backend: GET meets the end of a kept connection", "RFC 9112 9.5: replay", Script1(closes_second), [HELLO], None,
        (attempts(3), connections(2)), calls=(Call(), Call()),
    ),
    Probe(
        "HTTP/1.1 backend: POST meets the end of a kept connection", "RFC 9112 9.5: no replay", "h1", H1_CLIENTS,
        Script1(closes_second), [http(200, 502)], [attempts(2)], (Call(), Call(send=2, size=10)),
    ),
    *both(
        "HTTP/1.1 backend: Connection: close", "RFC 9112 9.6", Script1(says_close), [HELLO], None, (attempts(2), connections(2), closed()),
        calls=(Call(), Call()),
    ),
    *both("HTTP/1.1 backend: kept connection", "RFC 9112 9.3", Script1(kept), [HELLO], None, (connections(1),), calls=(Call(),) * 5),
    *both(
        "HTTP/1.1 backend: a response that nobody asked for", "RFC 9112 6.3", Script1(unasked),
        [answers_are("hello, always", lambda a: a.http == 200 and a.size == 5)], None, (attempts(3), connections(2)),
        calls=(Call(),) * 3,
    ),
    *both(
        "HTTP/1.1 backend: 408 on an idle connection", "RFC 9110 15.5.9", Script1(unasked_later), [HELLO], None,
        (attempts(2), connections(2)), calls=(Call(), Call(before=0.3)),
    ),
    *both(
        "HTTP/1.1 backend: 204 with a body", "RFC 9112 6.3", Script1(bodiless), [http(204, 200)], None, (connections(2),),
        calls=(Call(), Call()),
    ),
    Probe(
        "HTTP/1.1 backend: HEAD with a length, then GET", "RFC 9112 6.3", "h1", H1_CLIENTS, Script1(head_with_body), [http(200)],
        [connections(1)], (Call(options=("-I",)), Call()),
    ),
    *both("HTTP/1.1 backend: body until the end of the connection", "RFC 9112 6.3", Script1(until_eof), [http(200, size=100_000)]),
    *both(
        "HTTP/1.1 backend: trailers", "1.13", Script1(trailers), [HELLO, field_is("x-sum", "42")],
    ),
    *both(
        "HTTP/1.1 backend: early 413, then closed", "1.7", Script1(early), [http(413, size=9)], None, (attempts(1),),
        calls=(Call(send=2, size=10_000_000),), skip={"curl-h2": CURL_EARLY},
    ),
    *both(
        "HTTP/1.1 backend: early 413, nothing read", "1.7", Script1(early_reading), [http(413, size=9)], None, (attempts(1), closed()),
        calls=(Call(send=2, size=10_000_000),), skip={"curl-h2": CURL_EARLY},
    ),
    *both(
        "HTTP/1.1 backend: heads of 7, 20 and 60 KB", "5.3", Script1(big_head),
        [HELLO, answers_are("every byte of them", lambda a: a.pad in (7000, 20_000, 60_000), lambda a: a.pad)], None, (attempts(3),),
        calls=(Call("/7000"), Call("/20000"), Call("/60000")),
    ),
    Probe(
        "HTTP/1.1 backend: head of 120 KB", "5.3", "h1", H1_CLIENTS, Script1(big_head), HTTP_502, [attempts(1)], (Call("/120000"),),
    ),
    Probe(
        "HTTP/1.1: request heads of 7, 30 and 60 KB", "5.3", "h1", H1_CLIENTS, Script1(kept), [HELLO], [attempts(3)],
        tuple(Call(pad=size) for size in (7000, 30_000, 60_000)),
    ),
    Probe(
        "HTTP/1.1: request head of 120 KB", "5.3", "h1", H1_CLIENTS, Script1(kept), [http(431)], [attempts(0)],
        (Call(pad=120_000),),
    ),
    *both(
        "HTTP/1.1 backend: client that gives up", "1.8", Script1(silent), [answers_are("no answer", lambda a: a.http is None)], None,
        (attempts(1), closed()), calls=(Call(deadline=1.0),),
    ),
    Probe(
        "HTTP/1.1 backend: a reader that stops", "1.12", "h1", H1_CLIENTS, Script1(flood),
        [answers_are("gave up", lambda a: a.broken == "timeout")], [HELD_BACK, closed()], (Call(deadline=1.5, slow=1000),),
    ),
    Probe(
        "HTTP/1.1 backend: a reader that stops, HTTP/2 client", "1.12", "h2-h1", ("curl-h2",), Script1(flood),
        [answers_are("gave up", lambda a: a.broken == "timeout")], [HELD_BACK, closed()], (Call(deadline=1.5, slow=1000),),
    ),
    Probe(
        "HTTP/1.1 backend: slow reader", "1.12", "h1", H1_CLIENTS, Script1(large), [http(200), intact(4 * MIB)], [],
        (Call(slow=4 * MIB),),
    ),
    *both(
        "HTTP/1.1 backend: slow reader in the backend", "1.12", Script1(slow_reader), [HELLO], None, (whole(4_000_000),),
        calls=(Call(send=2, size=4_000_000, headers=(("Expect", ""),)),),
    ),
    *both(
        "HTTP/1.1 backend: slow writer", "1.12", says(f"{OK}Content-Length: 50\r\n\r\n{'x' * 50}", step=1, pause=0.002),
        [http(200, size=50)], None, (attempts(1),),
    ),
    Probe(
        "HTTP/1.1: slow writer in the client", "1.12", "h1", H1_CLIENTS, Script1(upload), [HELLO], [whole(500_000)],
        (Call(send=2, size=500_000, up=1_000_000),),
    ),
    Probe(
        "HTTP/1.1: chunked upload after 100 (Continue)", "1.13", "h1", H1_CLIENTS, Script1(upload), [HELLO], [whole(500_000)],
        (Call(send=2, size=500_000, headers=(("Expect", "100-continue"), ("Transfer-Encoding", "chunked"))),),
    ),
]  # fmt: skip
