"""One socket: reads handed to a protocol, one output buffer, high and low water.

Theory of operation

1. ``write`` appends to the output and marks the connection; the poller calls ``flush`` at the end of its turn, which
   sends everything with one syscall and waits for writability only when the kernel takes less.
2. Above ``HIGH`` unsent bytes the connection is ``congested``: protocols stop accepting data for it (and so stop giving
   credit to where the data comes from). Below ``LOW`` the protocol's ``writable`` is called.
   The output is hence bounded by ``HIGH``, one turn's worth of reads, and the control frames that protocols bound.
3. ``close`` sends what is left, shuts our half down and reads on, into nothing, until the peer closes its half, for at
   most ``LINGER`` seconds in all: closing with unread bytes would make the kernel send a reset, which can overtake
   what we said last (a GOAWAY, an answer). ``abort`` does not wait. After the end the protocol hears ``lost`` exactly
   once; that may be before the call returns that ended the connection. ``finish`` ends our half only.
4. A protocol that got more in a read than it wants to do at a time asks to be called ``again``: nothing more is read until
   it was, with no new data, in the poller's next turn.
5. A protocol that reads no more (``pause``) still learns that both directions are dead: epoll reports that unasked.
6. What was written since ``sent`` last changed has not left, which is how a protocol can prove that a request never reached an
   endpoint: it ``abort``s, and the request never will.
"""

from __future__ import annotations

import socket
import struct
from typing import ClassVar, Protocol

from protocols.wire.poller import Poller
from router.model.body import Chunk
from router.model.ends import Ends, address, show
from router.model.timers import Timer, Timers

READ_SIZE = 262144
HIGH = 262144
LOW = 65536
LINGER = 1.0
_JOIN_BELOW = 16384
_IOV = 512
_NO_LINGER = struct.pack("ii", 1, 0)


class WireProtocol(Protocol):
    """What sits on a connection."""

    def received(self, data: bytes) -> None:
        """Bytes came; act on all of them now."""

    def eof(self) -> None:
        """The peer will send nothing more."""

    def writable(self) -> None:
        """The output has fallen below the low-water mark."""

    def lost(self, why: str) -> None:
        """The connection is gone."""


class Connection:
    """A connected, non-blocking stream socket that belongs to a poller."""

    __slots__ = ("_begun", "_closing", "_fd", "_finishing", "_linger", "_marked", "_out", "_poller", "_read", "_sock",
                 "_timers", "_want_write", "congested", "ends", "gone", "protocol", "sent", "unsent")  # fmt: skip

    secure: ClassVar[bool] = False  # whether it speaks TLS

    def __init__(self, poller: Poller, timers: Timers, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.ends = Ends()  # whoever accepts knows them
        self._begun = False
        self._fd = sock.fileno()
        self._poller = poller
        self._timers = timers
        self._out: list[Chunk] = []
        self._marked = False
        self._read = True
        self._want_write = False
        self._closing = False
        self._finishing = False  # our half ends with what is unsent; true as well while closing
        self._linger: Timer | None = None
        self.unsent = 0
        self.sent = 0  # bytes that the kernel took
        self.congested = False
        self.gone = False
        self.protocol: WireProtocol

    def start(self, protocol: WireProtocol) -> None:
        """Begin to read for ``protocol``, or go on for it."""
        self.protocol = protocol
        if not self._begun:
            self._begun = True
            self._poller.register(self._fd, self)

    # -- output ---------------------------------------------------------------------------------------------

    def write(self, data: Chunk) -> None:
        """Send ``data`` with the next flush."""
        self._out.append(data)
        self.unsent += len(data)
        if not self._marked:
            self._marked = True
            self._poller.dirty(self)

    def write_pair(self, head: bytes, body: Chunk) -> None:
        """:meth:`write` twice, for the bulk: a frame in two parts, which are not joined."""
        self._out += (head, body)
        self.unsent += len(head) + len(body)
        if not self._marked:
            self._marked = True
            self._poller.dirty(self)

    def flush(self) -> None:
        """Send what was written; called by the poller."""
        self._marked = False
        out = self._out
        if self.gone:
            return
        if not out:
            if self._finishing:
                self._shut()
        elif self._want_write:
            self.congested = self.congested or self.unsent > HIGH
        else:
            self._send()

    def _send(self) -> None:
        out = self._out
        try:
            if self.unsent <= _JOIN_BELOW or len(out) == 1:
                data = out[0] if len(out) == 1 else b"".join(out)
                sent = self._sock.send(data)
                if sent == len(data):
                    out.clear()
                else:
                    self._out = [memoryview(data)[sent:]]
            else:
                sent = self._sock.sendmsg(out if len(out) <= _IOV else out[:_IOV])
                if sent == self.unsent:
                    out.clear()
                else:
                    self._drop(sent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        self.unsent -= sent
        self.sent += sent
        self._after_send()

    def _drop(self, sent: int) -> None:
        out = self._out
        at = 0
        while at < len(out) and sent >= len(out[at]):
            sent -= len(out[at])
            at += 1
        del out[:at]
        if sent:
            out[0] = memoryview(out[0])[sent:]

    def _after_send(self) -> None:
        unsent = self.unsent
        if unsent == 0 and self._finishing:
            self._shut()
            if self._closing:
                return
        if (unsent != 0) is not self._want_write:
            self._want_write = unsent != 0
            self._poller.interest(self._fd, read=self._read, write=self._want_write)
        if self.congested:
            if unsent < LOW:
                self.congested = False
                self.protocol.writable()
        elif unsent > HIGH:
            self.congested = True

    def on_writable(self) -> None:
        """The kernel takes bytes again; called by the poller."""
        if self._out:
            self._send()

    # -- input ----------------------------------------------------------------------------------------------

    def on_readable(self) -> None:
        """Read once; called by the poller."""
        if not self._read:
            self._end("reset by peer")
            return
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if self._closing:
            if not data:
                self._end("closed")
        elif data:
            self.protocol.received(data)
        else:
            self.pause()
            self.protocol.eof()

    def pause(self) -> None:
        """Read no more for now."""
        if self._read and not self.gone and not self._closing:
            self._read = False
            self._poller.interest(self._fd, read=False, write=self._want_write)

    def resume(self) -> None:
        """Read on."""
        if not self._read and not self.gone:
            self._read = True
            self._poller.interest(self._fd, read=True, write=self._want_write)

    def again(self, pause: float = 0.0) -> None:
        """Have ``received(b"")`` called in the next turn, or after ``pause`` seconds, and read nothing before."""
        self.pause()
        if pause:
            self._timers.after(pause, lambda _: self.on_again())
        else:
            self._poller.again(self)

    def on_again(self) -> None:
        """See :meth:`again`; called by the poller."""
        if not self.gone and not self._closing:
            self.resume()
            self.protocol.received(b"")

    # -- end ------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Send what is left, and then nothing more; reading goes on."""
        if not self._finishing and not self.gone:
            self._finishing = True
            if not self._marked:
                self._marked = True
                self._poller.dirty(self)

    def close(self) -> None:
        """Send what is left and close."""
        if self._closing or self.gone:
            return
        self._closing = self._finishing = True
        self.resume()
        self._linger = self._timers.after(LINGER, self._lingered)
        if not self._marked:
            self._marked = True
            self._poller.dirty(self)

    def _shut(self) -> None:
        """Everything is sent: tell the peer, wait for its end."""
        if self._want_write:
            self._want_write = False
            self._poller.interest(self._fd, read=self._read, write=False)
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._end("closed")

    def _lingered(self, _: object) -> None:
        self._end("closed with unsent bytes")

    def abort(self, why: str = "aborted") -> None:
        """Close now; what is unsent is lost."""
        self._end(why)

    def reset(self, why: str = "reset") -> None:
        """:meth:`abort` so that the peer sees it: with RST in place of FIN, whatever was read."""
        if not self.gone:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._end(why)

    def _end(self, why: str) -> None:
        if self.gone:
            return
        self.gone = True
        self.congested = False
        if self._linger is not None:
            self._linger.cancel()
        self._poller.unregister(self._fd)
        self._sock.close()
        self._out = []
        self.unsent = 0
        self.protocol.lost(why)

    @property
    def client_certificate(self) -> bytes | None:
        """The peer's verified certificate as a value of ``x-forwarded-client-cert``: none without TLS."""
        return None

    @property
    def peer(self) -> str:
        """Address and port of the other side, for logs and events."""
        ends = self.ends
        if not ends.text:
            known = ends.client
            if known is None:
                try:
                    known = address(self._sock.getpeername())
                except OSError:
                    return show(None)
            ends.text = show(known)
        return ends.text
