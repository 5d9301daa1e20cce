"""Resets before, during and after the response, with every code; lost connections; GOAWAY."""

from __future__ import annotations

import trio

from interop.negative.backend2 import PLAIN_HEAD, Connection, Record, Script, Stream
from interop.negative.probing import (
    GRPC_CLIENTS,
    H1_CLIENTS,
    H2_CLIENTS,
    Answer,
    Call,
    Expect,
    Probe,
    answers_are,
    attempts,
    broken,
    connections,
    field_is,
    grpc,
    http,
    record_has,
)

CODES = range(14)
# gRPC over HTTP/2, "Errors": what a reset with each code means to a caller.
GRPC_OF = [{7: 14, 8: 1, 11: 8, 12: 7}.get(code, 13) for code in CODES]
# What may be told to an HTTP/2 client: codes about our own conduct towards the backend, and the one of a clean end, may not.
H2_OF = [code if code in (7, 8, 11) else 2 for code in CODES]
BODY = b"\0\0\0\0\x64" + bytes(100)
EACH = tuple(Call(f"/neg.Probe/{code}", deadline=5.0) for code in CODES)


def code_of(stream: Stream) -> int:
    return int((stream.get(":path") or "").rsplit("/", 1)[1])


async def before_head(stream: Stream) -> None:
    await stream.request()
    await stream.rst(code_of(stream))


async def after_head(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.rst(code_of(stream))


async def during_data(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(BODY[:50])
    await stream.rst(code_of(stream))


async def later_during_data(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(BODY[:50])
    await trio.sleep(0.03)
    await stream.rst(code_of(stream))


async def after_data(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(BODY)
    await stream.rst(code_of(stream))


async def within_body(stream: Stream) -> None:
    await stream.request()
    await stream.head((*PLAIN_HEAD, ("content-length", "100")))
    await stream.data(bytes(50))
    await trio.sleep(0.03)
    await stream.rst(code_of(stream))


async def within_unsized_body(stream: Stream) -> None:
    await stream.request()
    await stream.head(PLAIN_HEAD)
    await stream.data(bytes(50))
    await trio.sleep(0.03)
    await stream.rst(code_of(stream))


def _once(record: Record) -> object:
    asked = [code_of(stream) for stream in record.streams if code_of(stream) != 7]
    return "one attempt for each code but REFUSED_STREAM" if asked == [c for c in CODES if c != 7] else f"attempts {asked}"


ONCE = record_has("one attempt for each code but REFUSED_STREAM", _once, lambda got: str(got).startswith("one"))
RSTS = [("before the head", before_head), ("after the head", after_head), ("within a message", during_data),
        ("within a message, later", later_during_data), ("after a message", after_data)]  # fmt: skip


async def refuse_first(stream: Stream) -> None:
    await stream.request()
    if stream.attempt == 0:
        await stream.rst(7)
    else:
        await stream.answer(BODY)


async def refuse_after_head(stream: Stream) -> None:
    await stream.request()
    await stream.head(PLAIN_HEAD)
    await stream.rst(7)


async def goaway_after(stream: Stream) -> None:
    await stream.request()
    await stream.answer(BODY)
    await stream.conn.say_goaway(stream.id)


async def goaway_within(stream: Stream) -> None:
    """The stream is not above the last id: it goes on to its end."""
    await stream.request()
    await stream.conn.say_goaway(stream.id, 11)
    await stream.head()
    await trio.sleep(0.05)
    await stream.data(BODY)
    await stream.finish()


async def goaway_below(stream: Stream) -> None:
    await stream.request()
    if stream.attempt == 0:
        await stream.conn.say_goaway(0)
        await stream.until(lambda: False)
    await stream.answer(BODY)


async def vanish(stream: Stream) -> None:
    await stream.request()
    await stream.conn.close()


async def vanish_within(stream: Stream) -> None:
    await stream.request()
    await stream.head()
    await stream.data(BODY[:50])
    await stream.conn.close()


async def vanish_within_body(stream: Stream) -> None:
    await stream.request()
    await stream.head(PLAIN_HEAD)
    await stream.data(bytes(50))
    await stream.conn.close()


async def idle_close(stream: Stream) -> None:
    """The connection is closed between two calls, without a GOAWAY."""
    await stream.request()
    await stream.answer(BODY)
    await stream.conn.close()


async def never(stream: Stream) -> None:
    raise AssertionError("a request on a connection without SETTINGS")


def _by_code(answer: Answer) -> bool:
    return answer.grpc in (13, 14, 1, 8, 7)


def _no_goaway(conn: Connection) -> bool:
    return conn.goaway is None


OK = grpc(0, size=100)
NOT_A_REPLAY: Expect = answers_are("never RST 7", lambda a: a.broken != "RST 7")

PROBES = [
    *(
        Probe(
            f"RST {where}, each code", "5.2, 5.3", "grpc", GRPC_CLIENTS, Script(run),
            # grpc-go and grpclib say 13 of a message that is not complete, whatever the status behind it.
            [answers_are("gRPC by the code, or 13", _by_code)] if "within" in where else [grpc(*GRPC_OF)], [ONCE], EACH,
        )
        for where, run in RSTS
    ),
    Probe(
        "HTTP/2: RST before the head, each code", "5.3, 7.4", "h2", ("nghttp",), Script(before_head),
        [broken(*dict.fromkeys(f"RST {code}" for code in H2_OF)),
         answers_are("RST 7 for REFUSED_STREAM only", lambda a: True)], [ONCE], EACH,
    ),
    Probe(
        "HTTP/2: RST before the head, code 2", "7.4: no REFUSED_STREAM for processed work", "h2", H2_CLIENTS, Script(before_head),
        [broken("RST 2"), NOT_A_REPLAY], [attempts(1)], (Call("/2"),),
    ),
    Probe(
        "HTTP/2: RST within a body, each code", "5.3, 7.4", "h2", H2_CLIENTS, Script(within_unsized_body),
        [broken("RST 2", "RST 8", "RST 11")], [attempts(14)], EACH,
    ),
    Probe(
        "HTTP/2: RST within a body with a length", "7.4", "h2", H2_CLIENTS, Script(within_body),
        [broken("RST 2", "RST 8", "RST 11")], [attempts(14)], EACH,
    ),
    Probe(
        "HTTP/2: REFUSED_STREAM after the head", "7.4: not a proof any more", "h2", ("nghttp",), Script(refuse_after_head),
        [broken("RST 2")], [attempts(1)],
    ),
    Probe(
        "HTTP/1.1: RST before the head, each code", "5.3", "h1-h2", H1_CLIENTS, Script(before_head), [http(502)], [ONCE], EACH,
    ),
    Probe(
        "HTTP/1.1: RST within a body, each code", "7.4", "h1-h2", H1_CLIENTS, Script(within_unsized_body),
        [broken("closed")], [attempts(14)], EACH,
    ),
    Probe("REFUSED_STREAM once", "5.3, 7.1: replay", "grpc", GRPC_CLIENTS, Script(refuse_first), [OK], [attempts(2)]),
    Probe("HTTP/2: REFUSED_STREAM once", "5.3", "h2", ("nghttp",), Script(refuse_first), [http(200)], [attempts(2)]),
    Probe(
        "GOAWAY after a call", "5.2 goaway", "grpc", GRPC_CLIENTS, Script(goaway_after), [OK], [attempts(2), connections(2)],
        (Call(), Call()),
    ),
    Probe(
        "GOAWAY below our stream", "5.3", "grpc", GRPC_CLIENTS, Script(goaway_below), [OK], [attempts(2), connections(2)],
    ),
    Probe(
        "HTTP/2: GOAWAY below our stream", "5.3", "h2", ("nghttp",), Script(goaway_below), [http(200)], [attempts(2)],
    ),
    Probe(
        "GOAWAY(ENHANCE_YOUR_CALM) at our stream", "1.9: it goes on", "grpc", GRPC_CLIENTS, Script(goaway_within), [OK],
        [attempts(2), connections(2)], (Call(), Call()),
    ),
    Probe(
        "connection lost before the head", "1.4", "grpc", GRPC_CLIENTS, Script(vanish), [grpc(14)],
    ),
    Probe(
        "connection lost within a message", "1.4", "grpc", GRPC_CLIENTS, Script(vanish_within), [grpc(14)],
    ),
    Probe(
        "HTTP/2: connection lost before the head", "1.4", "h2", H2_CLIENTS, Script(vanish), [broken("RST 2")], [attempts(1)],
    ),
    Probe(
        "HTTP/2: connection lost within a body", "7.4", "h2", H2_CLIENTS, Script(vanish_within_body), [broken("RST 2")],
        [attempts(1)],
    ),
    Probe(
        "HTTP/1.1: connection lost within a body", "7.4", "h1-h2", H1_CLIENTS, Script(vanish_within_body), [broken("closed")],
        [attempts(1)],
    ),
    Probe(
        "connection closed between calls", "1.9", "grpc", GRPC_CLIENTS, Script(idle_close), [OK], [attempts(2), connections(2)],
        (Call(), Call()),
    ),
    Probe("backend down", "5.3", "grpc", GRPC_CLIENTS, None, [grpc(14)]),
    Probe(
        "backend down, the frames", "5.3: 200 and trailers-only", "grpc", ("nghttp",), None,
        [http(200), field_is("grpc-status", "14")],
        calls=(Call(headers=(("content-type", "application/grpc"), ("te", "trailers"))),),
    ),
    Probe("HTTP/2: backend down", "1.4", "h2", H2_CLIENTS, None, [answers_are("HTTP 502 or 503", lambda a: a.http in (502, 503))]),
    Probe("HTTP/1.1: backend down", "1.4", "h1", H1_CLIENTS, None, [answers_are("HTTP 502 or 503", lambda a: a.http in (502, 503))]),
    Probe(
        "backend that never sends SETTINGS", "1.11", "grpc", GRPC_CLIENTS, Script(never, greets=False), [grpc(14)],
        calls=(Call(deadline=30.0),), slow=True,
    ),
]  # fmt: skip
