"""What pooling does to the moments of a map.

    average of n   E[y^2] = (E[x^2] + (n - 1) shared) / n
    blur           E[y^2] = sum_i w_i^2 E[x_i^2] + (1 - sum_i w_i^2) shared, weights w_i of pixels i
    maximum of n   of Gaussians that share a covariance c: m + sqrt(c) z + sqrt(v - c) M_n; it commutes with
                   a ReLU before it, so the Gaussian is the one that the ReLU got

Positions share as much within a window as across the map, which overstates the maximum where maps have
shrunk to a few pixels: by up to 2 at the end of a VGG or an AlexNet on small pictures.

Shapes: maps of moments, (1, 1, H, W) -> (1, 1, H', W'), float64.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from residua.nn.antialias import Blur
from residua.nn.init.moments.activations import relu
from residua.nn.init.moments.gaussian import largest
from residua.nn.init.moments.walk import Map, Moments, Walk, rule
from residua.nn.pooling import Halve


def global_average(x: Moments) -> Moments:
    """Return the moments of the average over all positions: (1, 1, 1, 1)."""
    share = 0.0 if x.endless else 1 / x.mean.numel()

    def average(values: Map) -> Map:
        return values.mean((2, 3), keepdim=True)

    shared = average(x.shared)
    second = share * average(x.second) + (1 - share) * shared
    return x.but(average(x.mean), second, shared)


@rule(nn.AdaptiveAvgPool2d)
def adaptive_average(pool: nn.AdaptiveAvgPool2d, x: Moments, walk: Walk) -> Moments:
    """As the average pool; to a size other than 1 it needs the size of the map."""
    if pool.output_size in (1, (1, 1)):
        return global_average(x)
    if x.endless:
        raise ValueError(
            f"{walk.at}: what pooling to {pool.output_size} averages depends on the shape"
        )
    resize = partial(F.adaptive_avg_pool2d, output_size=pool.output_size)
    share = min(1.0, resize(x.mean).numel() / x.mean.numel())
    second = share * resize(x.second) + (1 - share) * resize(x.shared)
    return x.but(resize(x.mean), second, resize(x.shared))


@rule(nn.AvgPool2d)
def average_pool(pool: nn.AvgPool2d, x: Moments, walk: Walk) -> Moments:
    """Positions share what they share, however near; padded zeros count as torch counts them."""
    size, stride, padding = _pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding)
    if x.endless:
        size_in_all = math.prod(size)
        return x.but(x.mean, (x.second + (size_in_all - 1) * x.shared) / size_in_all, x.shared)
    sums = partial(
        F.avg_pool2d, kernel_size=size, stride=stride, padding=padding, ceil_mode=pool.ceil_mode
    )
    ones = torch.ones_like(x.mean)
    count = sums(ones, divisor_override=1)
    divisor = count / sums(ones, count_include_pad=pool.count_include_pad)
    mean, second, shared = (
        sums(values, divisor_override=1) / divisor for values in (x.mean, x.second, x.shared)
    )
    share = count / divisor
    return x.but(mean, second / divisor + (share - 1 / divisor) * shared, share * shared)


@rule(nn.MaxPool2d)
def max_pool(pool: nn.MaxPool2d, x: Moments, walk: Walk) -> Moments:
    """The input, or what a ReLU made it from, is Gaussian, equally correlated within the window."""
    if x.before is not None:
        return relu(pool, max_pool(pool, x.before, walk), walk)
    size, stride = _pair(pool.kernel_size), _pair(pool.stride)
    if x.endless:
        mean, variance, covariance = x.mean, x.variance, x.covariance
        counts = torch.full_like(mean, math.prod(size))
    else:
        window = partial(
            F.avg_pool2d,
            kernel_size=size,
            stride=stride,
            padding=_pair(pool.padding),
            ceil_mode=pool.ceil_mode,
        )
        inside = partial(window, count_include_pad=False)
        mean, variance, covariance = (inside(v) for v in (x.mean, x.variance, x.covariance))
        counts = window(torch.ones_like(x.mean), divisor_override=1).round()
    return _maximum(x, mean, variance, covariance, counts)


def _maximum(x: Moments, mean: Map, variance: Map, covariance: Map, counts: Map) -> Moments:
    """Return the moments of the largest of `counts` Gaussians: m + sqrt(c) z + sqrt(v - c) M."""
    first, square = torch.zeros_like(mean), torch.zeros_like(mean)
    for count in set(counts.flatten().tolist()):
        a, b = largest(int(count))
        first[counts == count], square[counts == count] = a, b
    covariance = covariance.clamp(min=0).minimum(variance)
    own = (variance - covariance).sqrt()
    top = mean + own * first
    second = mean**2 + covariance + 2 * mean * own * first + own**2 * square
    return x.but(top, second, top**2 + covariance)


@rule(nn.ConstantPad2d, nn.ZeroPad2d)
def pad(module: nn.ConstantPad2d, x: Moments, walk: Walk) -> Moments:
    """A border of constants."""
    if x.endless:
        return x
    grown = partial(F.pad, pad=tuple(module.padding))
    c = float(module.value)
    mean, square = grown(x.mean, value=c), grown(x.second, value=c * c)
    return x.but(mean, square, grown(x.shared, value=c * c))


@rule(Halve)
def halve(pool: Halve, x: Moments, walk: Walk) -> Moments:
    """As the pool it is, 2x2; a side of one pixel is left as it is."""
    window = (2, 2) if x.endless else (min(2, x.mean.shape[2]), min(2, x.mean.shape[3]))
    if pool.kind == "max":
        return max_pool(nn.MaxPool2d(window), x, walk)
    return average_pool(nn.AvgPool2d(window), x, walk)


@rule(Blur)
def blur(pool: Blur, x: Moments, walk: Walk) -> Moments:
    """A weighted average of 3x3 pixels, of fewer at a mirrored border."""
    if x.endless:
        squares = _weights(pool, 5)[1].square().sum() ** 2
        return x.but(x.mean, squares * x.second + (1 - squares) * x.shared, x.shared)
    rows, columns = (_weights(pool, side) for side in x.mean.shape[2:])

    def summed(values: Map, power: int = 1) -> Map:
        return rows**power @ values @ columns.T**power

    second = summed(x.second, 2) + summed(x.shared) - summed(x.shared, 2)
    return x.but(summed(x.mean), second, summed(x.shared))


def _weights(pool: Blur, side: int) -> torch.Tensor:
    """Return what each of a column's pixels counts for each of the blurred ones, (side', side)."""
    columns: torch.Tensor = pool(torch.eye(side, dtype=torch.float64).view(side, 1, side, 1))
    return columns.flatten(1).T


@rule(nn.Flatten)
def flatten(module: nn.Flatten, x: Moments, walk: Walk) -> Moments:
    """Every position becomes a channel: the average position stands for all."""
    mean, second, shared = (v.mean((2, 3), keepdim=True) for v in (x.mean, x.second, x.shared))
    channels = None if x.channels is None or x.endless else x.channels * x.mean.numel()
    return x.but(mean, second, shared, channels=channels, before=None)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
