"""benchmarks/unet.py compares two definitions of one network."""

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.mark.slow
def test_both_ways_compute_the_same_scores_and_take_turns(run: Run) -> None:
    (found,) = run("unet.py")["results"]
    assert found["difference"] <= 1e-9
    pairs = zip(found["rounds"]["residua"], found["rounds"]["plain"], strict=True)
    assert found["ratio"]["max"] == max(plain / ours for ours, plain in pairs)
    assert min(found["peak_megabytes"].values()) > 100
