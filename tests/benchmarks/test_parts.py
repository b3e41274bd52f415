"""The table of parts: what a row is, what is kept, what a part that fails leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import parts

    return parts


def test_every_shortcut_merge_order_norm_drop_and_scheme_has_a_row(parts: ModuleType) -> None:
    rows = list(parts.parts("resnet20_cifar"))
    changed = [part.options for part in rows if part.model is None]
    assert len({part.name for part in rows}) == len(rows)
    for option, names, usual in (
        ("shortcut", parts.SHORTCUTS, {"A"}),
        ("merge", parts.MERGES, set()),
        ("order", parts.ORDERS, {"original", "fixup"}),  # fixup has a network of its own
        ("norm", parts.NORMS, {"batch"}),
        ("activation", parts.ACTIVATIONS, {"relu"}),
        ("drop", parts.DROPS, set()),
        ("init", parts.SCHEMES, {"he"}),
    ):
        assert {options.get(option) for options in changed} >= set(names) - usual


def test_a_row_is_named_as_set_takes_it(parts: ModuleType) -> None:
    assert parts.Part().name == "baseline"
    assert parts.Part({"norm": "none", "merge": "stable"}).name == "norm=none, merge=stable"
    assert parts.Part(model="plain20_cifar").name == "model=plain20_cifar"


def test_what_is_done_is_kept_and_not_done_again(
    parts: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[tuple[str, int]] = []

    def train(recipe: Any, data: str, seed: int, device: str) -> float:
        if recipe.model_options.get("merge") == "highway":
            raise ValueError("too deep (for this test)")
        done.append((recipe.model_options.get("merge", "add"), seed))
        return 0.5 + seed / 10

    monkeypatch.setattr(parts, "accuracy", train)
    monkeypatch.setattr(
        parts, "time_ratio", lambda *_: {"median": 1.0, "min": 1.0, "max": 1.0, "n": 1}
    )
    setting = {"network": "resnet20_cifar", "data": "digits", "steps": 1, "batch": 8}
    chosen = [parts.Part(), parts.Part({"merge": "stable"}), parts.Part({"merge": "highway"})]
    for _ in range(2):
        results = parts.Results(setting, tmp_path / "found.json")
        for seed in (0, 1):
            for part in chosen:
                parts.measure(part, seed, results, 1, "cpu")
    assert done == [("add", 0), ("stable", 0), ("add", 1), ("stable", 1)]
    lines = parts.table(results.rows).splitlines()
    assert "| `merge=stable` | 55.00 (50.00 .. 60.00) | 2 | 1.00 (1.00 .. 1.00) |" in lines
    assert "| `merge=highway` | too deep | 0 | 1.00 (1.00 .. 1.00) |" in lines
    with pytest.raises(SystemExit, match="another setting"):
        parts.Results(setting | {"steps": 2}, tmp_path / "found.json")


def test_a_part_is_trained_and_timed_against_the_baseline(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    options = ["--quick", "--json", "--device", "cpu", "--only", "merge=stable", "--results"]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "parts.py", *options, found],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["parts"]
    assert list(rows) == ["baseline", "merge=stable"]
    for row in rows.values():
        assert 0.0 <= row["accuracy"]["0"] <= 1.0
        assert row["time"]["median"] > 0.0
    assert json.loads(found.read_text())["parts"] == rows
