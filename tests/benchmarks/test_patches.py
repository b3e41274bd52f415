"""The benchmark of patches compares two ways that deliver the same pictures."""

from collections.abc import Callable
from typing import Any


def test_both_ways_deliver_the_same_patches(run: Callable[..., Any]) -> None:
    found = run("patches.py")
    assert found["levels_apart"] < 0.05  # of 255
    assert set(found["ratio"]) == {"scipy, linear", "scipy, cubic"}
    assert all(row["n"] == 2 for row in found["patches_per_second"].values())
