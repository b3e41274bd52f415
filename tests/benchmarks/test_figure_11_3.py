"""The chapter's figure 11.3: what whitens the gradient of a deep network, and what does not.

Numbers over 8 seeds of 200 units; a shift of 1/8 is 8 of 256 steps on [-2, 2).
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from residua.xray.intervals import mean_interval
from residua.xray.laws.noise import noise_autocorrelation

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SEEDS, WIDTH, POINTS = 8, 200, 256


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import figure_11_3

    return figure_11_3


def _at(figure: ModuleType, case: Any, layers: int, shift: float) -> np.ndarray:
    found = figure.autocorrelations(case, layers, SEEDS, WIDTH, POINTS)
    return found[:, figure.lag(shift, POINTS)]


def test_Glorot_alone_leaves_the_gradient_of_50_layers_close_to_brown_noise(
    figure: ModuleType,
) -> None:
    at_1_8 = mean_interval(_at(figure, figure.GLOROT, 50, 1 / 8))
    brown, _ = noise_autocorrelation("brown", POINTS)
    assert at_1_8.low > 0.6
    assert at_1_8.value == pytest.approx(brown[8], abs=0.2)


def test_centred_or_normed_layers_whiten_it_already_at_a_shift_of_1_64(figure: ModuleType) -> None:
    _, deviation = noise_autocorrelation("white", POINTS)
    for case in (figure.CENTRED, figure.CASES[4]):
        for layers in (24, 50):
            found = _at(figure, case, layers, 1 / 64)
            estimate = mean_interval(found)
            assert -0.1 < estimate.value < 0.1
            assert (found < 0.6).all()  # of single networks; uncentred ones are above 0.85
        # as white as white noise that is drawn: within its spread
        assert abs(estimate.value) < 4 * deviation[1] / np.sqrt(SEEDS) + 0.02


def test_a_residual_network_of_24_layers_keeps_neighbouring_gradients_alike(
    figure: ModuleType,
) -> None:
    assert mean_interval(_at(figure, figure.CASES[5], 24, 1 / 64)).low > 0.6
    assert mean_interval(_at(figure, figure.CENTRED, 24, 1 / 64)).high < 0.2


def test_shallow_gradients_change_slowly_in_every_case(figure: ModuleType) -> None:
    for case in figure.CASES:
        assert mean_interval(_at(figure, case, 1, 1 / 8)).low > 0.8


def test_a_scalar_input_without_biases_cannot_shatter_at_all(figure: ModuleType) -> None:
    """The network is then linear on either side of zero: two gradients, whatever the depth."""
    for seed in range(3):
        slopes = figure.gradient(figure.CASES[2], 50, seed, WIDTH, POINTS)
        left, right = slopes[: POINTS // 2], slopes[POINTS // 2 + 1 :]
        assert np.allclose(left, left[0]) and np.allclose(right, right[0])


def test_a_gradient_does_not_depend_on_the_other_inputs_where_nothing_is_centred(
    figure: ModuleType,
) -> None:
    coarse = figure.gradient(figure.GLOROT, 3, 0, 50, 64)
    fine = figure.gradient(figure.GLOROT, 3, 0, 50, 64 * 16)
    assert np.allclose(coarse, fine[::16])


def test_the_script_writes_its_table_and_its_figure(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    found = run("figure_11_3.py", "--out", str(tmp_path / "figure.png"))
    assert len(found["rows"]) == 18
    assert found["laws"]["centred"] == pytest.approx(2.0**-50)
    assert found["laws"]["as it is"] > 1e-4
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
