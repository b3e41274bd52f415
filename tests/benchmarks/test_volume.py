"""The benchmark of a large volume: killed, gone on with, and every voxel what the network says of it."""

from collections.abc import Callable
from typing import Any


def test_a_killed_prediction_goes_on_and_no_voxel_is_wrong(run: Callable[..., Any]) -> None:
    found = run("volume.py")["results"]
    before, after = found["before"], found["after"]
    assert after["exact"] and after["planned"] <= found["setting"]["memory"]
    assert 0 < before["tiles"] < after["total"]
    assert found["wrong"] == 0 and found["compared"] == 1280
    assert after["tiles"] < after["total"]  # what the first process had finished is not done again
