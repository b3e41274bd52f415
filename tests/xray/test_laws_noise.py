"""White and brown noise: the law's mean and spread are those of noise that is drawn."""

import numpy as np
import pytest

from residua.errors import BadInput
from residua.xray.laws.noise import autocorrelation, noise_autocorrelation, noise_covariance

DRAWS = 4000


def _drawn(noise: str, n: int, centred: bool) -> np.ndarray:
    steps = np.random.default_rng(3).normal(size=(DRAWS, n))
    signals = steps if noise == "white" else steps.cumsum(1)
    return np.stack([autocorrelation(signal, centred=centred) for signal in signals])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("noise", ["white", "brown"])
def test_the_mean_and_spread_of_each_lag_are_those_of_4000_draws(noise: str, centred: bool) -> None:
    n = 24
    mean, deviation = noise_autocorrelation(noise, n, centred=centred)
    drawn = _drawn(noise, n, centred)
    error = deviation / np.sqrt(DRAWS) + 1e-12
    assert (np.abs(drawn.mean(0) - mean)[1:] < 4 * error[1:]).all()
    assert np.allclose(drawn.std(0)[1:], deviation[1:], rtol=0.08)


def test_white_noise_has_the_textbook_moments() -> None:
    n, k = 50, np.arange(1, 50)
    mean, deviation = noise_autocorrelation("white", n)
    assert np.allclose(mean[1:], 0, atol=1e-10)
    assert np.allclose(deviation[1:] ** 2, (n - k) / (n * (n + 2)), rtol=1e-8)
    mean, _ = noise_autocorrelation("white", n, centred=True)
    assert np.allclose(mean[1:], -(n - k) / (n * (n - 1)), rtol=1e-8)


def test_brown_noise_is_the_running_sum_of_white() -> None:
    sums = np.tril(np.ones((7, 7)))
    assert np.allclose(noise_covariance("brown", 7), sums @ noise_covariance("white", 7) @ sums.T)


def test_it_is_numpys_correlate_divided_by_lag_zero() -> None:
    signal = np.random.default_rng(0).normal(size=31)
    full = np.correlate(signal, signal, "full")[30:]
    assert np.allclose(autocorrelation(signal), full / full[0])


def test_vectors_are_correlated_by_their_inner_products() -> None:
    points = np.random.default_rng(0).normal(size=(9, 5))
    each = sum(np.correlate(column, column, "full")[8:] for column in points.T)
    assert np.allclose(autocorrelation(points), each / each[0])


def test_a_constant_has_no_centred_autocorrelation() -> None:
    assert np.isnan(autocorrelation(np.full(6, 0.1), centred=True)).all()
    with pytest.raises(BadInput, match="two points"):
        noise_autocorrelation("white", 1)
