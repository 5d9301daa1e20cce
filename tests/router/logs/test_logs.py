"""Lines, limits and sinks: whatever is logged is one line that every parser reads, and nobody waits for it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from router.logs import setup, sinks
from router.logs.limit import BURST, MAX_NAMES, Limiter
from router.logs.setup import LogSettings, chosen, installed, level_of
from router.logs.sinks import PipeSink, ThreadSink
from router.model.events import Events, log_event, show
from router.serve.relay import Relay

NASTY = {
    "nan": float("nan"),
    "far": float("inf"),
    "half": "\udc80",
    "rows": [{"deep": {"a": [1, {2: object()}]}}],
    "long": "x" * 9999,
}


class Kept:
    """A sink."""

    def __init__(self) -> None:
        self.dropped = 0
        self.data = b""
        self.sweeps = 0

    def write(self, line: bytes) -> None:
        self.data += line

    def sweep(self) -> None:
        self.sweeps += 1

    def close(self) -> None:
        pass

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Every line, as an object; none is longer than collectors take."""
        assert all(len(line) < 48 << 10 for line in self.data.splitlines())
        return [json.loads(line) for line in self.data.splitlines()]


@pytest.fixture
def kept() -> Iterator[Kept]:
    sink = Kept()
    with installed(LogSettings("json", "INFO"), sink, 3):
        yield sink


def test_an_event_is_an_object(kept: Kept) -> None:
    Events().warn("endpoint_ejected", client="/$/x", for_s=1.5)
    (line,) = kept.lines
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING", "event": "endpoint_ejected", "process": "worker", "worker": 3, "pid": os.getpid(),
        "logger": "waypost.endpoint", "fields": {"client": "/$/x", "for_s": 1.5},
    }  # fmt: skip


def test_what_is_asked_for_by_itself_is_not_limited(kept: Kept) -> None:
    for number in range(2 * BURST):
        extra = {"event": "span", "fields": {"id": number}, "shown": None, "unlimited": True}
        logging.getLogger("waypost.trace").info("%s", "span", extra=extra)
    assert [line["fields"]["id"] for line in kept.lines] == list(range(2 * BURST))


def test_whatever_is_logged_every_parser_reads_it() -> None:
    kept = Kept()
    with installed(LogSettings("json", "INFO"), kept):  # nobody else is to see this, pytest's reports cannot hold it
        log_much()
    events = {line["event"]: line for line in kept.lines}
    assert list(events) == ["worker_exited", "exchange_crashed", "log", "python_warning", "thread_crashed"]
    fields = events["worker_exited"]["fields"]
    assert (fields["nan"], fields["half"], len(fields["long"])) == ("nan", "\\udc80", 8192)
    assert events["exchange_crashed"]["traceback"].startswith("Traceback (most recent call last)")
    assert events["log"]["message"] == "50 % of all"
    assert "ZeroDivisionError" in events["thread_crashed"]["traceback"]
    if (jq := shutil.which("jq")) is not None:
        done = subprocess.run([jq, "-e", "-r", ".event"], input=kept.data, capture_output=True, check=True)
        assert done.stdout.decode().split() == list(events)


def log_much() -> None:
    Events().emit("worker_exited", **NASTY)
    try:
        raise ValueError("two\nlines \udcff")
    except ValueError as error:
        Events().fail("exchange_crashed", error=error)
    logging.getLogger("some.library").error("50 %% of %s", "all")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()


@given(st.text() | st.floats() | st.none() | st.lists(st.text()))
def test_a_text_line_is_one_line(value: Any) -> None:
    assert show("event", {"cause": value, "more": 1}).isprintable()


def test_a_bug_ends_the_block_and_is_told() -> None:
    sink = Kept()
    before = logging.getLogger().handlers[:], sys.stderr, threading.excepthook
    with pytest.raises(SystemExit) as ended, installed(LogSettings("json", "INFO"), sink):
        raise ZeroDivisionError
    assert ended.value.code == 1
    assert (logging.getLogger().handlers[:], sys.stderr, threading.excepthook) == before
    (line,) = sink.lines
    assert (line["event"], line["level"], line["process"]) == ("process_crashed", "CRITICAL", "supervisor")


def test_what_is_printed_is_an_event() -> None:
    sink = Kept()
    with installed(LogSettings("json", "INFO"), sink):
        print("by a library", file=sys.stderr)
    (line,) = sink.lines
    assert (line["event"], line["fields"]) == ("process_printed", {"text": "by a library"})


def test_what_cannot_be_shown_is_told() -> None:
    kept = Kept()

    class Bad:
        def __str__(self) -> str:
            raise ZeroDivisionError

    handler = setup.LineHandler(LogSettings("json", "INFO"), kept, None)
    handler.handle(logging.LogRecord("lib", logging.ERROR, "lib.py", 3, "%s", (Bad(),), None))
    assert [line["event"] for line in kept.lines] == ["log_failed"]


def test_levels(kept: Kept) -> None:
    events = Events()
    assert level_of("waypost.endpoint") == "INFO"
    setup.set_level("waypost.endpoint", "OFF")
    try:
        events.fail("endpoint_ejected")
        events.warn("worker_exited")
    finally:
        logging.getLogger("waypost.endpoint").setLevel(logging.NOTSET)
    assert [line["event"] for line in kept.lines] == ["worker_exited"]
    assert events.counts == {"endpoint_ejected": 1, "worker_exited": 1}  # kept they are


def test_text_for_people() -> None:
    sink = Kept()
    with installed(LogSettings("text", "INFO"), sink, 0):
        Events().warn("name_lost", cause="a b\x1b[2J\nfake")
        Events().emit("ready", shown="waypost\n  http ...", workers=[1])
    first, *rest = sink.data.decode().splitlines()
    assert first[20:] == 'WARNING worker 0: name_lost cause="a b\\u001b[2J\\nfake"'
    assert rest == ["waypost", "  http ..."]
    assert chosen("auto", "info", sys.__stdin__).level == "INFO"


# -- limits -----------------------------------------------------------------------------------------------------


def test_a_flood_is_told_in_part_and_the_rest_counted(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(setup.time, "monotonic", lambda: now)
    for _ in range(BURST + 7):
        log_event(logging.INFO, "endpoint_ejected", {})
    log_event(logging.INFO, "endpoint_revived", {})
    assert len(kept.lines) == BURST + 1
    now = 1.0
    log_event(logging.INFO, "endpoint_ejected", {})
    assert kept.lines[-1]["suppressed"] == 7
    log_event(logging.INFO, "endpoint_ejected", {})
    setup.sweep()
    assert kept.lines[-1]["suppressed"] == 7
    now = 2.0
    setup.sweep()
    assert (kept.lines[-1]["event"], kept.lines[-1]["fields"]) == ("log_suppressed", {"of": "endpoint_ejected", "lines": 1})
    setup.sweep()
    assert len(kept.lines) == BURST + 3


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3))))
def test_what_is_told_and_what_is_left_out_is_everything(calls: list[tuple[str, float]]) -> None:
    limiter, now, told = Limiter(), 0.0, 0
    for name, after in calls * 20:
        now += after
        left_out = limiter.take(name, now)
        told += 0 if left_out is None else 1 + left_out
    assert told + sum(left_out for _, left_out in limiter.overdue(now + 1000)) == len(calls) * 20


def test_names_are_bounded() -> None:
    limiter = Limiter()
    for at in range(3 * MAX_NAMES):
        limiter.take(str(at), 0.0)
    assert len(limiter._buckets) == MAX_NAMES + 1


# -- sinks ------------------------------------------------------------------------------------------------------


def test_nobody_waits_for_a_pipe_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "MAX_BYTES", 4096)
    reading, writing = os.pipe()
    sink = PipeSink(writing)
    line = b"x" * 99 + b"\n"
    for _ in range(2000):
        sink.write(line)
    assert sink.dropped > 1000
    data = b""
    while len(data) < (2000 - sink.dropped) * len(line):
        data += os.read(reading, 65536)
        sink.sweep()
    assert set(data.splitlines(keepends=True)) == {line}  # none is torn
    os.close(reading)
    sink.write(line)  # to nobody
    os.close(writing)


def test_nobody_waits_for_a_thread_that_nobody_reads(monkeypatch: pytest.MonkeyPatch, kept: Kept) -> None:
    monkeypatch.setattr(sinks, "MAX_BYTES", 100_000)
    monkeypatch.setattr(sinks, "PATIENCE", 0.01)
    reading, writing = os.pipe()
    with open(writing, "wb") as stream, open(reading, "rb") as reader:
        sink = ThreadSink(stream)
        began = time.monotonic()
        for _ in range(2000):
            sink.write(b"x" * 99 + b"\n")
        sink.close()  # gives up
        assert time.monotonic() - began < 1
        assert sink.dropped >= 300
        reader.read((2000 - sink.dropped) * 100)
        sink._thread.join()
    kept.dropped = 5
    setup.sweep()
    assert (kept.lines[-1]["event"], kept.lines[-1]["fields"]) == ("log_dropped", {"lines": 5})


# -- what workers write -----------------------------------------------------------------------------------------


async def test_a_worker_is_passed_on_and_what_is_no_line_becomes_an_event(kept: Kept) -> None:
    reading, writing = os.pipe()
    relay = Relay(reading, True, lambda: {"worker": 7})
    line = b'{"time": "now", "event": "x"}\n'
    os.write(writing, line[:9])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await trio.testing.wait_all_tasks_blocked()
        os.write(writing, line[9:] + b"Fatal Python error: Aborted\n\n")
        await trio.testing.wait_all_tasks_blocked()
        os.write(writing, b'  File "x.py"\n' + line + b"\xff\n" + line[:9])
        os.close(writing)
    relay.close()
    own, fatal, again, torn = kept.lines
    assert own == again == {"time": "now", "event": "x"}
    assert (fatal["event"], fatal["fields"]) == (
        "worker_stderr",
        {"worker": 7, "text": 'Fatal Python error: Aborted\n\n  File "x.py"'},
    )
    assert torn["fields"]["text"] == '\N{REPLACEMENT CHARACTER}\n{"time":'
