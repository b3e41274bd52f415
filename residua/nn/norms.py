"""Normalisation by name: norm_factory("batch")(64) is a layer for 64 channels.

    y = gamma (x - mean) / sqrt(var + eps) + beta

    batch      mean, var over (N, H, W)    Ioffe, Szegedy 2015; running averages in evaluation
    group      over (C / G, H, W)          Wu, He 2018; the same in training and evaluation
    layer      over (C, H, W)              Ba, Kiros, Hinton 2016; group norm with one group
    instance   over (H, W)                 Ulyanov, Vedaldi, Lempitsky 2016
    none       y = x                       convolutions then have biases

Shapes: (N, C, H, W) -> (N, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

NormFactory = Callable[[int], nn.Module]

MAX_GROUPS = 32  # Wu, He 2018, section 4.1


class GroupNorm(nn.GroupNorm):
    """torch's group norm, which also takes a single value a group: there it returns beta.

    torch's own refuses one picture whose map is one pixel when a group is one channel, in
    evaluation too; small pictures come to that in the last stage.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise: (N, C, H, W) -> (N, C, H, W)."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _group_norm(channels: int) -> nn.Module:
    # At least two channels a group where there are two, or group norm would be instance norm.
    return GroupNorm(math.gcd(MAX_GROUPS, max(channels // 2, 1)), channels)


def _layer_norm(channels: int) -> nn.Module:
    return GroupNorm(1, channels)


def _instance_norm(channels: int) -> nn.Module:
    return GroupNorm(channels, channels)


NORMS: dict[str, NormFactory | None] = {
    "batch": nn.BatchNorm2d,
    "group": _group_norm,
    "layer": _layer_norm,
    "instance": _instance_norm,
    "none": None,
}


def norm_factory(name: str) -> NormFactory | None:
    """Return the maker of norm layers of that name; None for "none". ValueError if unknown."""
    if name not in NORMS:
        raise ValueError(f"norm {name!r} is unknown: expected one of {', '.join(NORMS)}")
    return NORMS[name]


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalisation layer of torch's or a subclass of one."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return isinstance(module, kinds)
