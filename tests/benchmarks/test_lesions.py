"""The benchmark of lesions runs, and says of made-up numbers what they are."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import lesions

    return lesions


def test_ranks_say_smooth_or_not(benchmark: ModuleType) -> None:
    assert benchmark.rank([0, 1, 2, 5], [0.1, 0.1001, 0.3, 0.9]) == pytest.approx(1)
    assert benchmark.rank([1.0, 0.9, 0.5], [0.1, 0.2, 0.7]) == pytest.approx(-1)
    assert benchmark.rank([1, 2], [0.1, 0.2]) is None
    assert benchmark.rank([1, 2, 3], [0.1, 0.1, 0.1]) is None


def test_the_share_of_the_published_lengths_is_summed_for_54_units(benchmark: ModuleType) -> None:
    lengths = [{"length": k, "share": 1 / 55, "paths_share": 1 / 55} for k in range(55)]
    side = {
        "deletions": [{"error_rise": 0.1}],
        "curve": [],
        "summary": {"number": 54, "chance": 0.9},
    }
    facts = benchmark.shape({"residual": side, "plain": side, "paths": {"lengths": lengths}})
    assert facts["gradient_in_published_lengths"] == pytest.approx(13 / 55)
    assert facts["mean_length"] == pytest.approx(27)


@pytest.mark.slow
def test_it_measures_both_networks_and_draws(run: Callable[..., Any], tmp_path: Path) -> None:
    found = run("lesions.py", "--out", str(tmp_path))
    assert len(found["residual"]["deletions"]) == 9
    assert found["residual"]["summary"]["parts"] == "units"
    assert found["plain"]["summary"]["parts"] == "layers"
    assert sum(row["share"] for row in found["paths"]["lengths"]) == pytest.approx(1)
    assert found["shape"]["gradient_in_published_lengths"] is None  # of other than 54 units
    assert (tmp_path / "lesions.png").read_bytes().startswith(b"\x89PNG")
