"""gRPC's shapes: statuses, metadata, informational responses, early answers, cancellation, deadlines."""

from __future__ import annotations

import re

import trio

from interop.negative.backend2 import GRPC_HEAD, PLAIN_HEAD, Fields, Record, Script, Stream
from interop.negative.probing import (
    GRPC_CLIENTS,
    H2_CLIENTS,
    Call,
    Expect,
    Probe,
    answers_are,
    attempts,
    connections,
    field_is,
    grpc,
    http,
    record_has,
    reset,
    whole,
    within,
)

BODY = b"\0\0\0\0\x64" + bytes(100)
OK = grpc(0, size=100)
MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
ESCAPED = "".join(chr(b) if 32 <= b < 127 and b != 37 else f"%{b:02X}" for b in MESSAGE.encode())
CURL_SHORT = "curl 7.88 ends an upload that was answered short of its content-length, which makes it malformed"
CURL_EARLY = "curl 7.88 takes RST_STREAM(NO_ERROR) behind a response for an error while it sends, with nothing in between too"


def said(status: int, **fields: str) -> Fields:
    return (*GRPC_HEAD, ("grpc-status", str(status)), *((k.replace("_", "-"), v) for k, v in fields.items()))


# --- shapes -------------------------------------------------------------------------------------------------------------------


async def trailers_only(stream: Stream) -> None:
    await stream.request()
    await stream.head(said(2, grpc_message=ESCAPED, x_neg_bin="q6ur"), end=True)


async def http_status(stream: Stream) -> None:
    await stream.request()
    status = (stream.get(":path") or "").rsplit("/", 1)[1]
    await stream.head(((":status", status), ("content-type", "text/plain")))
    await stream.data(b"no gRPC here", end=True)


async def early_hints(stream: Stream) -> None:
    await stream.request()
    await stream.head(((":status", "103"), ("link", "</style.css>; rel=preload")))
    await trio.sleep(0.02)
    await stream.answer(BODY)


async def plain_hints(stream: Stream) -> None:
    await stream.request()
    await stream.head(((":status", "103"), ("link", "</style.css>; rel=preload")))
    await stream.head(PLAIN_HEAD)
    await stream.data(b"hello", end=True)


async def second_head(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(BODY)
    await stream.head((("x-again", "yes"),))
    await stream.finish()


async def data_first(stream: Stream) -> None:
    await stream.request()
    if (stream.get(":path") or "").endswith("good"):
        await stream.answer(BODY)
        return
    await stream.data(BODY)
    await stream.until(lambda: False)


async def malformed_head(stream: Stream) -> None:
    """What RFC 9113 calls malformed ends its stream alone; the calls between share the connection."""
    await stream.request()
    bad = {
        "upper": ("X-Upper", "1"), "connection": ("connection", "close"), "pseudo": (":path", "/"),
        "te": ("transfer-encoding", "chunked"),
    }.get((stream.get(":path") or "").rsplit("/", 1)[1])  # fmt: skip
    if bad is None:
        await stream.answer(BODY)
        return
    await stream.head((*GRPC_HEAD, bad), end=True)


async def unended(stream: Stream) -> None:
    """A clean END_STREAM without trailers."""
    await stream.request()
    await stream.head()
    await stream.data(BODY, end=True)


async def echo_pads(stream: Stream) -> None:
    await stream.request()
    size = int((stream.get(":path") or "").rsplit("/", 1)[1])
    pads = [(f"x-pad-{at}", "p" * min(4000, size - at)) for at in range(0, size, 4000)]
    await stream.head((*GRPC_HEAD, *pads))
    await stream.data(BODY)
    await stream.finish()


async def fragments(stream: Stream) -> None:
    await stream.request()
    await stream.head((*GRPC_HEAD, ("x-pad-0", "p" * 40)), fragment=7, pause=0.001)
    await stream.data(BODY)
    await stream.finish()


async def plain_answer(stream: Stream) -> None:
    await stream.request()
    await stream.answer(BODY)


# --- early answers, half-closed streams ---------------------------------------------------------------------------------------


async def early_status(stream: Stream) -> None:
    await stream.first(1000)
    await stream.head(said(5, grpc_message="not here"), end=True)
    await stream.rst(0)


async def early_status_silent(stream: Stream) -> None:
    await stream.first(1000)
    await stream.head(said(5, grpc_message="not here"), end=True)
    await stream.was_reset()


async def early_refusal(stream: Stream) -> None:
    await stream.first(1000)
    await stream.head(((":status", "413"), ("content-type", "text/plain"), ("content-length", "9")))
    await stream.data(b"too large", end=True)
    await stream.rst(0)


async def early_large(stream: Stream) -> None:
    """More of an answer than a window, then the reset: nothing of the answer may be lost."""
    await stream.first(1000)
    await stream.head(((":status", "413"), ("content-type", "text/plain")))
    await stream.data(bytes(200_000), end=True)
    await stream.rst(0)


async def echo(stream: Stream) -> None:
    """An answer for every message, as it comes."""
    await stream.head()
    size = int(stream.get("x-size") or 0) + 5
    for at in range(int(stream.get("x-count") or 0)):
        await stream.first((at + 1) * size)
        await stream.data(BODY)
    await stream.request()
    await stream.finish()


async def head_late(stream: Stream) -> None:
    """The client's half has long ended when the answer begins."""
    await stream.request()
    await trio.sleep(0.2)
    await stream.head()
    await trio.sleep(0.2)
    await stream.data(BODY)
    await trio.sleep(0.2)
    await stream.finish()


# --- cancellation, deadlines --------------------------------------------------------------------------------------------------


async def silent(stream: Stream) -> None:
    await stream.was_reset()


async def one_message(stream: Stream) -> None:
    await stream.head()
    await stream.data(BODY)
    await stream.was_reset()


async def slow_refusal(stream: Stream) -> None:
    await stream.request()
    if stream.attempt == 0:
        await trio.sleep(0.3)
        await stream.rst(7)
    else:
        await stream.answer(BODY)


UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def timeouts(record: Record) -> list[float]:
    """The `grpc-timeout` of every attempt, in seconds."""
    found = [re.fullmatch(r"(\d{1,8})([HMSmun])", stream.get("grpc-timeout") or "") for stream in record.streams]
    return [round(int(each[1]) * UNITS[each[2]], 3) if each else -1.0 for each in found]


def _shrinks(got: object) -> bool:
    assert isinstance(got, list)
    return len(got) == 2 and 0 < got[1] <= got[0] - 0.25


def _untouched(record: Record) -> str:
    if not record.streams:
        return "no request, nothing"
    stream = record.streams[0]
    wrong = [name for name in ("connection", "x-forwarded-proto", "content-length") if stream.get(name)]
    if stream.get("accept-encoding") not in (None, "identity"):  # grpc-js asks for identity
        wrong.append("accept-encoding")
    if [v for k, v in stream.fields if k == "te"] != ["trailers"]:
        wrong.append("te")
    return ", ".join(wrong) or "nothing"


def _target(record: Record) -> str:
    return " ".join(f"{stream.get(':authority')} {stream.get(':path')}" for stream in record.streams)


UNTOUCHED: Expect = record_has("te and nothing added", lambda r: f"{_untouched(r)} added", lambda got: got == "nothing added")
SAME_TARGET: Expect = record_has(
    "neg.example:80 /neg.Probe/a%20b", _target, lambda got: got == "neg.example:80 /neg.Probe/a%20b"
)
OPEN: Expect = record_has("no open stream", lambda record: sum(stream.open for stream in record.streams), lambda got: got == 0)


def pads(*sizes: int) -> tuple[Call, ...]:
    return tuple(Call(f"/neg.Probe/{size}") for size in sizes)


PROBES = [
    Probe(
        "trailers-only with escapes and -bin", "5.3", "grpc", GRPC_CLIENTS, Script(trailers_only),
        [grpc(2, text=MESSAGE), answers_are("x-neg-bin ababab", lambda a: a.extra == "ababab" or not a.extra.strip("ab"),
                                            lambda a: a.extra)], [attempts(1)],
    ),
    Probe(
        "trailers-only stays one frame", "1.2", "grpc", ("nghttp",), Script(trailers_only),
        [http(200, size=0), field_is("grpc-message", ESCAPED)], [attempts(1)],
        (Call(headers=(("content-type", "application/grpc"), ("te", "trailers"))),),
    ),
    Probe(
        "HTTP 503, 429, 404 without grpc-status", "5.3", "grpc", GRPC_CLIENTS, Script(http_status), [grpc(14, 14, 12)],
        calls=(Call("/neg.Probe/503"), Call("/neg.Probe/429"), Call("/neg.Probe/404")),
    ),
    Probe("103 before 200", "5.3, 7.4", "grpc", GRPC_CLIENTS, Script(early_hints), [OK], [attempts(1)]),
    Probe(
        "HTTP/2: 103 before 200", "1.13", "h2", H2_CLIENTS, Script(plain_hints), [http(200, informational=(103,))], [attempts(1)],
    ),
    Probe("HTTP/1.1: 103 before 200", "1.13", "h1-h2", ("curl",), Script(plain_hints), [http(200, informational=(103,))]),
    Probe("a second head within the stream", "1.2", "grpc", GRPC_CLIENTS, Script(second_head), [grpc(13)], [attempts(1)]),
    Probe(
        "DATA before a head, then a good call", "1.2", "grpc", GRPC_CLIENTS, Script(data_first), [grpc(13, 0)], [attempts(2)],
        (Call("/neg.Probe/bad"), Call("/neg.Probe/good")),
    ),
    Probe(
        "malformed heads between good calls", "0.2", "grpc", GRPC_CLIENTS, Script(malformed_head), [grpc(0, 13, 13, 13, 13, 0)],
        [attempts(6), connections(1)],
        tuple(Call(f"/neg.Probe/{word}") for word in ("good", "upper", "connection", "pseudo", "te", "good")),
    ),
    Probe(
        "END_STREAM without grpc-status", "1.2", "grpc", GRPC_CLIENTS, Script(unended),
        [answers_are("gRPC 2 or 13", lambda a: a.grpc in (2, 13))], [attempts(1)],
        skip={"grpclib": "waits for trailers until its deadline, with nothing in between too"},
    ),
    Probe(
        "response heads of 7, 20 and 60 KB", "5.3", "grpc", GRPC_CLIENTS, Script(echo_pads),
        [grpc(0, size=100), answers_are("every byte of them", lambda a: a.pad in (7000, 20000, 60000), lambda a: a.pad)],
        calls=pads(7000, 20000, 60000),
        skip={"grpclib": "h2 takes no more than 64 KiB of what it counts as a head, overhead included"}
    ),
    Probe(
        "response head of 120 KB between two of 7 KB", "5.3", "grpc", GRPC_CLIENTS, Script(echo_pads), [grpc(0, 13, 0)],
        [attempts(3), connections(1)], pads(7000, 120_000, 7000),
    ),
    Probe(
        "request heads of 15, 30 and 60 KB", "5.3", "grpc", GRPC_CLIENTS, Script(plain_answer), [OK], [attempts(3)],
        tuple(Call(pad=size) for size in (15_000, 30_000, 60_000)),
    ),
    Probe(
        "request head of 120 KB, then a good call", "5.3", "grpc", GRPC_CLIENTS, Script(plain_answer),
        # grpc-js sends its content type last, where the limit has cut the head: it is told 431, which it takes for 2.
        [answers_are("gRPC 8 or 13 (grpc-js: 2), then 0", lambda a: a.grpc in (0, 2, 8, 13))], [attempts(1)],
        (Call(pad=120_000), Call()),
    ),
    Probe(
        "HTTP/2: request head of 900 fields, 74 KB with their overhead", "1.4", "h2", ("nghttp",), Script(plain_answer),
        [answers_are("HTTP 431, or 200 where the limit is higher", lambda a: not a.broken and a.http in (200, 431))], [],
        (Call(headers=tuple((f"x-pad-{at:04}", "p" * 40) for at in range(900))),),
    ),
    Probe("response head in fragments of 7 bytes", "1.1", "grpc", GRPC_CLIENTS, Script(fragments), [OK], [attempts(1)]),
    Probe(
        "nothing added to a request but the proxy's own", "5.3", "grpc", GRPC_CLIENTS, Script(plain_answer), [OK], [UNTOUCHED],
    ),
    Probe(
        "authority and path on their way", "5.3", "grpc", ("nghttp",), Script(plain_answer), [http(200)], [SAME_TARGET],
        (Call("/neg.Probe/a%20b", headers=(("content-type", "application/grpc"), ("te", "trailers"), (":authority", "neg.example:80"))),),
    ),
    Probe(
        "early NOT_FOUND and RST(NO_ERROR) while the client sends", "1.7, 5.3", "grpc", GRPC_CLIENTS, Script(early_status),
        [grpc(5)], [attempts(1)], (Call(send=50, size=10_000, gap=10),),
    ),
    Probe(
        "early NOT_FOUND while the client sends", "1.7", "grpc", GRPC_CLIENTS, Script(early_status_silent), [grpc(5)],
        [attempts(1), reset(0, 8)], (Call(send=50, size=10_000, gap=10),),
    ),
    Probe(
        "HTTP/2: early 413 while the client sends", "1.7", "h2", H2_CLIENTS, Script(early_refusal), [http(413, size=9)],
        [attempts(1)], (Call(send=2, size=10_000_000),), skip={"curl-h2": CURL_EARLY},
    ),
    Probe(
        "HTTP/2: early 413 of 200 KB", "1.7", "h2", H2_CLIENTS, Script(early_large), [http(413, size=200_000)], [attempts(1)],
        (Call(send=2, size=10_000_000),), skip={"curl-h2": CURL_SHORT},
    ),
    Probe(
        "messages in lockstep", "1.7", "grpc", GRPC_CLIENTS, Script(echo), [grpc(0, size=2000)], [whole(20 * 105)],
        (Call(send=20, size=100, lockstep=True, headers=(("x-size", "100"), ("x-count", "20"))),),
    ),
    Probe("an answer long after the client's half has ended", "1.7", "grpc", GRPC_CLIENTS, Script(head_late), [OK], [attempts(1)]),
    Probe(
        "cancelled after the head", "1.8, 5.3", "grpc", GRPC_CLIENTS, Script(silent), [grpc(1)], [attempts(1), reset(8)],
        (Call(cancel="start"),),
    ),
    Probe(
        "cancelled after a message", "1.8, 5.3", "grpc", GRPC_CLIENTS, Script(one_message), [grpc(1)], [attempts(1), reset(8)],
        (Call(cancel="message"),),
    ),
    Probe(
        "deadline of the client", "1.8, 5.3", "grpc", GRPC_CLIENTS, Script(silent), [grpc(4)], [attempts(1), reset(8)],
        (Call(deadline=0.3),),
    ),
    Probe(
        "200 clients that cancel", "7.4: leaked streams", "grpc", GRPC_CLIENTS, Script(silent), [grpc(1)],
        [attempts(200), reset(8), OPEN, connections(1, 10)], (Call(cancel="start", after=1500),) * 200, parallel=True,
    ),
    Probe(
        "1,000 clients that cancel", "7.4: leaked streams", "grpc", ("grpc-go",), Script(silent), [grpc(1)],
        [attempts(1000), reset(8), OPEN, connections(1, 10)], (Call(cancel="start", after=3000),) * 1000, parallel=True, slow=True,
    ),
    Probe(
        "HTTP/2: client that gives up", "1.8", "h2", H2_CLIENTS, Script(silent),
        [answers_are("no answer", lambda a: a.http is None)], [attempts(1), reset(8)], (Call(deadline=1.0),),
    ),
    Probe(
        "grpc-timeout is what is left", "5.3, 1.3", "grpc", GRPC_CLIENTS, Script(slow_refusal), [OK],
        [record_has("a second attempt with 0.25 s less", timeouts, _shrinks)],
    ),
    Probe(
        "deadline of 200 ms and an upload that is stuck", "7.4: the clock starts with the head", "grpc", ("nghttp",),
        Script(silent, credit=False), [http(200), field_is("grpc-status", "4"), within(1.0)], [attempts(1), reset(8)],
        (Call(send=2, size=5_000_000, headers=(("content-type", "application/grpc"), ("te", "trailers"),
                                                         ("grpc-timeout", "200m"))),),
    ),
]  # fmt: skip
