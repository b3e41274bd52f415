"""What activations do to the moments of a map, taken to be Gaussian.

    ReLU       moments of the rectified Gaussian: E[y^2] = E[x^2] / 2 where E[x] = 0
    others     by quadrature

Where a merge adds a branch to a rectified shortcut (v1 networks) the sum is skewed, not Gaussian. There the
prediction is low: measured over 40 draws of 6 blocks, by 5 to 7 % with batch norm in the branch, by 8 to 14 %
with batch norm after the addition; in v2 networks by less than the error of that measurement, 2 %.

Shapes: maps of moments, (1, 1, H, W), float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from residua.nn.init.moments.gaussian import (
    correlated,
    expectation,
    rectified_mean,
    rectified_second,
)
from residua.nn.init.moments.walk import Moments, Walk, rule


@rule(nn.ReLU)
def relu(module: nn.Module, x: Moments, walk: Walk) -> Moments:
    """The input is Gaussian: half of the moment is left where its mean is zero. Twice is once."""
    if x.before is not None:
        return x
    return x.but(
        rectified_mean(x.mean, x.variance),
        rectified_second(x.mean, x.variance),
        correlated(rectified_mean, x.mean, x.variance, x.covariance),
        before=x,
    )


@rule(nn.ELU, nn.GELU, nn.LeakyReLU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh)
def activation(module: nn.Module, x: Moments, walk: Walk) -> Moments:
    """The input is Gaussian; the function is integrated over it."""
    return pointwise(module, x)


def pointwise(function: Callable[[torch.Tensor], torch.Tensor], x: Moments) -> Moments:
    """Return the moments of function(x), x Gaussian."""
    return x.but(
        expectation(function, x.mean, x.variance),
        expectation(lambda z: function(z) ** 2, x.mean, x.variance),
        correlated(partial(expectation, function), x.mean, x.variance, x.covariance),
    )
