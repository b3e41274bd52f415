"""The benchmarks of very deep networks and of recomputation run and say what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, "--quick", "--json", "--device", "cpu", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["results"]


def test_deep_networks_take_steps() -> None:
    (found,) = run("deep.py", "--networks", "stable_resnet20_cifar")
    assert len(found["losses"]) == 4
    assert found["losses"][-1] < found["losses"][0]
    assert found["entropy"] > 2.3
    assert found["seconds"]["n"] == 4


def test_recomputation_changes_nothing_but_memory() -> None:
    found = run("recompute.py")
    assert found["different"] == []
    assert found["recomputed"]["loss"] == found["plain"]["loss"]
    assert found["recomputed"]["kept"] < 0.5 * found["plain"]["kept"]
