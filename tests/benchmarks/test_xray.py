"""The x-ray's cost is told in training steps."""

from collections.abc import Callable
from typing import Any

Run = Callable[..., Any]


def test_a_look_costs_a_number_of_training_steps(run: Run) -> None:
    found = run("xray.py")
    assert found["step"]["n"] == 3
    wall, processor = found["ratios"]["quick"]
    assert wall > 0 and processor > 0
    assert {"anatomy", "signal"} <= set(found["parts"]["quick"])
    assert sum(found["parts"]["quick"].values()) <= wall
