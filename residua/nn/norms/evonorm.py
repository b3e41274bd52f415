"""EvoNorm-S0: norm and activation in one, found by search; a sample at a time.

    y = gamma x sigmoid(v x) / sqrt(var + eps) + beta      var over (C / G, H, W); gamma, beta, v a channel

Liu, Brock, Simonyan, Le 2020, Evolving Normalization-Activation Layers, EvoNorm-S0. Nothing is subtracted:
the sigmoid looks at x itself. G = 32, or the largest number that divides it and the channels; eps = 1e-5, and
v = 1 at the start, as in timm. No activation follows it; after an addition there is one, as everywhere.
Training and evaluation are the same. Shapes: (N, C, *S) -> (N, C, *S).

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
norm=evonorm 42.1 %, 1.89 (accuracy, time of a step).
"""

from __future__ import annotations

import math

import torch
from torch import nn

GROUPS = 32
EPS = 1e-5


class EvoNorm(nn.Module):
    """Gate each value by its own sigmoid, divide by its group's standard deviation."""

    activates = True

    def __init__(self, channels: int, groups: int = GROUPS) -> None:
        super().__init__()
        if groups != int(groups) or groups < 1:
            raise ValueError(f"evonorm of {groups} groups: expected a whole number from 1")
        self.groups = math.gcd(int(groups), channels)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gate, normalise, scale and shift."""
        shape = [1, -1] + [1] * (x.dim() - 2)
        weight, bias, v = (p.view(shape) for p in (self.weight, self.bias, self.v))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance = wide.reshape(len(x), self.groups, -1).var(2, correction=0)
        scale = (variance + EPS).rsqrt().repeat_interleave(x.shape[1] // self.groups, 1)
        y = wide * torch.sigmoid(v * wide) * (weight * scale.view(len(x), *shape[1:])) + bias
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """Say how many channels and groups there are."""
        return f"{len(self.weight)}, groups={self.groups}"
