"""The autocorrelation of a gradient along a line, and what white and brown noise would give there.

    r_k = sum_t g_t g_(t+k) / sum_t g_t^2,   t = 1 .. n, k = 0 .. n - 1

normalised as figure 11.3 of the chapter does it: by lag zero, the sum over the n - k pairs that exist
(numpy's `correlate`, "biased": it falls to 0 at k = n whatever the signal), the mean left in; or, centred,
with the mean over the line taken off. A g_t that is a vector: products become inner products.

White noise has the covariance I, brown noise (a random walk, the Wiener process from the first point on)
min(s, t). For Gaussian noise of covariance C the first two moments of r_k are exact integrals over the
eigenvalues l_i of C, with a the shift by k in their basis (Magnus 1986, "The exact moments of a ratio of
quadratic forms in normal variables"):

    d_i = l_i / (1 + 2 s l_i),  D = prod (1 + 2 s l_i)^(-1/2)
    E r   = int_0^inf D sum_i d_i a_ii ds
    E r^2 = int_0^inf s D ((sum_i d_i a_ii)^2 + 2 sum_ij d_i d_j a_ij^2) ds

For white noise, mean left in: E r_k = 0 and E r_k^2 = (n - k) / (n (n + 2)).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from residua.errors import BadInput

Noise = Literal["white", "brown"]
Array = npt.NDArray[Any]

# the integrals by the trapezoid rule over log s, which converges exponentially
_S = np.exp(np.linspace(np.log(1e-8), np.log(1e14), 180))
_DS = _S * np.log(_S[1] / _S[0])


def autocorrelation(values: Array, *, centred: bool = False) -> Array:
    """Return r_k for k = 0 .. n - 1 of values (n,), or (n, D) whose inner products are taken.

    Not a number where all values are 0 (or, centred, are the same).

    >>> autocorrelation(np.array([1.0, 1.0, 1.0, 1.0]))
    array([1.  , 0.75, 0.5 , 0.25])
    """
    points = np.asarray(values, dtype=float).reshape(len(values), -1)
    if centred:
        points = points - points.mean(0)
    gram = points @ points.T
    total = float(np.trace(gram))
    # what is left of a constant after its mean is rounding
    if total <= 1e-20 * float((np.asarray(values, dtype=float) ** 2).sum()):
        return np.full(len(points), np.nan)
    sums = [float(np.trace(gram, offset=k)) for k in range(len(points))]
    return np.array(sums) / total


def noise_covariance(noise: Noise, n: int) -> Array:
    """Return the (n, n) covariance of white noise, or of a random walk of n steps."""
    if noise == "white":
        return np.eye(n)
    times = np.arange(1, n + 1, dtype=float)
    covariance: Array = np.minimum.outer(times, times)
    return covariance


@lru_cache(maxsize=32)
def noise_autocorrelation(noise: Noise, n: int, *, centred: bool = False) -> tuple[Array, Array]:
    """Return the mean (n,) and the standard deviation (n,) of r_k over realisations of the noise.

    >>> mean, sd = noise_autocorrelation("white", 8)
    >>> round(float(mean[1]), 9) + 0.0, round(float(sd[1] ** 2 * 80 / 7), 6)
    (0.0, 1.0)
    """
    if n < 2:
        raise BadInput(f"an autocorrelation needs two points or more, not {n}")
    covariance = noise_covariance(noise, n)
    if centred:
        covariance = covariance - covariance.mean(0)
        covariance = covariance - covariance.mean(1, keepdims=True)
    sizes, basis = np.linalg.eigh(covariance)
    kept = sizes > 1e-12 * sizes.max()
    sizes, basis = sizes[kept] / sizes.sum(), basis[:, kept]
    weights = 1 + 2 * _S[:, None] * sizes
    d = sizes / weights  # (s, i)
    weight = np.exp(-0.5 * np.log(weights).sum(1)) * _DS
    means, squares = np.ones(n), np.ones(n)
    for k in range(1, n):
        shifted = basis[:-k].T @ basis[k:]
        shift = (shifted + shifted.T) / 2
        along = d @ np.diag(shift)
        means[k] = weight @ along
        across = ((d @ shift**2) * d).sum(1)
        squares[k] = (weight * _S) @ (along**2 + 2 * across)
    deviations = np.sqrt(np.maximum(squares - means**2, 0.0))
    return means, deviations
