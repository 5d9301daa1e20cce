"""One worker's place: a process is started in it, watched, and replaced when it dies.

Theory of operation

1. A process gets the listening sockets and one end of a socket pair by inheritance, and is asked to start. What goes wrong with
   the first one is whoever began it's to tell; a later one that fails is tried again, after a wait that doubles.
2. Every ``BEAT`` seconds it is asked for a sign of life. One that gives none although it had ``HANG`` seconds in which it could
   (:mod:`router.serve.pulse`) is made to print where it is (SIGABRT), and counts as dead.
3. A place that is given up lets its process drain, which then ends for good.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from random import uniform
from typing import Any, Protocol

import attrs
import trio

from router.logs.setup import JSON, LogSettings
from router.model.events import Events
from router.serve.channel import Channel, ChannelClosedError, RefusedError
from router.serve.pulse import Pulse
from router.serve.relay import Relay
from router.serve.sockets import Key

BEAT = 1.0
HANG = 10.0
START_TIMEOUT = 60.0
STEADY = 10.0  # seconds of life after which a death is taken for the first one
FIRST_WAIT, LAST_WAIT = 0.1, 10.0
CANNOT_FORK = 126  # as shells have it: there is a command, and it cannot be run


class StartError(Exception):
    """A worker could not start; the text says why."""


@attrs.frozen
class Plan:
    """What the workers of one configuration serve: its name and text, its sockets in the order of its servers; and what they
    log, ``levels`` being those of loggers that were set while running."""

    name: str
    text: str
    sockets: Mapping[Key, socket.socket]
    workers: int
    logs: LogSettings
    levels: Mapping[str, str]


class Witness(Protocol):
    """Who is to know what a process had counted."""

    async def hear(self, slot: Slot) -> None:
        """It is about to end."""

    def ended(self, slot: Slot) -> None:
        """It is gone."""


class Slot:
    """See the theory of operation. ``number`` names it in logs; ``plan`` may be exchanged for the next process; ``life``,
    cancelled, ends everything at once."""

    def __init__(self, number: int, plan: Plan, events: Events, witness: Witness) -> None:
        self._witness = witness
        self.number = number
        self.plan = plan
        self.starts = 0
        self.pid = 0
        self.since = 0.0
        self.serves = False
        self.channel: Channel | None = None
        self.life = trio.CancelScope()
        self._events = events
        self._given_up = trio.Event()
        self._refused = ""

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a worker running; ``started`` gives what the first one answered. Raises :class:`StartError`."""
        with self.life:
            await self._keep_running(task_status)

    async def _keep_running(self, task_status: Any) -> None:
        deaths = 0
        while not self._given_up.is_set():
            began = trio.current_time()
            try:
                code = await self._live(task_status)
            except OSError as error:  # no descriptors, no memory: whoever else runs must not end for that
                self._refused = f"no process can be started: {error.strerror}"
                self._events.fail("worker_not_started", worker=self.number, pid=0, cause=self._refused)
                code = CANNOT_FORK
            if self._given_up.is_set():
                self._events.emit("worker_stopped", worker=self.number, pid=self.pid, cause=_cause(code))
                return
            if self.starts == 0:
                raise StartError(self._refused or f"a worker ended before it was ready ({_cause(code)})")
            deaths = 0 if trio.current_time() - began > STEADY else deaths + 1
            wait = min(LAST_WAIT, FIRST_WAIT * 2 ** (deaths - 1)) * uniform(0.5, 1) if deaths > 1 else 0.0
            self._events.warn("worker_exited", worker=self.number, pid=self.pid, cause=_cause(code), again_in_s=round(wait, 3))
            with trio.move_on_after(wait):
                await self._given_up.wait()

    async def _live(self, status: Any) -> int:
        """One process, from its start to its end; returns its exit code."""
        ours, theirs = socket.socketpair()
        try:
            said, stderr = os.pipe()
        except OSError:
            ours.close()
            theirs.close()
            raise
        relay = Relay(said, self.plan.logs.form == JSON, lambda: {"worker": self.number, "pid": self.pid})
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        fds = [sock.fileno() for sock in self.plan.sockets.values()]
        logs = self.plan.logs
        command = [
            sys.executable,
            "-P",
            "-m",
            "router.serve.worker",
            str(theirs.fileno()),
            logs.level,
            logs.form,
            str(self.number),
        ]
        try:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stderr=stderr, pass_fds=[theirs.fileno(), *fds], process_group=0
            )
        except BaseException:
            relay.close()
            stream.socket.close()
            raise
        finally:
            theirs.close()
            os.close(stderr)
        self.pid, self.since = process.pid, trio.current_time()
        self.channel = Channel(stream, {})
        try:
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self.channel.run)
                nursery.start_soon(relay.run)
                nursery.start_soon(self._watch, process, status)
                code = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.channel = None
            self.serves = False
            self._witness.ended(self)
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
            relay.close()
        return code

    async def _watch(self, process: trio.Process, status: Any) -> None:
        """Start it, then see that it lives."""
        channel = self.channel
        assert channel is not None
        try:
            answer = await self._start(channel)
        except ChannelClosedError:
            return
        except (RefusedError, trio.TooSlowError) as error:
            self._refused = str(error) or f"a worker was not ready within {START_TIMEOUT:g} seconds"
            if self.starts:
                self._events.fail("worker_not_started", worker=self.number, pid=self.pid, cause=self._refused)
            process.kill()
            return
        self.starts += 1
        self.serves = True
        self._events.emit("worker_started", worker=self.number, pid=self.pid, took_s=round(trio.current_time() - self.since, 3))
        if self.starts == 1:
            status.started(answer)
        await self._beat(channel, process)

    async def _start(self, channel: Channel) -> Any:
        plan = self.plan
        fds = [(ip, port, sock.fileno()) for (ip, port, _), sock in plan.sockets.items()]
        with trio.fail_after(START_TIMEOUT):
            for logger, level in self.plan.levels.items():
                await channel.ask("log_level", logger=logger, level=level)
            return await channel.ask("start", name=plan.name, text=plan.text, fds=fds, workers=plan.workers)

    async def _beat(self, channel: Channel, process: trio.Process) -> None:
        while True:
            pulse = Pulse(process.pid)
            if not await self._lives(channel, pulse):
                break
            await trio.sleep(BEAT)
        if channel.closed:
            return
        self._events.fail("worker_hangs", **self._told(pulse))
        process.send_signal(signal.SIGABRT)
        await trio.sleep(BEAT)
        process.kill()  # one that is stopped does not even abort

    async def _lives(self, channel: Channel, pulse: Pulse) -> bool:
        """Whether it gives a sign of life before it had ``HANG`` seconds for that."""
        answered = starved = False

        async def ask(scope: trio.CancelScope) -> None:
            nonlocal answered
            with suppress(ChannelClosedError):
                await channel.ask("ping")
                answered = True
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, nursery.cancel_scope)
            while pulse.chance < HANG:
                await trio.sleep(BEAT)
                pulse.look(BEAT)
                if not starved and pulse.passed >= HANG > 2 * pulse.chance:
                    starved = True
                    self._events.warn("worker_starved", **self._told(pulse))
            nursery.cancel_scope.cancel()
        return answered

    def _told(self, pulse: Pulse) -> dict[str, Any]:
        return {"worker": self.number, "pid": self.pid, "for_s": round(pulse.passed, 1), "ran_s": round(pulse.ran, 2)}

    async def give_up(self, grace: float) -> None:
        """Let the process drain for at most ``grace`` seconds, and end."""
        self._given_up.set()
        channel = self.channel
        if channel is None:
            return
        with trio.move_on_after(grace + BEAT):
            try:
                left = await channel.ask("drain", grace=grace)
            except (ChannelClosedError, RefusedError):
                return
            await self._witness.hear(self)
            if left:
                self._events.warn("worker_cut_off", worker=self.number, pid=self.pid, connections=left)
        await channel.aclose()


def _cause(code: int) -> str:
    """What an exit code means."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
