"""`calls.py PORT RATE SECONDS NAMES`: calls at a fixed rate, whatever becomes of those before; prints latencies in seconds.

A call's latency is counted from the moment at which it was due, also where its connection was still busy with the one before.
Names are visited in turn, so that the router knows all of them.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

CONNECTIONS = 8


def calls(port: int, every: float, begin: float, end: float, at: int, names: int, latencies: list[float]) -> None:
    """One connection's: one every `every` seconds."""
    due = begin + at * every / CONNECTIONS
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = at
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            sock.sendall(b"GET /x HTTP/1.1\r\nhost: s%d\r\n\r\n" % (number % names))
            answer = sock.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            latencies.append(time.monotonic() - due)
            due += every
            number += CONNECTIONS


def main() -> None:
    port, rate, seconds, names = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    latencies: list[float] = []
    begin = time.monotonic() + 0.1
    rest = (CONNECTIONS / rate, begin, begin + seconds)
    threads = [threading.Thread(target=calls, args=(port, *rest, at, names, latencies)) for at in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(latencies, sys.stdout)


if __name__ == "__main__":
    main()
