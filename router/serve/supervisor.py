"""The supervisor: owns the listening sockets, keeps workers running, and exchanges them for others when it is told to reload.

Theory of operation

1. A *generation* is a configuration, its sockets and its workers. A reload loads the new configuration, opens what sockets it
   lacks, and starts its workers beside the old ones. Only when all of them serve do the old ones drain; anything that
   goes wrong before that leaves the old generation as it was.
2. Where nothing but dtabs has changed the workers get these, and stay.
3. Sockets are shared by generations and never closed while one in use has a server there: connections that come while no
   worker accepts wait in the kernel's queue.
4. An old generation has ``RELOAD_GRACE`` seconds, since streams may be long; of more than ``MAX_DRAINING`` generations the
   oldest is cut off. When the supervisor is told to stop, all have ``shutdownGraceMs``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from dtab import Dtab
from router.config.load import Loaded
from router.config.schema import Config
from router.logs.setup import LogSettings
from router.model.events import Events
from router.model.metrics import Metrics
from router.serve import announce
from router.serve.channel import ChannelClosedError, RefusedError
from router.serve.door import AdminDoor, Doors, ServeAdmin, identifier_place
from router.serve.gather import Gatherer
from router.serve.slot import Plan, Slot, StartError
from router.serve.sockets import Key, close_others, open_missing
from router.serve.telemetry import Telemetry

RELOAD_GRACE = 900.0
MAX_DRAINING = 16
ASK_TIMEOUT = 2.0


class ReloadError(Exception):
    """The new configuration is not in use; the text says why, the old one goes on."""


@attrs.define(eq=False)
class Generation:
    """See the theory of operation. ``addresses``: (router label, IP address, port) of each server."""

    number: int
    loaded: Loaded
    sockets: dict[Key, socket.socket]
    slots: list[Slot] = attrs.field(factory=list)
    addresses: list[tuple[str, str, int]] = attrs.field(factory=list)

    def cut_off(self) -> None:
        """End its processes now."""
        for slot in self.slots:
            slot.life.cancel()

    @property
    def config(self) -> Config:
        """What it serves."""
        assert self.loaded.config is not None
        return self.loaded.config


class Supervisor:
    """``load`` reads the configuration again. ``inherited``: sockets that were open before us. ``admin`` serves the admin
    interface on a socket, ``identifier`` the port where requests are told their names. ``stopping`` is set by whoever wants
    it to end. ``log_levels``: of loggers, set while running."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        logs: LogSettings,
        inherited: Mapping[Key, socket.socket],
        admin: ServeAdmin | None = None,
        identifier: ServeAdmin | None = None,
    ) -> None:
        self.events = Events()
        self.metrics = Metrics()
        self.generation: Generation | None = None
        self.draining: list[Generation] = []
        self.gatherer = Gatherer(self)
        self.stopping = trio.Event()
        self.admin = AdminDoor(admin, self)
        self._doors = Doors(self.admin, AdminDoor(identifier, self, identifier_place))
        self.telemetry = Telemetry(self)
        self._load = load
        self.log_levels: dict[str, str] = {}
        self._logs = logs
        self._inherited = dict(inherited)
        self._reloading = trio.Lock()
        self._numbers = 0
        self._nursery: trio.Nursery
        scope = self.metrics.scope("supervisor")
        self._reloads, self._failures = scope.counter("reloads"), scope.counter("reload_failures")
        self._refused = scope.gauge("last_reload_failed")
        scope.gauge("generation", lambda: float(self._numbers))
        scope.gauge("draining", lambda: float(len(self.draining)))
        scope.total("worker_exits", lambda: self.events.counts["worker_exited"])

    # -- life -----------------------------------------------------------------------------------------------

    async def run(self, loaded: Loaded, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Serve ``loaded``, and what it is reloaded to, until cancelled. Raises OSError and :class:`StartError`."""
        try:
            async with trio.open_nursery() as self._nursery:
                assert loaded.config is not None
                self._doors.use(self._doors.prepare(loaded.config.admin))
                self.generation = await self._begin(loaded, self._inherited)
                close_others(self._inherited, self.generation.sockets)
                announce.listeners(self.events, None, self.generation)
                self.telemetry.use(loaded.config.telemeters)
                self._nursery.start_soon(self._doors.run)
                self._nursery.start_soon(self.telemetry.run)
                task_status.started(self.generation)
                await self.gatherer.run()
        finally:
            self._doors.close()
            for generation in (*self.draining, self.generation):
                close_others(generation.sockets if generation else {}, {})

    async def _begin(self, loaded: Loaded, known: Mapping[Key, socket.socket]) -> Generation:
        """A new generation, all of whose workers serve."""
        assert loaded.config is not None
        generation = Generation(self._numbers + 1, loaded, open_missing(loaded.config, known))
        count = loaded.config.worker_processes
        plan = Plan(loaded.name, loaded.source, generation.sockets, count, self._logs, self.log_levels)
        generation.slots = [Slot(number, plan, self.events, self.gatherer) for number in range(count)]
        try:
            answers = await self._all_started(generation)
        except BaseException:
            generation.cut_off()
            close_others(generation.sockets, known)
            raise
        self._numbers += 1
        generation.addresses = [(label, ip, port) for label, ip, port in answers[0]["addresses"]]
        return generation

    async def _all_started(self, generation: Generation) -> list[Any]:
        """What the workers answer, once all of them serve. Raises :class:`StartError` for the first that does not."""
        answers: list[Any] = []

        async def start(slot: Slot) -> None:
            answers.append(await self._nursery.start(slot.run))

        try:
            async with trio.open_nursery() as starting:
                for slot in generation.slots:
                    starting.start_soon(start, slot)
        except* StartError as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None
        return answers

    async def stop(self, grace: float) -> None:
        """Let every worker drain, for at most ``grace`` seconds."""
        async with trio.open_nursery() as nursery:
            for generation in (*self.draining, self.generation):
                for slot in generation.slots if generation else ():
                    nursery.start_soon(slot.give_up, grace)

    # -- reload ---------------------------------------------------------------------------------------------

    async def reload(self) -> str:
        """Use the configuration as it is now; says what that took. Raises :class:`ReloadError`."""
        async with self._reloading:
            try:
                text = await self._reload()
            except ReloadError as error:
                self._failures.value += 1
                self._refused.value = 1
                cause, _, more = str(error).partition("\n")
                shown = f"{error}\nwaypost: not reloaded; the configuration from before goes on"
                self.events.fail("reload_failed", shown=shown, cause=cause, diagnostics=more)
                raise
            self._reloads.value += 1
            self._refused.value = 0
            self.events.emit("reloaded", generation=self._numbers, by=text)
            return text

    async def _reload(self) -> str:
        old = self.generation
        assert old is not None
        loaded = await trio.to_thread.run_sync(self._load)
        if loaded.config is None:
            raise ReloadError(loaded.render())
        announce.problems(self.events, loaded)
        if loaded.source == old.loaded.source:
            return "nothing: it is the same"
        if _but_dtabs(loaded.config) == _but_dtabs(old.config):
            await self._exchange_dtabs(old, loaded)
            return "new dtabs"
        try:
            opened = self._doors.prepare(loaded.config.admin)
            try:
                new = await self._begin(loaded, old.sockets)
            except BaseException:
                self._doors.drop(opened)
                raise
        except OSError as error:
            raise ReloadError(str(error.args[-1])) from error
        except StartError as error:
            raise ReloadError(str(error)) from error
        self.generation = new
        self._doors.use(opened)
        announce.listeners(self.events, old, new)
        self.telemetry.use(loaded.config.telemeters)
        close_others(old.sockets, new.sockets)
        self.draining.append(old)
        self._nursery.start_soon(self._retire, old)
        for oldest in self.draining[:-MAX_DRAINING]:
            oldest.cut_off()
        return f"{len(new.slots)} new worker{'s' if len(new.slots) > 1 else ''}"

    async def _exchange_dtabs(self, generation: Generation, loaded: Loaded) -> None:
        assert loaded.config is not None
        dtabs = {router.label: router.base.dtab.show() for router in loaded.config.routers}
        generation.loaded = loaded
        for slot in generation.slots:
            slot.plan = attrs.evolve(slot.plan, text=loaded.source)
        await self.ask("dtabs", dtabs=dtabs)

    async def _retire(self, generation: Generation) -> None:
        async with trio.open_nursery() as nursery:
            for slot in generation.slots:
                nursery.start_soon(slot.give_up, RELOAD_GRACE)
        self.draining.remove(generation)

    # -- questions ------------------------------------------------------------------------------------------

    async def ask(self, what: str, **fields: Any) -> list[tuple[Slot, Any]]:
        """The answers of all workers, present ones first; those without one within ``ASK_TIMEOUT`` seconds are left out."""
        answers: list[tuple[Slot, Any]] = []

        async def ask_one(slot: Slot) -> None:
            if slot.channel is not None:
                with trio.move_on_after(ASK_TIMEOUT):
                    try:
                        answers.append((slot, await slot.channel.ask(what, **fields)))
                    except ChannelClosedError:
                        return
                    except RefusedError as error:
                        self.events.fail("worker_refused", worker=slot.number, asked_for=what, cause=str(error))

        slots = self.slots
        async with trio.open_nursery() as nursery:
            for slot in slots:
                nursery.start_soon(ask_one, slot)
        return sorted(answers, key=lambda answer: slots.index(answer[0]))

    async def ask_any(self, what: str, **fields: Any) -> Any:
        """The answer of one present worker. Raises :class:`ChannelClosedError` where there is none,
        :class:`RefusedError`, and trio.TooSlowError."""
        channels = [slot.channel for slot in self.slots if slot.channel is not None]
        if not channels:
            raise ChannelClosedError
        with trio.fail_after(ASK_TIMEOUT):
            return await channels[0].ask(what, **fields)

    @property
    def ready(self) -> bool:
        """Whether some worker serves, and is to go on."""
        generation = self.generation
        return generation is not None and not self.stopping.is_set() and any(slot.serves for slot in generation.slots)

    @property
    def slots(self) -> list[Slot]:
        """The places of all workers, those that drain last."""
        generations = [*([self.generation] if self.generation else []), *self.draining]
        return [slot for generation in generations for slot in generation.slots]


def _but_dtabs(config: Config) -> Config:
    """What cannot be changed without new workers; places in the file do not count."""
    routers = []
    for router in config.routers:
        servers = tuple([attrs.evolve(server, line=0) for server in router.servers])
        base = attrs.evolve(router.base, dtab=Dtab())
        routers.append(attrs.evolve(router, base=base, servers=servers, line=0, column=0))
    return attrs.evolve(config, routers=tuple(routers))
