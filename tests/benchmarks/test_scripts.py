"""The benchmarks run and say what they promise; their numbers are not tested here."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Run = Callable[..., Any]


def test_training_compares_networks_that_agree(run: Run) -> None:
    (found,) = run("training.py", "--networks", "resnet20_cifar")["results"]
    assert found["difference"] <= 1e-9
    assert all(found["pictures_per_second"][way]["n"] == 2 for way in ("residua", "plain", "bare"))
    pairs = zip(found["rounds"]["residua"], found["rounds"]["plain"], strict=True)
    quickest = max(ours / plain for ours, plain in pairs)
    assert found["ratio"]["max"] == pytest.approx(quickest)
    assert min(found["peak_megabytes"].values()) > 100


def test_recorder_measures_both_networks(run: Run) -> None:
    for found in run("recorder.py")["results"]:
        slower = found["seconds"]["recorded"]["min"] / found["seconds"]["other"]["max"] - 1
        assert found["share"]["n"] == 3
        assert found["share"]["max"] * found["interval"] >= slower


@pytest.mark.slow
def test_minutes_trains_both_ways_to_the_end(run: Run, tmp_path: Path) -> None:
    found = run("minutes.py", "--out", str(tmp_path))
    for rows in found["accuracy"].values():
        assert len(rows) == 10
        assert rows[-1]["accuracy"] > 0.5
        assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert (tmp_path / "minutes.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "minutes.json").read_text()) == found


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import minutes

    return minutes


def test_evaluations_stop_the_clock(minutes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(minutes.time, "monotonic", lambda: now)

    def evaluate() -> float:
        nonlocal now
        now += 1000.0
        return now

    clock = minutes.Clock(1.0, evaluate)
    now += 59.0
    clock.look(1)
    assert clock.rows == []
    now += 2.0
    clock.look(2)
    assert clock.minutes == pytest.approx(61 / 60)
    now += 120.0
    clock.look(3)
    now += 30.0
    end = clock.finish(4, budget=5.0)
    assert end["minutes"] == pytest.approx(211 / 60)
    assert [row["step"] for row in clock.rows] == [2, 3, 3, 4, 4]


def test_who_overruns_the_budget_keeps_what_it_had(
    minutes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(minutes.time, "monotonic", lambda: now)
    clock = minutes.Clock(1.0, lambda: 0.5)
    for step in (1, 2):
        now += 60.0
        clock.look(step)
    now += 60.0
    assert clock.finish(3, budget=2.0)["step"] == 3
    assert [row["step"] for row in clock.rows] == [1, 2]
