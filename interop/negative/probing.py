"""What a probe is: what the client asks, what the backend does, and what each must see.

Expectations are values with a text, so that the matrix can say them, and a check, which returns what is otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from interop.negative.backend1 import Script1
from interop.negative.backend2 import Record, Script

GRPC_CLIENTS = ("grpcio", "grpc-go", "grpc-js", "grpclib")
H2_CLIENTS = ("curl-h2", "nghttp")
H1_CLIENTS = ("curl",)
CLIENTS = (*GRPC_CLIENTS, *H2_CLIENTS, *H1_CLIENTS)
LIMIT = 10.0  # seconds a call may take unless it says otherwise

# The ways through a proxy: what the client speaks, what the backend speaks. `retry` is gRPC with everything retried.
WAYS = ("grpc", "retry", "h2", "h1", "h1-h2", "h2-h1")


@dataclass(frozen=True)
class Call:
    """One call of a client.

    gRPC sends `send` messages of `size` bytes, `gap` ms apart, and ends its half; HTTP uploads `size` bytes if `send` is 2.
    `deadline` is the gRPC deadline, or after how long an HTTP client gives up (seconds). `cancel` ends a gRPC call from the
    client's side: `start` `after` ms after it began, `message` behind the first message. `lockstep` reads a message behind
    each that it sends. `slow`: ms before each message is read; HTTP: bytes a second, down; `up`: the same, up. `pad`: bytes of
    request headers. `before`: seconds that an HTTP client waits before the call. `options`: words for its command line.
    """

    path: str = "/neg.Probe/call"
    send: int = 1
    size: int = 10
    gap: int = 0
    deadline: float = LIMIT
    cancel: str = ""
    after: int = 100
    lockstep: bool = False
    slow: int = 0
    up: int = 0
    pad: int = 0
    before: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a client made of a call. gRPC has `grpc`, the status; HTTP has `http`, and `broken` where the end is no clean one.

    `broken` is `RST <code>`, `closed`, `timeout`, or another word of the client. `size`: bytes of payload; `crc`: of all of it.
    """

    grpc: int | None = None
    http: int | None = None
    broken: str = ""
    text: str = ""
    messages: int = 0
    size: int = 0
    crc: int | None = None
    pad: int = 0
    extra: str = ""
    informational: tuple[int, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.grpc is not None:
            return f"gRPC {self.grpc}"
        if self.http is None:
            return self.broken or "nothing"
        return f"HTTP {self.http}" + (f", {self.broken}" if self.broken else "")


Check = Callable[[Sequence[Answer], Record], str | None]


@dataclass(frozen=True)
class Expect:
    """`check` returns None, or what is otherwise."""

    text: str
    check: Check


@dataclass(frozen=True)
class Probe:
    """One row of the matrix. `backend` None: nothing listens. `then`: calls made afterwards, which must be all right."""

    name: str
    about: str
    way: str
    clients: tuple[str, ...]
    backend: Script | Script1 | None
    client_sees: Sequence[Expect]
    backend_sees: Sequence[Expect] = ()
    calls: tuple[Call, ...] = (Call(),)
    parallel: bool = False
    settle: float = 0.0
    slow: bool = False
    skip: dict[str, str] = field(default_factory=dict)


# --- what the client sees -----------------------------------------------------------------------------------------------------


def _listed(values: Sequence[object]) -> str:
    distinct = list(dict.fromkeys(map(str, values)))
    return distinct[0] if len(distinct) == 1 else " ".join(map(str, values))


def grpc(*statuses: int, size: int | None = None, text: str | None = None) -> Expect:
    """These statuses, one a call, or one for all; with so many bytes of payload in each."""

    def check(answers: Sequence[Answer], record: Record) -> str | None:
        wanted = statuses if len(statuses) > 1 else statuses * len(answers)
        got = [answer.grpc for answer in answers]
        if tuple(got) != wanted:
            message = next((a.text for a, want in zip(answers, wanted, strict=False) if a.grpc != want), "")
            return f"gRPC {_listed(got)} ({message[:100]})"
        if size is not None and any(answer.size != size for answer in answers):
            return f"{_listed([answer.size for answer in answers])} bytes"
        if text is not None and any(answer.text != text for answer in answers):
            return f"message {answers[0].text!r}"
        return None

    parts = [f"gRPC {_listed(statuses)}", *([f"{size} bytes"] if size is not None else []), *([repr(text)] if text else [])]
    return Expect(", ".join(parts), check)


def http(*statuses: int, size: int | None = None, informational: tuple[int, ...] | None = None) -> Expect:
    """These statuses, one a call, or one for all, with a clean end."""

    def check(answers: Sequence[Answer], record: Record) -> str | None:
        wanted = statuses if len(statuses) > 1 else statuses * len(answers)
        if tuple(answer.http for answer in answers) != wanted or any(answer.broken for answer in answers):
            return _listed(answers)
        if size is not None and any(answer.size != size for answer in answers):
            return f"{_listed([answer.size for answer in answers])} bytes"
        if informational is not None and any(answer.informational != informational for answer in answers):
            return f"informational {_listed([answer.informational for answer in answers])}"
        return None

    parts = [f"HTTP {_listed(statuses)}", *([f"{size} bytes"] if size is not None else [])]
    if informational is not None:
        parts.append(f"after {' '.join(map(str, informational))}" if informational else "no 1xx")
    return Expect(", ".join(parts), check)


def broken(*ways: str) -> Expect:
    """A response that ends visibly broken in one of these ways."""

    def check(answers: Sequence[Answer], record: Record) -> str | None:
        bad = [answer for answer in answers if answer.broken not in ways]
        return _listed([f"{answer}{'' if answer.broken else ', a clean end'}" for answer in bad]) if bad else None

    return Expect(" or ".join(ways), check)


def field_is(name: str, value: str) -> Expect:
    """A field of the response or of its trailers."""

    def check(answers: Sequence[Answer], record: Record) -> str | None:
        got = [v for answer in answers for k, v in answer.fields if k == name]
        return None if got == [value] * len(answers) else f"{name}: {', '.join(got) or 'absent'}"

    return Expect(f"{name}: {value}", check)


def within(seconds: float) -> Expect:
    def check(answers: Sequence[Answer], record: Record) -> str | None:
        worst = max(answer.seconds for answer in answers)
        return None if worst <= seconds else f"after {worst:.1f} s"

    return Expect(f"within {seconds:g} s", check)


def answers_are(text: str, good: Callable[[Answer], bool], show: Callable[[Answer], object] = str) -> Expect:
    def check(answers: Sequence[Answer], record: Record) -> str | None:
        bad = [answer for answer in answers if not good(answer)]
        return _listed([show(answer) for answer in bad]) if bad else None

    return Expect(text, check)


# --- what the backend sees ----------------------------------------------------------------------------------------------------


def record_has(text: str, value: Callable[[Record], object], good: Callable[[object], bool]) -> Expect:
    """A fact about the record: `good(value(record))`."""

    def check(answers: Sequence[Answer], record: Record) -> str | None:
        got = value(record)
        return None if good(got) else f"{got} instead of {text}"

    return Expect(text, check)


def attempts(count: int) -> Expect:
    return record_has(f"{count} requests", lambda record: len(record.streams), lambda got: got == count)


def connections(least: int, most: int | None = None) -> Expect:
    text = f"{least} connections" if most is None else f"{least} to {most} connections"
    used = lambda record: sum(1 for each in record.connections if each.requests)  # noqa: E731
    return record_has(text, used, lambda got: least <= got <= (most or least))  # type: ignore[operator]


def reset(*codes: int) -> Expect:
    """Every stream was reset with one of these codes."""
    return record_has(
        f"RST {' or '.join(map(str, codes))}",
        lambda record: sorted({stream.reset for stream in record.streams}, key=str),
        lambda got: bool(got) and set(got) <= set(codes),  # type: ignore[call-overload]
    )


def whole(size: int) -> Expect:
    """Every request came to its end, with so many bytes."""
    return record_has(
        f"{size} bytes and the end of each request",
        lambda record: sorted({(stream.received, stream.ended) for stream in record.streams}),
        lambda got: got == [(size, True)],
    )


def closed() -> Expect:
    """The proxy has closed every connection that a request came on."""
    return record_has("the connection closed", lambda record: [each.over for each in record.connections], all)


def concurrent(most: int) -> Expect:
    return record_has(f"at most {most} streams at once", lambda record: record.most, lambda got: got <= most)  # type: ignore[operator]
