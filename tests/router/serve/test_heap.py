"""The heap of a worker keeps what large reads give back."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from router.serve.heap import _SETTINGS, keep_freed

ROUNDS = 50

# Buffers as of four connections with large bodies, whose pages must be there again in the next turn.
PROGRAM = f"""
import resource, sys
from router.serve.heap import keep_freed
if sys.argv[1] == "keep":
    assert keep_freed()
buffers = [b"x" * 262144 for _ in range(4)]
del buffers
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    buffers = [b"x" * 262144 for _ in range(4)]
    del buffers
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that the kernel had to find for ``ROUNDS`` MiB of buffers."""
    environ = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], env=environ, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_buffers_are_paid_for_once() -> None:
    assert faults("leave") > 20 * ROUNDS
    assert faults("keep") < ROUNDS


@pytest.mark.parametrize("name", _SETTINGS)
def test_who_has_set_it_otherwise_has_decided(name: str) -> None:
    assert not keep_freed({name: ""})
