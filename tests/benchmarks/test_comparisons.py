"""The benchmarks that compare whole trainings run and say what they promise."""

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.mark.slow
def test_families_gives_both_networks_the_steps_that_fit_in_the_budget(run: Run) -> None:
    found = run("families.py", "--pair", "resnet20_cifar", "plain20_cifar", "--together")
    for row, name in zip(found["results"], ("resnet20_cifar", "plain20_cifar"), strict=True):
        assert row["model"] == name
        per_step = row["seconds_per_step"]
        assert row["steps"] == max(1, int(found["budget_seconds"] / per_step["median"]))
        (accuracy,) = row["accuracy"]
        assert 0.0 <= accuracy <= 1.0


@pytest.mark.slow
def test_calibration_measures_both_ways_with_every_seed(run: Run) -> None:
    found = run("calibration.py")
    assert len(found["seeds"]) == 2
    for seed in found["seeds"]:
        assert seed["plain"] != seed["monte_carlo"]
        for way in seed.values():
            assert 0.0 <= way["ece"] <= 1.0 < way["loss"]


@pytest.mark.slow
def test_blockdrop_times_the_network_and_the_pair_in_turns(run: Run) -> None:
    found = run("blockdrop.py")
    assert found["ratio"]["n"] == 3
    assert 0 <= found["policies"]["kept"]["mean"] <= 9
