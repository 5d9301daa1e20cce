"""`python -m interop.h2spec`: h2spec against the router's HTTP/2 front side, or against a server that runs already."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from interop import _support as support

HERE = Path(__file__).parent
PACKAGE = "github.com/summerwind/h2spec"
LIMIT = 400.0  # seconds for the whole run
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")  # h2spec copies bytes of answers into its report
TIMEOUT = 2  # seconds for which a case waits for an answer


class Unfinished(Exception):
    """h2spec did not come to its end. The text has the end of its output."""


@dataclass(frozen=True)
class Target:
    """Where h2spec connects, and the path it asks for."""

    host: str
    port: int
    path: str = "/"
    tls: bool = False


@dataclass(frozen=True)
class Case:
    """One case by h2spec's own name (`http2/6.9.1/2` runs it alone): `outcome` is ok, FAIL or skip."""

    name: str
    title: str
    outcome: str
    detail: str = ""


def build() -> Path:
    """The h2spec program; raises `Unavailable` or `BuildError`."""
    go = support.tool("go")

    def make(folder: Path) -> None:
        support.step([go, "build", "-mod=readonly", "-trimpath", "-o", f"{folder}/", f"{PACKAGE}/cmd/h2spec"], cwd=HERE)

    return support.built("h2spec", [HERE / "go.mod", HERE / "go.sum"], make) / "h2spec"


def pinned_version() -> str:
    found = re.search(rf"{PACKAGE} (v[^\s+]+)", (HERE / "go.mod").read_text())
    if found is None:
        raise LookupError(f"go.mod does not pin {PACKAGE}")
    return found[1]


@contextmanager
def behind_router(*, tls: bool) -> Iterator[Target]:
    """A backend, and a router whose every request leads to it; raises `StartError`."""
    front, back = support.free_ports(2)
    router = {
        "protocol": "h2",
        "identifier": {"kind": "io.l5d.static", "path": "backend"},
        "dtab": f"/svc/backend => /$/inet/{support.LOOPBACK}/{back};",
        "servers": [{"ip": support.LOOPBACK, "port": front, **({"tls": support.certificate("h2spec")} if tls else {})}],
    }
    backend = [sys.executable, "-m", "interop.h2spec.backend", str(back)]
    with support.serving("h2spec-backend", backend, ports=[back]), support.router("h2spec-router", [router]):
        yield Target(support.LOOPBACK, front, tls=tls)


@contextmanager
def at(url: str) -> Iterator[Target]:
    """A server that runs already."""
    found = re.fullmatch(r"http(s?)://([^/:]+):(\d+)(/.*)?", url)
    if found is None:
        raise SystemExit(f"--front {url}: not of the form http[s]://HOST:PORT[/PATH]")
    yield Target(found[2], int(found[3]), found[4] or "/", tls=bool(found[1]))


def run(program: Path, target: Target, *, strict: bool) -> list[Case]:
    """Run every case; raises `Unfinished`."""
    report = support.log_file("h2spec").with_suffix(".xml")
    report.unlink(missing_ok=True)
    where = ["--host", target.host, "--port", str(target.port), "--path", target.path]
    options = ["--timeout", str(TIMEOUT), "--junit-report", str(report), *(["--strict"] if strict else [])]
    options += ["--tls", "--insecure"] if target.tls else []
    done = support.run("h2spec", [program, *where, *options], limit=LIMIT)
    if done.code is None or not report.exists():
        raise Unfinished(f"h2spec: {done.verdict}\n{done.tail}")
    return read(report)


def read(report: Path) -> list[Case]:
    """The cases of a JUnit report. h2spec numbers the cases of a section in the order in which it reports them."""
    cases: list[Case] = []
    text = NOT_XML.sub("?", report.read_text(errors="replace"))
    for suite in ET.fromstring(text).iter("testsuite"):
        for number, element in enumerate(suite.iter("testcase"), 1):
            cases.append(_case(f"{element.get('package')}/{number}", element))
    return cases


def _case(name: str, element: ET.Element) -> Case:
    title = element.get("classname", "")
    for tag, outcome in (("failure", "FAIL"), ("error", "FAIL"), ("skipped", "skip")):
        found = element.find(tag)
        if found is not None:
            return Case(name, title, outcome, (found.text or "").strip())
    return Case(name, title, "ok")


def render(cases: Sequence[Case]) -> str:
    """What passed in a line for each group, then every case that did not pass."""
    groups = list(dict.fromkeys(case.name.split("/")[0] for case in cases))
    counts = [(group, tally([case for case in cases if case.name.startswith(f"{group}/")])) for group in groups]
    lines = [
        support.table(
            [["group", "ok", "FAIL", "skip"], *([g, str(t.passed), str(t.failed), str(t.skipped)] for g, t in counts)]
        )
    ]
    for case in cases:
        if case.outcome != "ok":
            lines.append(f"\n{case.outcome} {case.name}: {case.title}")
            lines += [support.indented(case.detail)] if case.detail else []
    return "\n".join(lines)


def tally(cases: Sequence[Case]) -> support.Tally:
    outcomes = [case.outcome for case in cases]
    return support.Tally(outcomes.count("ok"), outcomes.count("FAIL"), outcomes.count("skip"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m interop.h2spec", description=__doc__)
    parser.add_argument("--strict", action="store_true", help="also the cases that h2spec calls strict")
    parser.add_argument("--tls", action="store_true", help="over TLS, with ALPN")
    parser.add_argument("--front", metavar="URL", help="test this server, http[s]://HOST:PORT/PATH, and start no router")
    parser.add_argument("--program", metavar="FILE", type=Path, help="run this h2spec, and build none")
    options = parser.parse_args()
    print(f"h2spec {options.program or pinned_version()}", flush=True)
    try:
        program = options.program or build()
        with at(options.front) if options.front else behind_router(tls=options.tls) as target:
            cases = run(program, target, strict=options.strict)
    except support.Unavailable as error:
        report, verdict = f"skip: {error}", support.Tally(0, 0, 1)
    except (support.BuildError, support.StartError, Unfinished) as error:
        report, verdict = f"FAIL: {error}", support.Tally(0, 1, 0)
    else:
        report, verdict = render(cases), tally(cases)
    print(f"{report}\n\n{verdict}")
    return verdict.exit_code


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
