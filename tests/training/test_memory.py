"""Keeping freed memory: the same numbers, fewer pages from the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from residua.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def once():
    return torch.ones(16 << 20).sum()   # 64 MiB: above any threshold of glibc's
for _ in range(10):  # until the heap has a place for it
    once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own setting")
def test_a_freed_block_is_not_mapped_anew() -> None:
    def faults(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("keep") < faults("leave") / 10
