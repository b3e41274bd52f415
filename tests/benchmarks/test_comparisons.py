"""The benchmarks that compare whole trainings run and say what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
    return json.loads(done.stdout)


@pytest.mark.slow
def test_families_gives_both_networks_the_steps_that_fit_in_the_budget() -> None:
    found = run("families.py", "--pair", "resnet20_cifar", "plain20_cifar", "--together")
    for row, name in zip(found["results"], ("resnet20_cifar", "plain20_cifar"), strict=True):
        assert row["model"] == name
        per_step = row["seconds_per_step"]
        assert row["steps"] == max(1, int(found["budget_seconds"] / per_step["median"]))
        (accuracy,) = row["accuracy"]
        assert 0.0 <= accuracy <= 1.0


@pytest.mark.slow
def test_calibration_measures_both_ways_with_every_seed() -> None:
    found = run("calibration.py")
    assert len(found["seeds"]) == 2
    for seed in found["seeds"]:
        assert seed["plain"] != seed["monte_carlo"]
        for way in seed.values():
            assert 0.0 <= way["ece"] <= 1.0 < way["loss"]


@pytest.mark.slow
def test_blockdrop_times_the_network_and_the_pair_in_turns() -> None:
    found = run("blockdrop.py")
    assert found["ratio"]["n"] == 3
    assert 0 <= found["policies"]["kept"]["mean"] <= 9
