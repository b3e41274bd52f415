"""An interval of 95 % holds the truth in 95 % of the cases."""

import math

import numpy as np
import pytest

from residua.errors import BadInput
from residua.xray.intervals import (
    bootstrap_interval,
    growth_interval,
    mean_interval,
    pairs_interval,
)

TRIALS = 400
LEAST, MOST = 0.915, 0.985  # 0.95 +- 3 standard errors of 400 trials


def _share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def test_the_mean_lies_in_its_interval_95_times_in_100() -> None:
    draw = np.random.default_rng(0)
    hits = [2.0 in mean_interval(draw.normal(2.0, 3.0, 6)) for _ in range(TRIALS)]
    assert LEAST < _share(hits) < MOST


def test_the_growth_rate_lies_in_its_interval_95_times_in_100() -> None:
    draw, depths = np.random.default_rng(1), np.arange(9)
    curves = [np.exp(0.7 * depths + draw.normal(0, 0.2, 9)) for _ in range(TRIALS)]
    hits = [0.7 in growth_interval(curve) for curve in curves]
    assert LEAST < _share(hits) < MOST


def test_over_repeats_the_growth_rate_is_right_where_depths_err_together() -> None:
    draw, depths = np.random.default_rng(2), np.arange(12)

    def repeats() -> np.ndarray:
        walks = draw.normal(0, 0.3, (5, 12)).cumsum(
            1
        )  # each depth carries on the error of the last
        return np.exp(0.2 * depths + walks)

    curves = [repeats() for _ in range(TRIALS)]
    assert LEAST < _share([0.2 in growth_interval(several) for several in curves]) < MOST
    alone = _share([0.2 in growth_interval(several[0]) for several in curves])
    assert alone < 0.8  # the regression of one network is too sure of itself


def test_doubling_grows_by_log_2_exactly() -> None:
    estimate = growth_interval(2.0 ** np.arange(6))
    assert estimate.value == pytest.approx(math.log(2))
    assert estimate.high - estimate.low < 1e-6
    assert growth_interval([1.0, 9.0], [0, 2]).value == pytest.approx(math.log(3))


def test_the_mean_of_pairs_knows_that_pairs_share_samples() -> None:
    draw = np.random.default_rng(3)

    def gram() -> np.ndarray:
        x = draw.normal(0.5, 1.0, (12, 4))
        return x @ x.T

    estimates = [pairs_interval(gram()) for _ in range(TRIALS)]
    assert LEAST - 0.03 < _share([1.0 in estimate for estimate in estimates]) < MOST
    matrix = gram()
    upper = matrix[np.triu_indices(12, 1)]
    assert pairs_interval(matrix).value == pytest.approx(upper.mean())


def test_the_bootstrap_agrees_with_the_t_interval_on_many_values() -> None:
    values = np.random.default_rng(4).normal(size=300)
    resampled, student = bootstrap_interval(values, np.mean), mean_interval(values)
    assert resampled.low == pytest.approx(student.low, abs=0.02)
    assert resampled.high == pytest.approx(student.high, abs=0.02)


def test_too_few_measurements_leave_the_number_open() -> None:
    assert mean_interval([3.0]).interval == (-math.inf, math.inf)
    assert growth_interval([1.0, 2.0]).interval == (-math.inf, math.inf)
    assert pairs_interval(np.eye(3)).interval == (-math.inf, math.inf)
    for wrong in ([], [1.0, math.nan]):
        with pytest.raises(BadInput, match="finite"):
            mean_interval(wrong)
    with pytest.raises(BadInput, match="above zero"):
        growth_interval([1.0, 0.0, 2.0])
    with pytest.raises(BadInput, match="depths"):
        growth_interval([1.0, 2.0], [1])
    with pytest.raises(BadInput, match="square"):
        pairs_interval(np.ones((2, 3)))
