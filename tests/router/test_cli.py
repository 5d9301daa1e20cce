"""The command: exit codes, what is printed where."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli import main
from tests.support.running import running

GOOD = """
routers:
- protocol: http
  label: web
  dtab: |
    /host => /$/inet/127.1 ;
    /svc => /host/80 | /$/fail ;
  servers: [{port: 0}]
"""
BAD = "routers:\n- protocol: htp\n  dtab: /a => ;\n"


def call(*arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(main, arguments, input=stdin)


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return str(path)


def test_check_tells_all_errors_of_all_files_at_once(good: str, bad: str) -> None:
    result = call("check", good, bad)
    assert result.exit_code == 1
    assert f"{good}: good, 1 router" in result.stdout
    assert f"{bad}:2:13: error: unknown protocol 'htp'" in result.stderr
    assert "did you mean 'http'" in result.stderr
    assert f"{bad}:3:15: error: dtab: simple expected but ';' found" in result.stderr
    assert re.search(r"^ +\| +\^$", result.stderr, re.MULTILINE)


def test_check_exit_codes(good: str, tmp_path: Path) -> None:
    assert call("check", good).exit_code == 0
    assert call("check", "-", stdin=GOOD).exit_code == 0
    assert call("check", "-", stdin=BAD).exit_code == 1
    assert call("check").exit_code == 2
    missing = call("check", good, str(tmp_path / "missing.yaml"))
    assert missing.exit_code == 2
    assert "cannot read the file: No such file or directory" in missing.stderr


@pytest.mark.parametrize("command", [["run"], ["explain"]])
def test_files_that_cannot_be_used(command: list[str], bad: str, tmp_path: Path) -> None:
    path = ["/svc/a"] if command == ["explain"] else []
    refused = call(*command, bad, *path)
    assert refused.exit_code == 1
    assert "unknown protocol" in refused.stderr
    assert call(*command, str(tmp_path / "missing.yaml"), *path).exit_code == 2


def test_explain_shows_lines_and_reasons(good: str) -> None:
    result = call("explain", good, "/svc/a", "--dtab", "/b => /c")
    assert result.exit_code == 0, result.stderr
    assert f"({good}:6)" in result.stdout
    assert f"({good}:7)" in result.stdout
    assert "bound to: /$/inet/127.1/80" in result.stdout
    assert re.search(r"--dtab:1 .*/b=>/c", result.stdout)
    assert "127.0.0.1:80" in result.stdout


def test_explain_as_json(good: str) -> None:
    tree = json.loads(call("explain", good, "/svc/a", "--json").stdout)
    assert tree["path"] == "/svc/a"
    assert tree["type"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["/svc/a", "--router", "wob"], "no router has the label 'wob'; there are 'web'"),
        (["svc/a"], "'/' expected"),
        (["/svc/a", "--dtab", "/a => "], "simple expected"),
    ],
)
def test_explain_with_nonsense(good: str, arguments: list[str], told: str) -> None:
    result = call("explain", good, *arguments)
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_dtab_commands() -> None:
    assert json.loads(call("dtab", "parse", "/a=>/b").stdout)[0]["prefix"] == "/a"
    assert call("dtab", "format", "-", stdin="/a=>/b|/c;\n# c\n/d=>!").stdout == "/a => /b | /c ;\n/d => ! ;\n"
    assert call("dtab", "eval", "/a=>/$/inet/127.1/80", "/a/x").stdout == "/$/inet/127.1/80\n"
    assert call("dtab", "eval", "/a=>/b", "/a").stdout == "~\n"


def test_dtab_commands_with_nonsense() -> None:
    refused = call("dtab", "parse", "/a =>")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("dtab:1:6: error\n/a =>\n     ^ simple expected")
    assert call("dtab", "eval", "/a=>/b", "a").exit_code == 1
    loop = call("dtab", "eval", "/a=>/a", "/a")
    assert loop.exit_code == 1
    assert "Max recursion level" in loop.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = call("run", "-", stdin=GOOD.replace("port: 0", f"port: {port}"))
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr


@pytest.mark.slow
def test_run_says_where_it_listens_serves_and_drains(good: str) -> None:
    with running(good) as router:
        (listener,) = router.ready["listeners"]
        port = listener.pop("port")
        assert listener == {"router": "web", "protocol": "http", "ip": "127.0.0.1", "tls": False}
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        began = time.monotonic()
        assert router.stop() == 0
        assert time.monotonic() - began < 3
        assert [line["event"] for line in router.lines][-2:] == ["draining", "stopped"]


@pytest.mark.slow
def test_on_a_terminal_it_speaks_to_people(good: str) -> None:
    master, terminal = os.openpty()
    command = [sys.executable, "-m", "router.cli", "run", good]
    with subprocess.Popen(command, stderr=terminal) as process:
        os.close(terminal)
        try:
            with open(master, encoding="utf-8", closefd=False) as said:
                banner = ""
                while "try:" not in banner:
                    banner += said.readline()
            port = re.findall(r"http +127\.0\.0\.1:(\d+)  router 'web', 2 dentries", banner)[0]
            assert f"try: curl -v -H 'Host: web' http://127.0.0.1:{port}/" in banner
            assert re.search(r"^[0-9-]{10} [0-9:]{8} INFO    listener_open router=web", banner, re.MULTILINE)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 0
        finally:
            process.kill()
            os.close(master)


def test_explain_does_not_repeat_itself_in_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text(GOOD.replace("/svc =>", "/svc/a => /svc/a ;\n    /svc =>"))
    result = call("explain", str(path), "/svc/a")
    assert result.exit_code == 0, result.stderr
    assert "Max recursion level" in result.stdout
    assert "more that are the same as these" in result.stdout
    assert len(result.stdout.splitlines()) < 40
