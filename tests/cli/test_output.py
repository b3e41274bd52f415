"""What machines read is JSON, whatever the numbers are made of."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from residua.cli.output import print_json


def test_numbers_of_numpy_and_torch_become_plain_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json(
        {
            "accuracy": np.float32(0.5),
            "n": np.int64(3),
            "confusion": np.eye(2, dtype=np.int64),
            "loss": torch.tensor([0.25]),
            "path": Path("runs/a"),
            7: (True, None),
        }
    )
    assert json.loads(capsys.readouterr().out) == {
        "accuracy": 0.5,
        "n": 3,
        "confusion": [[1, 0], [0, 1]],
        "loss": [0.25],
        "path": str(Path("runs/a")),
        "7": [True, None],
    }


def test_a_number_that_is_not_finite_becomes_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([float("nan"), float("inf"), np.float64("-inf"), 1.5])
    assert capsys.readouterr().out == "[null, null, null, 1.5]\n"


def test_a_pipe_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, 2, 3], "b": "grün"})
    assert capsys.readouterr().out == '{"a": [1, 2, 3], "b": "grün"}\n'
