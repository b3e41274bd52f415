"""Filter response normalisation, with its thresholded linear unit: no batch, and no mean.

    y = max(gamma x / sqrt(nu2 + eps) + beta, tau)      nu2 = mean of x^2 over (H, W)
    eps = 1e-6 + |eps_l|                                 gamma, beta, tau a channel; eps_l one number

Singh, Krishnan 2019, Filter response normalization layer, eq. 1 to 3 and, for eps, section 3: learned,
because with one pixel a map x / sqrt(x^2 + eps) is a sign. Starts at gamma = 1, beta = 0, tau = 0.001,
eps_l = 1e-4. Training and evaluation are the same. Shapes: (N, C, ...) -> (N, C, ...).

It is norm and activation in one. Blocks put their ReLU after it all the same: max(y, 0) of a y that is at
least tau, so a tau below 0 shows only where no activation follows, as at the end of a branch. Where one
follows, the published start tau = 0 would get no gradient ever (ReLU has none at 0): hence 0.001.

`ThresholdedFilterResponseNorm` is the other reading, timm's: the threshold takes the ReLU's place, so no
activation follows, tau = 0 at the start, and eps stays 1e-5.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
norm=filter_response 38.1 %, 2.38; norm=filter_response_tlu 36.8 %, 2.39 (accuracy, time of a step).
"""

from __future__ import annotations

import torch
from torch import nn

FLOOR = 1e-6
EPS = 1e-4  # of eps_l, at the start
THRESHOLD = 1e-3  # of tau, at the start
FIXED_EPS = 1e-5  # where it is not learned


class FilterResponseNorm(nn.Module):
    """Filter response norm and threshold: (N, C, ...) -> (N, C, ...)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.threshold = nn.Parameter(torch.full((channels,), THRESHOLD))
        self.eps = nn.Parameter(torch.full((1,), EPS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise by the root mean square of each map, then cut off below the threshold."""
        eps = FLOOR + self.eps.abs()
        return _thresholded(x, self.weight, self.bias, self.threshold, eps)

    def extra_repr(self) -> str:
        """Say how many channels there are."""
        return str(len(self.weight))


class ThresholdedFilterResponseNorm(nn.Module):
    """The same with the threshold for an activation: (N, C, ...) -> (N, C, ...)."""

    activates = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.tau = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise by the root mean square of each map, then cut off below the threshold."""
        return _thresholded(x, self.weight, self.bias, self.tau, FIXED_EPS)

    def extra_repr(self) -> str:
        """Say how many channels there are."""
        return str(len(self.weight))


def _thresholded(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    threshold: torch.Tensor,
    eps: torch.Tensor | float,
) -> torch.Tensor:
    """Return max(weight x / sqrt(mean of x^2 + eps) + bias, threshold), in float32 at least."""
    shape = [1, -1] + [1] * (x.dim() - 2)
    weight, bias, threshold = (p.view(shape) for p in (weight, bias, threshold))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    nu2 = wide.square().mean([*range(2, x.dim())], keepdim=True)
    return torch.maximum(weight * wide * (nu2 + eps).rsqrt() + bias, threshold).to(x.dtype)
