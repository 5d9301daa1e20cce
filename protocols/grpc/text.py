"""The text form of gRPC-Web: base64 (RFC 4648 §4) in one piece or in several, each padded or not, one behind the other."""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64

from router.model.body import Chunk, Source
from router.model.exchange import Exchange
from router.model.failure import Blame, Failure, Kind
from router.model.headers import Fields


class Decoder:
    """Decodes what comes in pieces; keeps at most three characters. Raises ValueError."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def decode(self, chunk: Chunk) -> bytes:
        """What is known with ``chunk``."""
        data = self._rest + chunk
        whole = len(data) & ~3
        self._rest = bytes(data[whole:])
        out, at = [], 0
        while at < whole:  # a round for each padding, which ends a piece
            pad = data.find(b"=", at, whole)
            end = whole if pad < 0 else (pad | 3) + 1
            out.append(_decoded(data[at:end]))
            at = end
        return b"".join(out)

    def finish(self) -> None:
        """Nothing follows."""
        if self._rest:
            raise ValueError("it ends within a group of four characters")


def _decoded(data: bytes) -> bytes:
    try:
        return a2b_base64(data, strict_mode=True)
    except Error as error:
        raise ValueError(str(error)) from None


def encode(chunk: Chunk) -> bytes:
    """A piece of its own, so that nothing of a message waits for the next one."""
    return b2a_base64(chunk, newline=False)


class TextBody(Source):
    """A request's body, decoded on its way: the sink of the one that comes in, the source of the one that goes on.

    Credit passes through: it counts what the client's connection counted. What is no base64 ends the exchange.
    """

    __slots__ = ("_broken", "_decoder", "_exchange", "_inner", "source")

    def __init__(self, exchange: Exchange, inner: Source) -> None:
        super().__init__()
        self.source: Source | None = None
        self._exchange: Exchange | None = exchange
        self._inner = inner
        self._decoder = Decoder()
        self._broken = False

    # -- the source -----------------------------------------------------------------------------------------

    def join(self, sink: object) -> None:
        super().join(sink)  # type: ignore[arg-type]
        if self._inner.sink is None:
            self._inner.join(self)

    def credit(self, size: int) -> None:
        self._inner.credit(size)

    def stop(self, failure: Failure | None) -> None:
        self._inner.stop(failure)

    def unjoin(self) -> None:
        held = self.held()
        super().unjoin()
        if held:
            self._inner.credit(held)
        self._inner.unjoin()
        self._exchange = None

    # -- the sink -------------------------------------------------------------------------------------------

    def data(self, chunk: Chunk, size: int, end: bool) -> None:
        """Decode and pass on; what yields nothing yet is credited at once."""
        if self._broken:
            self._inner.credit(size)
            return
        try:
            decoded = self._decoder.decode(chunk)
            if end:
                self._decoder.finish()
        except ValueError as error:
            self._inner.credit(size)
            self._break(error)
            return
        if decoded or end:
            self.push(decoded, size, end)
        elif size:
            self._inner.credit(size)

    def end(self, trailers: Fields) -> None:
        """The end; its trailers mean nothing to gRPC."""
        if self._broken:
            return
        try:
            self._decoder.finish()
        except ValueError as error:
            self._break(error)
        else:
            self.finish(())

    def abort(self, failure: Failure) -> None:
        """The client's body broke off."""
        self.fail(failure)

    def _break(self, error: ValueError) -> None:
        self._broken = True
        if self._exchange is not None and self._exchange.strand is not None:
            why = f"the body of a grpc-web-text request is no base64: {error}"
            self._exchange.strand.cancel(Failure(Kind.MALFORMED, why, Blame.CLIENT))
