"""Clients of HTTP/1.1: each a function that does one thing on a connection of its own, or fails with OSError or ValueError."""

from __future__ import annotations

import random
import socket
import ssl
import struct
import time

LIMIT = 20.0
BODY = bytes(range(256)) * 800


def _connect(port: int, tls: ssl.SSLContext | None = None) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    return sock if tls is None else tls.wrap_socket(sock, server_hostname="localhost")


def _reset(sock: socket.socket) -> None:
    """Go away without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _answer(sock: socket.socket, pause: float = 0.0) -> bytes:
    """One response with a length, and its body, read in small pieces where there is a pause."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(head[:64])
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        time.sleep(pause)
        body += _some(sock)
    return body


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ValueError("closed early")
    return data


def _head(line: str, *fields: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "host: web", *fields, "", ""]).encode()


def keep_alive(port: int, tls: ssl.SSLContext | None = None) -> None:
    """Several requests, some with a body in chunks, on one connection."""
    with _connect(port, tls) as sock:
        for _ in range(random.randrange(1, 8)):
            sock.sendall(_head("GET /small"))
            if _answer(sock) != b"small":
                raise ValueError("another body")
        pieces = [BODY[at : at + 5000] for at in range(0, len(BODY), 5000)]
        chunks = b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]) + b"0\r\n\r\n"
        sock.sendall(_head("POST /echo", "transfer-encoding: chunked") + chunks)
        if _answer(sock) != BODY:
            raise ValueError("another body")


def half_close(port: int) -> None:
    """Send everything and close that half: who does so is taken for gone, but may have been answered before."""
    with _connect(port) as sock:
        sock.sendall(_head("POST /echo", f"content-length: {len(BODY)}") + BODY)
        sock.shutdown(socket.SHUT_WR)
        try:
            answer = _answer(sock)
        except (ValueError, OSError):
            return
        if answer != BODY:
            raise ValueError("another body")


def slow_reader(port: int) -> None:
    """Read a large answer slowly; often, leave before its end."""
    with _connect(port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.sendall(_head("GET /big"))
        if random.random() < 0.5:
            for _ in range(random.randrange(8)):
                time.sleep(0.05)
                _some(sock)
            _reset(sock)
        else:
            _answer(sock, 0.01)


def slow_writer(port: int) -> None:
    """Send a body slowly; often, leave before its end."""
    with _connect(port) as sock:
        sock.sendall(_head("POST /echo", "content-length: 20000"))
        for _ in range(10):
            sock.sendall(bytes(2000))
            time.sleep(0.02)
            if random.random() < 0.05:
                _reset(sock)
                return
        _answer(sock)


def broken(port: int) -> None:
    """Ask for what breaks off, or is answered early: all that matters is that there is an end."""
    with _connect(port) as sock:
        path = random.choice(["GET /cut", "GET /reset", "GET /slow", "POST /early"])
        sock.sendall(_head(path, *(["content-length: 500000"] if "POST" in path else []), "connection: close"))
        try:
            if "POST" in path:
                sock.sendall(bytes(500000))
            while sock.recv(65536):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass


def garbage(port: int) -> None:
    """What is no HTTP, and what is no good HTTP; the answer does not matter, its end does."""
    messages = [b"\x16\x03\x01" + random.randbytes(60), b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n\r\n", b"GET /" + b"a" * 9000]
    messages += [_head("POST /echo", "transfer-encoding: chunked") + b"zz\r\n", _head("GET /", "content-length: 1, 2"), b"G"]
    with _connect(port) as sock:
        try:
            sock.sendall(random.choice(messages))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
