"""What a function does to the moments of a Gaussian, and to those of two correlated ones.

    a, b ~ N(m, v), Cov(a, b) = c  ->  E[g(a)], E[g(a)^2], E[g(a) g(b)]

    rectified     E[relu(a)]   = m Phi(m/s) + s phi(m/s)                    s = sqrt v
                  E[relu(a)^2] = (m^2 + v) Phi(m/s) + m s phi(m/s)
    anything      by Gauss-Hermite quadrature
    correlated    a = m + sqrt(c) z + sqrt(v - c) e, so E[g(a) g(b)] = E_z[E_e[g(a)]^2] for c >= 0
    maximum       of n such: m + sqrt(c) z + sqrt(v - c) M_n, M_n the largest of n independent N(0, 1)

The rectified Gaussian's moments are the textbook ones of the truncated normal (Cho, Saul 2009, section 2,
have the correlated case at m = 0 in closed form); M_n is the Gaussian order statistic.

Shapes: m, v, c are tensors of one shape, float64; so is every result. A negative c counts as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch

Function = Callable[[torch.Tensor], torch.Tensor]

NODES = 64  # of the quadrature; exact for polynomials of degree 127
GRID = 8.0  # standard deviations that an integral over the order statistic covers


@cache
def _nodes() -> tuple[torch.Tensor, torch.Tensor]:
    """Return nodes and weights (NODES,) with sum weights * f(nodes) = E[f(N(0, 1))]."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights / math.sqrt(2 * math.pi))


def expectation(function: Function, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return E[function(N(mean, variance))]."""
    nodes, weights = _nodes()
    draws = mean[..., None] + variance.clamp(min=0).sqrt()[..., None] * nodes
    average: torch.Tensor = (function(draws) * weights).sum(-1)
    return average


def rectified_mean(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return E[relu(N(mean, variance))]."""
    s = variance.clamp(min=1e-300).sqrt()
    density = torch.exp(-0.5 * (mean / s) ** 2) / math.sqrt(2 * math.pi)
    moment: torch.Tensor = mean * torch.special.ndtr(mean / s) + s * density
    return moment


def rectified_second(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return E[relu(N(mean, variance))^2]."""
    s = variance.clamp(min=1e-300).sqrt()
    density = torch.exp(-0.5 * (mean / s) ** 2) / math.sqrt(2 * math.pi)
    moment: torch.Tensor = (mean**2 + variance) * torch.special.ndtr(mean / s) + mean * s * density
    return moment


def correlated(
    average: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    mean: torch.Tensor,
    variance: torch.Tensor,
    covariance: torch.Tensor,
) -> torch.Tensor:
    """Return E[g(a) g(b)], where average(mean, variance) is E[g(N(mean, variance))]."""
    c = covariance.clamp(min=0).minimum(variance)
    return expectation(lambda a: average(a, (variance - c)[..., None].expand_as(a)) ** 2, mean, c)


@cache
def largest(count: int) -> tuple[float, float]:
    """Return the mean and second moment of the largest of `count` independent N(0, 1).

    >>> [round(moment, 6) for moment in largest(2)]  # 1 / sqrt(pi), 1
    [0.56419, 1.0]
    """
    x = torch.linspace(-GRID, GRID, 4001, dtype=torch.float64)
    density = torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    density = count * density * torch.special.ndtr(x) ** (count - 1)
    return float(torch.trapezoid(x * density, x)), float(torch.trapezoid(x**2 * density, x))
