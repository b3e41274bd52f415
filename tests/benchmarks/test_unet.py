"""benchmarks/unet.py compares two definitions of one network."""

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.mark.slow
def test_all_ways_compute_the_same_scores_and_take_turns(run: Run) -> None:
    (found,) = run("unet.py")["results"]
    assert found["difference"] <= 1e-9
    rounds = found["rounds"]
    assert set(rounds) >= {"residua, float32", "plain, float32"}
    for way, key in [(w, k) for w in rounds for k in ("ratio", "equal")]:
        peer = "plain, float32" if key == "ratio" else way.replace("residua", "plain")
        pairs = zip(rounds[way], rounds[peer], strict=True)
        assert found[key][way]["max"] == max(plain / ours for ours, plain in pairs)
    assert min(found["peak_megabytes"].values()) > 100
