"""PING as a session's pulse, on a clock moved by hand."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, SettingsFrame

from protocols.http2 import keepalive
from protocols.http2.client import Http2Session
from protocols.http2.keepalive import Heartbeat, KeepAlive, Times
from protocols.http2.state import Settings
from router.model.failure import Failure, Kind
from router.model.metrics import Metrics
from router.model.stale import StaleConnection
from tests.support.fakes import Call, FakeHost

ADDRESS = ("127.0.0.1", 1)


class Wire:
    """Output, and an end."""

    peer = "127.0.0.1:1"

    def __init__(self) -> None:
        self.out = bytearray()
        self.congested = self.gone = False
        self.sent = self.unsent = 0
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        self.out += data

    def write_pair(self, head: bytes, body: Any) -> None:
        self.write(head)
        self.write(body)

    def close(self) -> None:
        self.abort("closed")

    def abort(self, why: str = "aborted") -> None:
        if not self.gone:
            self.gone = True
            self.protocol.lost(why)

    def frames(self) -> list[Frame]:
        data, self.out, found = bytes(self.out).removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), bytearray(), []
        self.sent += len(data)
        while data:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            frame.parse_body(memoryview(data[9 : 9 + length]))
            data = data[9 + length :]
            found.append(frame)
        return found


@attrs.define
class Rig:
    host: FakeHost
    keepalive: KeepAlive
    metrics: Metrics
    wire: Wire
    session: Http2Session
    heart: Heartbeat

    def pings(self) -> list[bytes]:
        return [frame.opaque_data for frame in self.wire.frames() if isinstance(frame, PingFrame) and "ACK" not in frame.flags]

    def hear(self, frame: Frame) -> None:
        self.heart.received(frame.serialize())


def rig(times: Times = Times(10.0, 2.0), made: KeepAlive | None = None, host: FakeHost | None = None) -> Rig:  # noqa: B008
    host, metrics, wire = host or FakeHost(), Metrics(), Wire()
    made = made or KeepAlive(times, host, metrics)  # type: ignore[arg-type]
    session = Http2Session(wire, Settings())  # type: ignore[arg-type]
    wire.protocol = heart = made.watch(session, ADDRESS)
    heart.received(SettingsFrame(0).serialize())
    wire.frames()
    return Rig(host, made, metrics, wire, session, heart)


def test_a_silent_session_with_exchanges_is_pinged_and_declared_dead_in_time() -> None:
    made = rig()
    changes: list[bool] = []
    made.session.changed = lambda session: changes.append(session.closed)
    calls = [Call(made.host, made.session.conduct) for _ in range(2)]
    made.wire.frames()
    made.host.pass_time(9.9)
    assert made.pings() == []
    made.host.pass_time(0.2)
    assert len(made.pings()) == 1
    made.host.pass_time(1.8)
    assert not made.session.closed
    made.host.pass_time(0.3)
    for call in calls:
        assert call.failure is not None
        assert not isinstance(call.failure, StaleConnection)
        assert (call.failure.kind, call.failure.retryable) == (Kind.RESET, False)
        assert call.failure.why == "connection to the endpoint lost: no answer to PING within 2000 ms"
    assert (made.session.free, changes[-1], made.wire.gone) == (0, True, True)
    assert made.metrics.flat() == {"keepalive/pings": 1, "keepalive/deaths": 1, "keepalive/too_many_pings": 0}
    assert [event.name for event in made.host.events.recent] == ["session_dead"]
    assert made.host.timers.pending() == 0


@pytest.mark.parametrize("ack", [True, False])
def test_any_byte_is_a_sign_of_life(ack: bool) -> None:
    made = rig()
    Call(made.host, made.session.conduct)
    for _ in range(5):
        made.host.pass_time(10.1)
        (payload,) = made.pings()
        made.host.pass_time(1.0)
        made.hear(PingFrame(0, payload, flags=["ACK"]) if ack else SettingsFrame(0))
        made.host.pass_time(1.1)
    assert not made.session.closed
    assert made.metrics.flat()["keepalive/deaths"] == 0


def test_a_busy_session_is_never_pinged() -> None:
    made = rig()
    Call(made.host, made.session.conduct)
    for _ in range(20):
        made.host.pass_time(9.0)
        made.hear(SettingsFrame(0))
    assert made.pings() == []


@pytest.mark.parametrize(("without_calls", "pings"), [(False, 0), (True, 1)])
def test_an_idle_session_is_pinged_only_if_told_to(without_calls: bool, pings: int) -> None:
    made = rig(Times(10.0, 2.0, without_calls))
    made.host.pass_time(10.1)
    assert len(made.pings()) == pings
    made.host.pass_time(50)
    assert made.session.closed is without_calls


def test_an_endpoint_that_complains_is_pinged_half_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    first = rig()
    call = Call(first.host, first.session.conduct)
    first.hear(GoAwayFrame(0, 1, 11, b"too_many_pings"))
    first.hear(GoAwayFrame(0, 1, 11, b"something else"))
    assert [(event.name, event.fields["time_s"]) for event in first.host.events.recent] == [("session_calmed", 20.0)]
    call.strand.cancel(Failure(Kind.DEADLINE, "late"))
    second = rig(made=first.keepalive, host=first.host)
    Call(second.host, second.session.conduct)
    second.wire.frames()
    second.host.pass_time(19.9)
    assert second.pings() == []
    second.host.pass_time(0.2)
    assert len(second.pings()) == 1
    for _ in range(20):
        second.session.calmed()
    assert first.keepalive._doubled == {ADDRESS: 7200.0}
    monkeypatch.setattr(keepalive, "MAX_DOUBLED", 3)
    for port in range(9):
        first.keepalive._calm(("127.0.0.1", port))
    assert len(first.keepalive._doubled) == 3
