"""What a connection costs that says nothing."""

from __future__ import annotations

import socket
from pathlib import Path

import hpack
import pytest
from hyperframe.frame import HeadersFrame, SettingsFrame

from tests.support.running import running

COUNT = 600
LIMIT = 40.0  # KiB
HEAD = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"web")]
ONE = {
    "http": b"GET / HTTP/1.1\r\nhost: web\r\n\r\n",
    "h2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + SettingsFrame(0).serialize()
    + HeadersFrame(1, hpack.Encoder().encode(HEAD), flags=["END_HEADERS", "END_STREAM"]).serialize(),
}


def resident(pid: int) -> int:
    """KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def connect(port: int, request: bytes) -> socket.socket:
    """A connection on which one request was answered."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.sendall(request)
    assert sock.recv(65536)
    return sock


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read memory from")
@pytest.mark.parametrize("protocol", ["http", "h2"])
def test_an_idle_connection_is_cheap(tmp_path: Path, protocol: str) -> None:
    config = tmp_path / "idle.yaml"
    config.write_text(
        f"admin: {{port: 0}}\nrouters: [{{protocol: {protocol}, dtab: '/svc => /$/nil', servers: [{{port: 0}}]}}]"
    )
    with running(config) as router:
        (worker,), (port,) = router.workers, router.ports
        socks = [connect(port, ONE[protocol]) for _ in range(100)]
        before = resident(worker)
        socks += [connect(port, ONE[protocol]) for _ in range(COUNT)]
        each = (resident(worker) - before) / COUNT
        for sock in socks:
            sock.close()
    print(f"{protocol}: {each:.1f} KiB")
    assert each < LIMIT, f"{each:.1f} KiB"
