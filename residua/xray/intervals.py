"""How sure a measured number is: 95 % intervals for means, growth rates and correlations of pairs.

    mean       m +- t(n-1) s / sqrt n                     Student 1908; n independent measurements
    growth     the slope of log(value) against depth by least squares, +- t(n-2) standard errors;
               over repeats: the mean of the repeats' slopes and its t-interval, which is right also
               where neighbouring depths err together, as depths of one network do
    pairs      the mean over i < j of a symmetric matrix; its standard error by leaving out one sample
               (and all its pairs) at a time: Arvesen 1969, the jackknife of a U-statistic
    bootstrap  percentiles of a statistic over resamples: Efron 1979

Fewer measurements than an interval needs give an infinite one: unknown is not the same as exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from residua.errors import BadInput

Numbers = Sequence[float] | npt.NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A value, its interval (low, high) and the number n of measurements that it rests on."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Return (low, high)."""
        return self.low, self.high

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high


def mean_interval(values: Numbers, level: float = 0.95) -> Estimate:
    """Return the mean with its t-interval; BadInput where there is no value."""
    numbers = _finite(values)
    n = len(numbers)
    error = float(numbers.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return _around(float(numbers.mean()), error, n - 1, n, level)


def growth_interval(
    values: Numbers, depths: Numbers | None = None, level: float = 0.95
) -> Estimate:
    """Return the slope of log(value) against depth: exp of it is the growth factor a unit of depth.

    values: positive, (n,) of one network, or (repeats, n) of several batches or seeds; depths: (n,),
    0, 1, 2, ... where not given. n of the estimate: points, or repeats where there are several.
    """
    numbers = np.atleast_2d(np.asarray(values, dtype=float))
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise BadInput("a growth rate needs values that are finite and above zero")
    xs = np.arange(numbers.shape[1]) if depths is None else np.asarray(depths, dtype=float)
    if len(xs) != numbers.shape[1] or len(np.unique(xs)) < 2:
        raise BadInput(f"{numbers.shape[1]} values need as many depths, two of them different")
    if len(numbers) > 1:
        return mean_interval([stats.linregress(xs, row).slope for row in np.log(numbers)], level)
    line = stats.linregress(xs, np.log(numbers[0]))
    error = float(line.stderr) if len(xs) > 2 else math.inf
    return _around(float(line.slope), error, len(xs) - 2, len(xs), level)


def pairs_interval(matrix: npt.NDArray[Any], level: float = 0.95) -> Estimate:
    """Return the mean over pairs i < j of a symmetric (n, n) matrix, its error by the jackknife."""
    values = np.asarray(matrix, dtype=float)
    n = len(values)
    if n < 2 or values.shape != (n, n):
        raise BadInput(f"pairs need a square matrix of two samples or more, not {values.shape}")
    rows = values.sum(1) - np.diag(values)
    mean = float(rows.sum()) / (n * (n - 1))
    if n < 4:  # leaving out one of three samples leaves a single pair: no spread to be trusted
        return Estimate(mean, -math.inf, math.inf, n)
    without = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    return _around(mean, error, n - 1, n, level)


def bootstrap_interval(
    values: Numbers,
    statistic: Callable[[npt.NDArray[Any]], float],
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of independent values with the percentiles of its resamples."""
    numbers = _finite(values)
    draw = np.random.default_rng(seed)
    found = [statistic(draw.choice(numbers, len(numbers))) for _ in range(resamples)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(statistic(numbers)), float(low), float(high), len(numbers))


def _around(value: float, error: float, freedom: int, n: int, level: float) -> Estimate:
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error if freedom > 0 else math.inf
    return Estimate(value, value - half, value + half, n)


def _finite(values: Numbers) -> npt.NDArray[Any]:
    numbers = np.asarray(values, dtype=float).ravel()
    if not len(numbers) or not np.isfinite(numbers).all():
        raise BadInput("an interval needs one finite value or more")
    return numbers
