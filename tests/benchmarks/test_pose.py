"""The benchmark of poses keeps the curve and says how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def pose(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import pose

    return pose


def rows(scores: list[float]) -> list[dict[str, float]]:
    return [{"minutes": 2.0 * k, "val_pck": s, "lr": 0.1} for k, s in enumerate(scores)]


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ([0.9, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5], "rising"),
        ([0.1, 0.2, 0.5, 0.51, 0.49, 0.51, 0.49], "flat"),
        ([0.1, 0.9, 0.8, 0.7, 0.6, 0.5], "falling"),
        ([0.5, 0.5, 0.5], "flat"),
        ([0.1, 0.5], "too few evaluations to say"),
    ],
)
def test_the_last_five_evaluations_say_how_a_curve_ends(
    pose: ModuleType, scores: list[float], verdict: str
) -> None:
    assert pose.ending(rows(scores))["verdict"] == verdict


def test_the_slope_is_in_points_a_minute(pose: ModuleType) -> None:
    assert pose.ending(rows([0.1, 0.2, 0.3]))["points_a_minute"] == pytest.approx(5.0)


def test_a_person_is_cut_out_with_what_is_around(pose: ModuleType) -> None:
    picture = np.arange(100 * 80).reshape(100, 80, 1)
    cut, corner = pose._cut(picture, (20, 10, 60, 90))
    assert corner.tolist() == [14, 0]
    assert cut.shape == (100, 53, 1)
    assert cut[0, 0, 0] == picture[0, 14, 0]


@pytest.mark.slow
def test_a_stack_of_two_is_trained_measured_and_drawn(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    found = run("pose.py", "--out", str(tmp_path))
    assert found["network"]["name"] == "hourglass2"
    assert found["history"][-1]["step"] == found["plan"]["steps"]
    low, high = found["reached"]["interval"]
    assert 0.0 <= low <= found["reached"]["pck"] <= high <= 1.0
    assert found["reached"]["n"] == found["people"][found["reached"]["split"]]
    assert json.loads((tmp_path / "pose.json").read_text()) == found
    assert Image.open(tmp_path / "pose.png").width == 960
