"""`python -m interop.fuzz`: replay the corpus of every target, then fuzz with atheris.

What a run finds out is kept in `.interop/fuzz/`, where the next one goes on; a finding is written there too, and belongs into a
unit test and into `interop/fuzz/corpus/`.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import traceback
from dataclasses import dataclass, field

from interop import _support as support
from interop.fuzz.seeds import CORPUS
from interop.fuzz.targets import TARGETS

MEMORY = 1024  # MiB that a target may take up
SLOW = 5  # seconds that one input may take


@dataclass
class Result:
    """Of one target. ``skipped``: why it was not fuzzed."""

    replayed: int = 0
    runs: int = 0
    features: int = 0
    findings: list[str] = field(default_factory=list)
    skipped: str = ""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m interop.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="all of them by default")
    return parser.parse_args()


def replay(name: str, result: Result) -> None:
    """Every input of the corpus."""
    for path in sorted((CORPUS / name).iterdir()):
        try:
            TARGETS[name](path.read_bytes())
        except Exception:  # noqa: BLE001 - that is a finding
            result.findings.append(f"{path}\n{traceback.format_exc()}")
        result.replayed += 1


def fuzz(name: str, seconds: int, result: Result) -> None:
    """By atheris, in a process of its own."""
    if importlib.util.find_spec("atheris") is None:
        result.skipped = "atheris is not installed (the extra `fuzz`)"
        return
    folder = support.cache() / "fuzz" / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY}", f"-timeout={SLOW}", "-max_len=4096"]
    argv = [sys.executable, "-m", "interop.fuzz.child", name, *limits, f"-artifact_prefix={folder}/"]
    argv += ["-print_final_stats=1", str(folder / "corpus"), str(CORPUS / name)]
    done = support.run(f"fuzz-{name}", argv, limit=seconds + 60.0)
    log = support.log_file(f"fuzz-{name}").read_text(errors="replace")
    result.runs = _last(r"stat::number_of_executed_units:\s*(\d+)", log)
    result.features = _last(r" ft: (\d+)", log)
    if done.code != 0:
        result.findings.append(f"{done.verdict}, input in {folder}\n{done.tail}")


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def main() -> int:
    options = arguments()
    results: dict[str, Result] = {}
    for name in options.target or TARGETS:
        result = results[name] = Result()
        replay(name, result)
        if options.seconds:
            fuzz(name, options.seconds, result)
    rows = [[name, str(r.replayed), str(r.runs), str(r.features), str(len(r.findings))] for name, r in results.items()]
    print(support.table([["target", "replayed", "runs", "features", "findings"], *rows]))
    for name, result in results.items():
        for finding in result.findings:
            print(f"\n{name}: {finding}")
        if result.skipped:
            print(f"skip {name}: {result.skipped}")
    failed = sum(bool(result.findings) for result in results.values())
    skipped = sum(bool(result.skipped) and not result.findings for result in results.values())
    tally = support.Tally(len(results) - failed - skipped, failed, skipped)
    print(f"\n{tally}")
    replayed = bool(skipped) and not failed  # without atheris the corpus was replayed all the same
    return 0 if replayed else tally.exit_code


if __name__ == "__main__":
    support.end_on_sigterm()
    sys.exit(main())
