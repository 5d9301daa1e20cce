"""One direction's bytes: a source pushes them to a sink, the sink gives credit back.

Theory of operation

1. A :class:`Source` is the receiving half of a stream of some connection; a :class:`Sink` the sending half of
   another. ``source.join(sink)`` connects them once; from then on data crosses without waking any strand.
2. Until it is joined a source holds what it receives. The bound is the window that its protocol advertised: no
   credit is given for held bytes, so that the peer stops.
3. ``sink.data(chunk, size, end)`` must take the chunk. When the bytes were *accepted* (the peer's window allowed them
   and they are in an output buffer below its high-water mark) the sink calls ``source.credit(size)``, now or later.
   ``size`` is what the source's flow control counted, padding included; it is opaque to the sink.
4. A direction ends once: by ``data(..., end=True)``, by ``end(trailers)`` or by ``abort(failure)``.
5. A source that was told to :meth:`keep <Source.keep>` remembers what it pushed, up to a limit, and can be joined
   :meth:`again <Source.again>` to another sink, which gets everything from the beginning: that is how an attempt is repeated.
   What is kept was credited when it was accepted the first time.
6. ``source.stop(failure)`` tells the source that nobody wants the rest. Bytes that come later are credited to the
   connection and dropped by the source's own protocol.
"""

from __future__ import annotations

from typing import Protocol

from router.model.failure import Failure
from router.model.headers import Fields

Chunk = bytes | memoryview


class Sink(Protocol):
    """The sending half of a stream."""

    source: Source | None

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Send ``chunk``; credit ``size`` to the source when it was accepted."""

    def end(self, trailers: Fields) -> None:
        """Send the end of this direction, with trailers if there are any."""

    def abort(self, failure: Failure) -> None:
        """End this direction visibly broken, so that the peer can tell truncation from an end."""


class Replay:
    """What a source has pushed so far, while that fits into ``room`` bytes; ``spoiled`` when it did not."""

    __slots__ = ("chunks", "end", "room", "spoiled")

    def __init__(self, room: int) -> None:
        self.room = room
        self.chunks: list[bytes] = []
        self.end: Fields | None = None
        self.spoiled = False

    def add(self, chunk: Chunk) -> None:
        """Remember ``chunk``, copied where it is a view of something larger."""
        self.room -= len(chunk)
        if self.room < 0:
            self.spoiled = True
            self.chunks = []
        elif not self.spoiled:
            self.chunks.append(chunk if isinstance(chunk, bytes) else bytes(chunk))


class Source:
    """The receiving half of a stream; protocols subclass it and call ``push``, ``finish`` and ``fail``."""

    __slots__ = ("_held", "_pending_end", "ended", "pushed", "replay", "sink")

    def __init__(self) -> None:
        self.pushed = 0  # bytes so far
        self.sink: Sink | None = None
        self.ended = False
        self._held: list[tuple[Chunk, int]] | None = None
        self._pending_end: Fields | Failure | None = None
        self.replay: Replay | None = None

    def keep(self, room: int) -> None:
        """Remember what is pushed, so that it can be sent :meth:`again`; before the first join."""
        self.replay = Replay(room)
        for chunk, _ in self._held or ():
            self.replay.add(chunk)
        if self.ended and not isinstance(self._pending_end, Failure):
            self.replay.end = self._pending_end

    def again(self) -> None:
        """Be ready to be joined anew, from the beginning. Only with a ``replay`` that is not spoiled."""
        replay = self.replay
        assert replay is not None
        held = self._held or []  # what came while there was no sink is in the replay too, and was not credited yet
        repeated = len(replay.chunks) - len(held)
        self.sink = None
        self._held = [(chunk, 0) for chunk in replay.chunks[:repeated]] + held
        if replay.end is not None:
            self._pending_end = replay.end

    def join(self, sink: Sink) -> None:
        """Send everything to ``sink``, first what is held."""
        self.sink = sink
        sink.source = self
        held, self._held = self._held, None
        end, self._pending_end = self._pending_end, None
        if held:
            last = len(held) - 1
            for at, (chunk, size) in enumerate(held):
                sink.data(chunk, size, at == last and end == ())
            if end == ():
                return
        if isinstance(end, Failure):
            sink.abort(end)
        elif end is not None:
            sink.end(end)

    def push(self, chunk: Chunk, size: int, end: bool) -> None:
        """Bytes have come; ``size`` is what flow control counted for them."""
        self.pushed += len(chunk)
        replay = self.replay
        if replay is not None:
            replay.add(chunk)
            if end:
                replay.end = ()
        if end:
            self.ended = True
        sink = self.sink
        if sink is not None:
            sink.data(chunk, size, end)
            return
        if self._held is None:
            self._held = []
        self._held.append((chunk, size))
        if end:
            self._pending_end = ()

    def finish(self, trailers: Fields) -> None:
        """The direction has ended."""
        self.ended = True
        if self.replay is not None:
            self.replay.end = trailers
        if self.sink is not None:
            self.sink.end(trailers)
        else:
            self._pending_end = trailers

    def fail(self, failure: Failure) -> None:
        """The direction broke off."""
        self.ended = True
        if self.sink is not None:
            self.sink.abort(failure)
        else:
            self._pending_end = failure

    def unjoin(self) -> None:
        """Break the cycle between the halves at the end of an exchange; what is held is dropped."""
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.source = None
        self._held = self.replay = None

    def held(self) -> int:
        """Flow-controlled bytes that wait for a sink."""
        return sum(size for _, size in self._held or ())

    def credit(self, size: int) -> None:
        """The sink accepted ``size`` flow-controlled bytes."""
        raise NotImplementedError

    def stop(self, failure: Failure | None) -> None:
        """Nobody wants the rest: end the peer's sending half, with ``failure`` as the reason or without fault."""
        raise NotImplementedError


class FixedSource(Source):
    """A body that is already there: answers of our own, and tests."""

    __slots__ = ("credited", "stopped")

    def __init__(self, data: bytes = b"", trailers: Fields = ()) -> None:
        super().__init__()
        self.credited = 0
        self.stopped = False
        if data:
            self.push(data, len(data), not trailers)
        if trailers or not data:
            self.finish(trailers)

    def credit(self, size: int) -> None:
        self.credited += size

    def stop(self, failure: Failure | None) -> None:
        self.stopped = True
