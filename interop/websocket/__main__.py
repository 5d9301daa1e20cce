"""`python -m interop.websocket`: WebSocket libraries of others through the router, every client with every server."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import yaml

from interop import _support as support
from interop.websocket.cases import CASES

HERE = Path(__file__).parent
NODE_FILES = [HERE / "node" / name for name in ("package.json", "server.js", "client.js")]
LIMIT = 90.0  # seconds for all cases of a pair


class Peer(NamedTuple):
    """``protocol``: what its server speaks."""

    protocol: str
    server: Callable[[int], list[str | Path]]
    client: Callable[[int], list[str | Path]]


def _python(file: str, *words: str) -> Callable[[int], list[str | Path]]:
    return lambda port: [sys.executable, HERE / file, *words, str(port)]


def _node(folder: Path, file: str, port: int) -> list[str | Path]:
    return [support.tool("node"), folder / file, str(port)]


def _build(folder: Path) -> None:
    for file in NODE_FILES:
        shutil.copy(file, folder)
    support.step([support.tool("npm"), "install", "--no-audit", "--no-fund", "--silent"], cwd=folder)


def peers() -> tuple[dict[str, Peer], dict[str, str]]:
    """Those that this machine can run, and why it cannot run the others."""
    found = {
        "websockets": Peer("http", _python("py_server.py"), _python("py_client.py")),
        "h2+wsproto": Peer("h2", _python("over_h2.py", "server"), _python("over_h2.py", "client")),
    }
    try:
        support.tool("node")
        support.tool("npm")
    except support.Unavailable as missing:
        return found, {"ws": str(missing)}
    folder = support.built("websocket-node", NODE_FILES, _build)
    found["ws"] = Peer("http", partial(_node, folder, "server.js"), partial(_node, folder, "client.js"))
    return found, {}


def config(fronts: dict[str, int], backs: dict[str, int], found: dict[str, Peer], admin: int) -> str:
    """A router for each server."""
    routers = [
        {
            "protocol": "http",
            "label": name,
            "dtab": f"/svc => /$/inet/127.0.0.1/{backs[name]}",
            "client": {"protocol": peer.protocol},
            "servers": [{"port": fronts[name]}],
        }
        for name, peer in found.items()
    ]
    return yaml.safe_dump({"admin": {"port": admin}, "routers": routers})


def main() -> int:
    argparse.ArgumentParser(prog="python -m interop.websocket", description=__doc__).parse_args()
    found, missing = peers()
    ports = support.free_ports(2 * len(found) + 1)
    fronts, backs = dict(zip(found, ports, strict=False)), dict(zip(found, ports[len(found) :], strict=False))
    file = support.log_file("websocket").with_suffix(".yaml")
    file.write_text(config(fronts, backs, found, ports[-1]))
    outcomes: dict[tuple[str, str], dict[str, str]] = {}
    with ExitStack() as stack:
        for name, peer in found.items():
            stack.enter_context(support.serving(f"websocket-{name}", peer.server(backs[name]), ports=[backs[name]]))
        argv = [sys.executable, "-m", "router.cli", "run", file]
        stack.enter_context(support.serving("websocket", argv, ports=list(fronts.values()), admin=ports[-1]))
        for client in found:
            for server in found:
                outcomes[client, server] = play(found[client], fronts[server], f"websocket-{client}-{server}")
    return report(outcomes, missing, len(found))


def play(peer: Peer, port: int, name: str) -> dict[str, str]:
    """Outcomes by case."""
    done = support.run(name, peer.client(port), limit=LIMIT)
    try:
        told: dict[str, str] = json.loads(done.tail.splitlines()[-1])
    except (ValueError, IndexError):
        return dict.fromkeys(CASES, f"{done.verdict}: {done.tail[-200:]}")
    return {case: told.get(case, "missing") for case in CASES}


def report(outcomes: dict[tuple[str, str], dict[str, str]], missing: dict[str, str], found: int) -> int:
    rows = [["client -> server", *CASES]]
    for (client, server), cells in outcomes.items():
        rows.append([f"{client} -> {server}", *["FAIL" if cells[case] else "ok" for case in CASES]])
    print(support.table(rows))
    for (client, server), cells in outcomes.items():
        for case, why in cells.items():
            if why:
                print(f"FAIL {client} -> {server}, {case}: {why}")
    for name, why in missing.items():
        print(f"skip {name}: {why}")
    failed = sum(bool(why) for cells in outcomes.values() for why in cells.values())
    skipped = len(missing) * (2 * found + 1) * len(CASES)
    tally = support.Tally(len(outcomes) * len(CASES) - failed, failed, skipped)
    print(f"\n{tally}")
    return tally.exit_code


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
