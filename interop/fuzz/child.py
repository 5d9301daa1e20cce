"""`python -m interop.fuzz.child TARGET ...`: one target under atheris, with libFuzzer's own arguments. Ends the process."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["dtab", "protocols", "router"]):
    from interop.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
