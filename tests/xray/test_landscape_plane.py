"""From coarse to fine: what is interpolated is within its stated error, what is rough is evaluated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.xray.landscape.interpolation import Surface, _kernel
from residua.xray.landscape.plane import Explorer, Grid, controls_summary

SIDE = np.round(np.linspace(-1, 1, 31), 12)
GRID = Grid(SIDE, SIDE)


def fill(function, *, sampling, tolerance=0.5, grid=GRID, seed=0):
    """Fill a grid with a function of (x, y) whose values have this standard error; count evaluations."""
    asked = []

    def run(name, decide):
        points = decide()
        asked.extend(points)
        values = [(function(*grid.coordinates(p)), sampling, sampling, 0.5) for p in points]
        return points, np.array(values)

    filled = Explorer(grid, run, tolerance, seed).fill()
    assert len(asked) == len(set(asked)) == filled.evaluated.sum()
    truth = [function(*grid.coordinates(p)) for p in range(filled.evaluated.size)]
    return filled, np.array(truth)


def bowl(x, y):
    return 0.5 + 3 * x**2 + 2 * y**2 - x * y + 0.3 * np.sin(3 * x)


def ridge(x, y):
    return 1 + 2 * np.tanh(8 * (x + 0.5 * y)) + 3 + y**2


def noise(x, y):
    return 2 + float(np.random.default_rng(abs(hash((round(x, 6), round(y, 6))))).normal())


@pytest.mark.parametrize(("function", "most"), [(bowl, 0.2), (ridge, 0.6)])
def test_interpolated_points_are_within_what_is_stated(function, most):
    filled, truth = fill(function, sampling=0.02)
    rest = ~filled.evaluated
    assert filled.evaluated.mean() < most
    off = filled.values[rest, 0] - truth[rest]
    assert np.sqrt(np.mean(np.square(off))) < 0.5 * 0.02
    stated = filled.interpolation[rest]
    assert (stated <= 0.5 * filled.values[rest, 1] + 1e-12).all()
    assert np.sqrt(np.mean(np.square(off / stated))) < 1.5
    assert filled.values[rest, 1] == pytest.approx(np.hypot(0.02, stated), rel=0.01)


def test_evaluated_points_are_not_changed():
    filled, truth = fill(ridge, sampling=0.02)
    assert np.array_equal(filled.values[filled.evaluated, 0], truth[filled.evaluated])
    assert not filled.interpolation[filled.evaluated].any()


def test_a_rough_surface_is_evaluated_everywhere():
    filled, truth = fill(noise, sampling=0.01)
    assert filled.evaluated.mean() > 0.95
    rest = ~filled.evaluated
    assert np.array_equal(filled.values[~rest, 0], truth[~rest])


def test_a_ridge_is_evaluated_more_than_its_flanks():
    filled, _ = fill(ridge, sampling=0.02)
    across, along = np.meshgrid(SIDE, SIDE)
    near = (np.abs(across + 0.5 * along) < 0.25).reshape(-1)
    assert filled.evaluated[near].mean() > 1.5 * filled.evaluated[~near].mean()


def test_without_tolerance_every_point_is_evaluated():
    filled, truth = fill(bowl, sampling=0.02, tolerance=0)
    assert filled.evaluated.all() and np.array_equal(filled.values[:, 0], truth)


def test_random_points_are_foretold_before_they_are_evaluated():
    filled, _ = fill(ridge, sampling=0.02)
    found = controls_summary(filled.controls)
    assert found["points"] >= 8 and found["points"] % 8 == 0
    off = [(p - f) ** 2 for p, _, f in filled.controls]
    assert found["error"] == pytest.approx(np.sqrt(np.mean(off)))


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(1, 14), columns=st.integers(2, 14), tolerance=st.sampled_from([0.0, 0.5]))
def test_every_grid_is_filled_row_by_row(rows, columns, tolerance):
    grid = Grid(np.arange(columns, dtype=float), np.arange(rows, dtype=float))
    filled, truth = fill(
        lambda x, y: 5 + 2 * x + 30 * y, sampling=1e-9, tolerance=tolerance, grid=grid
    )
    assert filled.values[:, 0] == pytest.approx(truth, rel=1e-3)
    assert filled.values[:, 0].reshape(rows, columns)[-1, 0] == pytest.approx(5 + 30 * (rows - 1))


def test_the_centre_of_an_odd_grid_is_evaluated_first():
    for n in (3, 11, 13, 21, 51):
        side = np.linspace(-1, 1, n)
        assert (n * n - 1) // 2 in Grid(side, side).coarse()


def test_a_surface_goes_through_its_points_and_foretells_its_own_errors():
    rng = np.random.default_rng(0)
    points = rng.random((120, 2))
    others = rng.random((400, 2))

    def wave(p):
        return np.sin(4 * p[:, 0]) * np.cos(3 * p[:, 1])

    surface = Surface(points, wave(points)[:, None])
    at_points, none = surface.predict(points)
    assert at_points[:, 0] == pytest.approx(wave(points), abs=1e-3)
    values, stated = surface.predict(others)
    off = values[:, 0] - wave(others)
    assert none.max() < 0.01
    assert 0.2 < np.sqrt(np.mean(np.square(off / stated))) < 1.5


def test_errors_of_leaving_one_out_are_those_of_fitting_without_it():
    rng = np.random.default_rng(1)
    points, values = rng.random((12, 2)), rng.normal(size=12)
    length, nugget = 0.4, 1e-4
    left_out, scale, _ = Surface._left_out(points, values, length, nugget)
    centred = values - values.mean()
    for i in range(12):
        keep = np.arange(12) != i
        k = _kernel(points[keep], points[keep], length) + nugget * np.eye(11)
        across = _kernel(points[i : i + 1], points[keep], length)[0]
        mean = across @ np.linalg.solve(k, centred[keep])
        variance = 1 + nugget - across @ np.linalg.solve(k, across)
        by_hand = (centred[i] - mean) / np.sqrt(scale * variance)
        assert left_out[i] == pytest.approx(by_hand, rel=1e-6)
