"""What weights do to the moments of a map: convolutions, linear layers, Fixup's scalars.

    E[y^2](p)       = C_in / groups * sum over taps t inside the map of E[w_t^2] E[x^2](p + t) + E[b^2]
    E[y(p) y(p')]   the same of E[x(p + t) x(p' + t)], where t is inside the map at both p and p'
    E[y]            = E[b]

He et al. 2015 (rectifiers), equation 8, kept tap by tap; Xiao et al. 2018, equation 2. Weights are
independent of each other and of x, and have mean zero; E[w^2] is what the weight's own squares average to.
Weights that are standardised sum to zero over each filter, so they see x less the mean of its patch (Brock,
De, Smith 2021, section 4.1).

Shapes: maps of moments, (1, 1, H, W) -> (1, 1, H', W'), float64.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from residua.nn.init.moments.walk import Map, Moments, Walk, rule
from residua.nn.norms.standardised import StandardisedConv2d
from residua.nn.norms.weight import WeightNormConv2d
from residua.nn.orders import ScalarBias, ScalarScale


@rule(WeightNormConv2d)
def weight_norm(conv: WeightNormConv2d, x: Moments, walk: Walk) -> Moments:
    """As a convolution with the weights that it comes to."""
    return convolve(conv, conv.normalised_weight(), x)


@rule(StandardisedConv2d)
def standardised(conv: StandardisedConv2d, x: Moments, walk: Walk) -> Moments:
    """Weights that sum to zero, otherwise independent: the mean of a patch is not seen."""
    return convolve(conv, conv.normalised_weight(), x, centred=True)


@rule(nn.Conv2d)
def convolution(conv: nn.Conv2d, x: Moments, walk: Walk) -> Moments:
    """Independent weights of mean zero; zero padding has moment zero, tap by tap."""
    return convolve(conv, conv.weight, x)


def convolve(conv: nn.Conv2d, weight: torch.Tensor, x: Moments, centred: bool = False) -> Moments:
    """Return the moments after a convolution with `weight`, (C_out, C_in / groups, k, k).

    centred: the weights of a filter sum to zero, so that the mean of a patch, padding included, is
    not seen.
    """
    weight = weight.detach().double()
    taps = weight.square().mean((0, 1))[None, None] * weight.shape[1]  # E over filters and channels
    both = taps * inside(conv, x)
    second, shared = windowed(conv, taps, x.second, x), windowed(conv, both, x.shared, x)
    if centred:
        seen = windowed(conv, torch.full_like(taps, 1 / taps.numel()), x.mean, x)
        second = second - taps.sum() * seen**2
        shared = shared - taps.sum() * seen * seen.mean()
    y = x.but(torch.zeros_like(second), second, shared, channels=conv.out_channels)
    return y if conv.bias is None else y.affine(torch.ones(()), conv.bias)


def windowed(conv: nn.Conv2d, taps: Map, values: Map, x: Moments) -> Map:
    """Return the sum of taps times values over each of a convolution's windows: (1, 1, H', W')."""
    if x.endless:
        return values * taps.sum()
    padding: Any = conv.padding
    if conv.padding_mode != "zeros":
        values = F.pad(values, conv._reversed_padding_repeated_twice, conv.padding_mode)
        padding = 0
    return F.conv2d(values, taps, None, conv.stride, padding, conv.dilation)


def inside(conv: nn.Conv2d, x: Moments) -> Map:
    """Return for each tap the part of all windows in which it is inside the map: (1, 1, k, k).

    What another position shares through that tap is lost where the tap is outside there.
    """
    kernel = torch.eye(math.prod(conv.kernel_size), dtype=x.mean.dtype)
    kernel = kernel.view(-1, 1, *conv.kernel_size)
    if x.endless:
        return torch.ones(1, 1, *conv.kernel_size, dtype=x.mean.dtype)
    found = windowed(conv, kernel, torch.ones_like(x.mean), x)  # (1, k k, H', W')
    return found.mean((0, 2, 3)).view(1, 1, *conv.kernel_size)


@rule(nn.Linear)
def linear(layer: nn.Linear, x: Moments, walk: Walk) -> Moments:
    """A convolution whose one tap sees the average position: independent weights of mean zero."""
    factor = layer.in_features * layer.weight.detach().double().square().mean()
    y = x.but(
        torch.zeros_like(x.mean), factor * x.second, factor * x.shared, channels=layer.out_features
    )
    return y if layer.bias is None else y.affine(torch.ones(()), layer.bias)


@rule(ScalarBias)
def scalar_bias(module: ScalarBias, x: Moments, walk: Walk) -> Moments:
    """A constant is added."""
    return x.affine(torch.ones(()), module.bias)


@rule(ScalarScale)
def scalar_scale(module: ScalarScale, x: Moments, walk: Walk) -> Moments:
    """A constant multiplies, another is added."""
    return x.affine(module.scale, module.bias)
