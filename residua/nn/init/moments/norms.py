"""What norms do to the moments of a map: take a mean away, divide, scale and shift.

    y = gamma (x - a) / sqrt(var + eps) + beta  ->  E[y^2] = gamma^2 (E[x^2] - E[a^2]) / (var + eps) + beta^2

    batch norm    a is the channel's mean, which is what its positions share: E[a^2] = shared
    group norm    a is the mean of c channels, whose own means are independent: E[a^2] = E[x]^2 + Cov / c
    position      c is large
    filter response, EvoNorm: nothing is taken away; what they do besides follows or precedes

The mean of the denominator is taken for the denominator, so groups and batches are large.
Shapes: maps of moments, (1, 1, H, W), float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from residua.nn.init.moments.activations import pointwise, relu
from residua.nn.init.moments.walk import Map, Moments, Walk, rule
from residua.nn.norms.evonorm import EPS, EvoNorm
from residua.nn.norms.filter_response import (
    FIXED_EPS,
    FLOOR,
    FilterResponseNorm,
    ThresholdedFilterResponseNorm,
)
from residua.nn.norms.ghost import GhostBatchNorm
from residua.nn.norms.group import GroupNorm
from residua.nn.norms.position import PositionNorm
from residua.nn.norms.renorm import BatchRenorm
from residua.nn.norms.statistics import RunningNorm
from residua.nn.norms.sync import SyncBatchNorm


@rule(nn.BatchNorm1d, nn.BatchNorm2d, RunningNorm, BatchRenorm, GhostBatchNorm, SyncBatchNorm)
def batch_norm(norm: nn.BatchNorm2d, x: Moments, walk: Walk) -> Moments:
    """Training: a large batch, in which a channel's mean is what its positions share. Else: as it says."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return normalised(norm, x, x.shared, norm.eps)
    gamma = torch.ones(()) if norm.weight is None else norm.weight
    scale = gamma / (norm.running_var + norm.eps).sqrt()
    shift = -scale * norm.running_mean
    return x.affine(scale, shift if norm.bias is None else shift + norm.bias)


@rule(nn.GroupNorm, GroupNorm)
def group_norm(norm: nn.GroupNorm, x: Moments, walk: Walk) -> Moments:
    """Large groups of positions; the c channels of a group have independent means."""
    count = norm.num_channels // norm.num_groups
    return normalised(norm, x, x.mean**2 + x.covariance / count, norm.eps)


@rule(PositionNorm)
def position_norm(norm: PositionNorm, x: Moments, walk: Walk) -> Moments:
    """Many channels: what is taken away is the mean over everything, position by position."""
    return normalised(norm, x, x.mean**2, norm.eps, x.variance)


@rule(FilterResponseNorm)
def filter_response(norm: FilterResponseNorm, x: Moments, walk: Walk) -> Moments:
    """Many positions; nothing is taken away. Then values below the threshold become the threshold."""
    return _thresholded(norm, norm.threshold, FLOOR + norm.eps.abs(), x, walk)


@rule(ThresholdedFilterResponseNorm)
def thresholded(norm: ThresholdedFilterResponseNorm, x: Moments, walk: Walk) -> Moments:
    """The same, with its other constants."""
    return _thresholded(norm, norm.tau, FIXED_EPS, x, walk)


def _thresholded(
    norm: Any, threshold: torch.Tensor, eps: torch.Tensor | float, x: Moments, walk: Walk
) -> Moments:
    z = x.affine(norm.weight / (x.second.mean() + eps).sqrt(), norm.bias - threshold)
    return relu(norm, z, walk).affine(torch.ones(()), threshold)


@rule(EvoNorm)
def evonorm(norm: EvoNorm, x: Moments, walk: Walk) -> Moments:
    """Large groups, as group norm's: their standard deviation divides. v is taken at its mean."""
    count = len(norm.weight) // norm.groups
    variance = (x.second - x.mean**2 - x.covariance / count).mean()
    v = norm.v.double().mean()
    gated = pointwise(lambda z: z * torch.sigmoid(v * z), x)
    return gated.affine(norm.weight / (variance + EPS).sqrt(), norm.bias)


def normalised(
    norm: Any, x: Moments, removed: Map, eps: float, variance: Map | None = None
) -> Moments:
    """Return (x - a) / sqrt(variance + eps) gamma + beta, where a is a mean with E[a^2] = removed.

    variance: None takes that of x - a over all positions.
    """
    if variance is None:
        variance = (x.second - removed).mean()
    divisor = variance + eps
    y = x.but(
        torch.zeros_like(x.mean), (x.second - removed) / divisor, (x.shared - removed) / divisor
    )
    if norm.weight is None:
        return y
    return y.affine(norm.weight, torch.zeros(()) if norm.bias is None else norm.bias)
