"""The benchmarks of very deep networks and of recomputation run and say what they promise."""

from collections.abc import Callable
from typing import Any

Run = Callable[..., Any]


def test_deep_networks_take_steps(run: Run) -> None:
    (found,) = run("deep.py", "--networks", "stable_resnet20_cifar")["results"]
    assert len(found["losses"]) == 4
    assert found["losses"][-1] < found["losses"][0]
    assert found["entropy"] > 2.3
    assert found["seconds"]["n"] == 4


def test_recomputation_changes_nothing_but_memory(run: Run) -> None:
    found = run("recompute.py")["results"]
    assert found["different"] == []
    assert found["recomputed"]["loss"] == found["plain"]["loss"]
    assert found["recomputed"]["kept"] < 0.5 * found["plain"]["kept"]
