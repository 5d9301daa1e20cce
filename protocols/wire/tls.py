"""A connection that speaks TLS: the same to its protocol as one in clear.

Theory of operation

1. The layer stands between :class:`Connection`, whose protocol it is, and the protocol proper. ``ssl.SSLObject`` works on two
   memory BIOs: what a read brings is put into one and decrypted whole, every record of it, before the protocol hears of it in
   one call; what a turn wrote is encrypted with one ``write`` when the poller flushes, and leaves with one syscall.
2. The handshake is driven by the same events. It is bounded by ``HANDSHAKE_TIMEOUT`` seconds and ``HANDSHAKE_BYTES`` bytes.
   ``done`` is called at its end, good or not: ``fault`` says what went wrong. What is written before waits.
3. A peer whose first byte is no TLS gets no handshake: ``fault`` says so, ``first`` has its bytes, and from then on the
   connection is in clear, so that it can be told. Nothing else may be sent over it then.
4. An end without close_notify is a truncation, hence a loss and not an end (RFC 8446 §6.1): ``lost``, never ``eof``.
   ``close`` encrypts what is left, adds close_notify, and closes as connections do.
5. Renegotiation is switched off (TLS 1.2) or does not exist (1.3). Each request for it costs us an alert: a peer that has
   caused ``MAX_ANSWERS`` messages of TLS's own without reading them loses the connection.
6. A protocol may come after the handshake: what was decrypted before waits, and nothing more is read.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import ClassVar

from protocols.wire import x509
from protocols.wire.connection import Connection, WireProtocol
from protocols.wire.poller import Poller
from router.model.body import Chunk
from router.model.timers import Timer, Timers

HANDSHAKE_TIMEOUT = 10.0
HANDSHAKE_BYTES = 131072
MAX_ANSWERS = 1000
RECORD = 16384  # what one call of read returns at most (RFC 8446 §5.1)
_ALERT, _HANDSHAKE = 21, 22

Wrap = Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]


class Context:
    """The context that new connections use; whoever reloads files replaces ``current``, and nothing else changes."""

    __slots__ = ("current",)

    def __init__(self, current: ssl.SSLContext) -> None:
        self.current = current

    def accepting(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """The server's side of a connection."""
        return self.current.wrap_bio(incoming, outgoing, server_side=True)


class TlsConnection(Connection):
    """See the theory of operation. ``wrap`` makes the SSLObject of the present context; ``done`` is called with us."""

    __slots__ = ("_answers", "_certificate", "_done", "_early", "_handshaken", "_in", "_later", "_object", "_out_bio",
                 "_plain", "_seen", "_timer", "_upper", "clear", "fault", "first", "rejected")  # fmt: skip

    secure: ClassVar[bool] = True

    def __init__(
        self, poller: Poller, timers: Timers, sock: socket.socket, wrap: Wrap, done: Callable[[TlsConnection], None]
    ) -> None:
        super().__init__(poller, timers, sock)
        self._in = ssl.MemoryBIO()
        self._out_bio = ssl.MemoryBIO()
        self._object = wrap(self._in, self._out_bio)
        self._done: Callable[[TlsConnection], None] | None = done
        self._handshaken = False
        self._plain: list[Chunk] = []
        self._early: list[bytes] = []
        self._upper: WireProtocol | None = None
        self._timer: Timer | None = None
        self._certificate: bytes | None = None
        self._seen = 0
        self._answers = 0
        self._later: bool | None = None  # the protocol asked to be called again; True: and then comes the end
        self.clear = False
        self.fault = ""
        self.first = b""
        self.rejected: ssl.SSLCertVerificationError | None = None

    def begin(self) -> None:
        """Read, and shake hands."""
        super().start(self)
        self._timer = self._timers.after(HANDSHAKE_TIMEOUT, self._late)
        if not self._object.server_side:
            self._handshake()

    def start(self, protocol: WireProtocol) -> None:
        """The protocol, after :meth:`begin`; what waits for it comes at once."""
        self._upper = protocol
        early, self._early = self._early, []
        self.resume()
        if early and not self.gone:
            protocol.received(b"".join(early))

    @property
    def alpn(self) -> str | None:
        """What was agreed on (RFC 7301), or None."""
        return self._object.selected_alpn_protocol()

    @property
    def client_certificate(self) -> bytes | None:
        """The peer's certificate, verified, as a value of ``x-forwarded-client-cert``; None where it has none."""
        if self._certificate is None and self._handshaken and self._object.context.verify_mode is not ssl.CERT_NONE:
            der = self._object.getpeercert(binary_form=True)
            self._certificate = b"" if der is None else x509.forwarded(der)
        return self._certificate or None

    # -- the handshake --------------------------------------------------------------------------------------

    def _handshake(self) -> None:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self._answer()
            return
        except ssl.SSLCertVerificationError as error:
            self.rejected = error
            self._failed(f"the peer's certificate was refused: {error.verify_message}{self._holds()}")
            return
        except (ssl.SSLError, ValueError) as error:
            self._failed(f"TLS handshake failed: {words(error)}")
            return
        self._handshaken = True
        self._answer()
        if self._plain:
            self.unsent += sum(map(len, self._plain))
            self._mark()
        self._over()
        if self._in.pending and not self._closing:
            self._decrypt()

    def _holds(self) -> str:
        """What the refused certificate says. For people only: nothing is decided by it."""
        try:
            chain = getattr(self._object, "get_unverified_chain", None)  # Python 3.13
            if chain is not None:
                return f" ({x509.parse(chain()[0]).show()})"
            found = self._object._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
            return f" ({x509.parse(ssl.PEM_cert_to_DER_cert(found[0].public_bytes())).show()})"
        except (AttributeError, IndexError, TypeError, ValueError, ssl.SSLError):
            return ""

    def _over(self) -> None:
        """The handshake has ended."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        done, self._done = self._done, None
        if done is not None:
            done(self)

    def _late(self, _: object) -> None:
        self.fault = f"no TLS handshake within {HANDSHAKE_TIMEOUT:g} s"
        self.abort()

    def _failed(self, why: str) -> None:
        """Send the alert, if there is one, and close."""
        self.fault = why
        self._plain.clear()
        self._answer()
        super().close()
        if self._handshaken and self._upper is not None:
            self._upper.lost(why)
            self._upper = None
        self._over()

    def _not_tls(self, data: bytes) -> None:
        self.fault, self.first, self.clear = "the peer does not speak TLS", data, True
        self._over()

    # -- input, from the connection -------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Decrypt every record of a read."""
        if self._handshaken:
            self._in.write(data)
            self._decrypt()
            return
        if self.clear or self.fault:
            return
        if not self._seen and data[0] not in (_HANDSHAKE, _ALERT):
            self._not_tls(data)
            return
        self._seen += len(data)
        if self._seen > HANDSHAKE_BYTES:
            self._failed(f"a handshake of more than {HANDSHAKE_BYTES} bytes")
            return
        self._in.write(data)
        self._handshake()

    def _decrypt(self) -> None:
        read, incoming, pending = self._object.read, self._in, self._object.pending
        pieces: list[bytes] = []
        ended = False
        fault = ""
        try:
            while True:
                piece = read(RECORD)
                if not piece:
                    ended = True
                    break
                pieces.append(piece)
                if not incoming.pending and not pending():
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            fault = f"TLS failed: {words(error)}"
        if self._out_bio.pending:
            self._answer()
        if pieces:
            self._deliver(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if fault and not self.gone:
            self._failed(fault)
        elif ended and not self.gone and not self._closing:
            self._ended()

    def _deliver(self, data: bytes) -> None:
        if self._upper is not None:
            self._upper.received(data)
        else:
            self._early.append(data)
            self.pause()

    def _ended(self) -> None:
        """close_notify: nothing comes behind it. A protocol that is not done with what came before hears of it later."""
        if self._later is not None:
            self._later = True
            return
        self.pause()
        if self._upper is not None:
            self._upper.eof()
        else:
            self.abort()

    def again(self, pause: float = 0.0) -> None:
        """See :class:`Connection`."""
        self._later = self._later or False
        super().again(pause)

    def on_again(self) -> None:
        """See :class:`Connection`."""
        ended, self._later = self._later, None
        if self.gone or self._closing or self._upper is None:
            return
        self.resume()
        self._upper.received(b"")
        if ended and not self.gone and not self._closing:
            self._ended()

    def eof(self) -> None:
        """The peer's half of the socket is closed, and there was no close_notify."""
        if self.clear:
            super().close()
            return
        self.fault = self.fault or ("connection truncated: it ended without close_notify" if self._handshaken else
                                    "the peer closed the connection within the TLS handshake")  # fmt: skip
        self.abort()

    def writable(self) -> None:
        """The output is below its low-water mark."""
        if self._upper is not None:
            self._upper.writable()

    def lost(self, why: str) -> None:
        """The socket is gone."""
        upper, self._upper = self._upper, None
        self._plain.clear()
        self._early.clear()
        if not self._handshaken and not self.fault:
            self.fault = f"the connection was lost within the TLS handshake ({why})"
        if upper is not None:
            upper.lost(self.fault or why)
        self._over()

    # -- output ---------------------------------------------------------------------------------------------

    def write(self, data: Chunk) -> None:
        """Encrypt and send ``data`` with the next flush; before the end of the handshake, after it."""
        if self.clear:
            super().write(data)
            return
        self._plain.append(data)
        if self._handshaken:
            self.unsent += len(data)
            self._mark()

    def write_pair(self, head: bytes, body: Chunk) -> None:
        """See :class:`Connection`."""
        self.write(head)
        self.write(body)

    def _mark(self) -> None:
        if not self._marked:
            self._marked = True
            self._poller.dirty(self)

    def flush(self) -> None:
        """Encrypt what was written and send it; called by the poller."""
        if self._plain and self._handshaken and not self.gone:
            self._encrypt()
        super().flush()

    def _encrypt(self) -> None:
        """Everything in records as large as they can be: headers of frames do not get records of their own."""
        plain = self._plain
        data = plain[0] if len(plain) == 1 else b"".join(plain)
        plain.clear()
        size = len(data)
        self.unsent -= size
        if size:
            self._object.write(data)
            self._collect()

    def _collect(self) -> None:
        data = self._out_bio.read()
        if data and not self.gone:
            self._out.append(data)
            self.unsent += len(data)

    def _answer(self) -> None:
        """Send what TLS itself has to say."""
        self._collect()
        if self._out and not self.gone:
            self._answers = self._answers + 1 if self._want_write else 0
            if self._answers > MAX_ANSWERS:
                self.fault = "too many TLS messages unread"
                self.abort()
            else:
                self._mark()

    # -- the end --------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Send what is left and close_notify; reading goes on."""
        if not self._finishing and not self.gone and self._handshaken:
            self._notify()
            super().finish()

    def close(self) -> None:
        """Send what is left and close_notify, and close."""
        if self._closing or self.gone:
            return
        if not self._handshaken:
            self._plain.clear()
        elif not self._finishing:
            self._notify()
        super().close()

    def _notify(self) -> None:
        if self._plain:
            self._encrypt()
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the peer's close_notify, or its data, has yet to come; ours is written
        self._collect()


def words(error: BaseException) -> str:
    """An error of the ssl module, for people."""
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error)
