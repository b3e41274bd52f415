"""The landscape benchmark runs, its two ways agree, and a plane is checked in full."""

from collections.abc import Callable
from typing import Any

Run = Callable[..., Any]


def test_landscape_measures_the_same_points_in_both_ways(run: Run) -> None:
    found = run("landscape.py")["results"]
    assert found["difference"] <= 1e-5
    assert found["ratio"]["n"] == found["processor_ratio"]["n"] == found["share"]["n"] == 2


def test_landscape_checks_a_plane_in_full(run: Run) -> None:
    found = run("landscape.py", "--plane")["results"]
    assert found["checked"] == 5 and found["full_pictures"] == 24
    assert found["interpolation"]["worst_over_standard_error"] <= 1.0
