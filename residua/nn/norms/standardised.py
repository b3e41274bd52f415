"""Weight standardisation: convolutions whose filters have mean 0 and a fixed variance.

    standardised           w = (v - mean) / sqrt(var + 1e-10)
    scaled_standardised    w = g (v - mean) / sqrt(max(var F, 1e-4))

mean, biased var over the F = C_in / groups k k weights of each output channel; `weight` is v, `gain` is g,
one an output channel, 1 at the start. Training and evaluation are the same.
Shapes: (N, C_in, H, W) -> (N, C_out, H', W').

The first is of Qiao et al. 2019, eq. 7 to 9, with the eps of BiT (Kolesnikov et al. 2020, the authors'
code). Its outputs are sqrt(F) times as large as its inputs: it is made for a norm layer to follow, as in
"group+standardised"; alone, the gradient of a ResNet-20 overflows, and `make_norm` refuses it.

The second is of Brock, De, Smith 2021 (Characterizing signal propagation, eq. 1, and the authors' code):
it keeps the variance of inputs of mean 0, and needs no layer, but activations that are scaled to unit
variance: by sqrt(2 / (1 - 1/pi)) for ReLU.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
norm=scaled_standardised 41.8 %, 0.91; norm=group+standardised 50.0 %, 1.18 (accuracy, time of a step).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

EPS = 1e-10
SCALED_EPS = 1e-4


class StandardisedConv2d(nn.Conv2d):
    """A convolution with standardised weights; arguments are those of `nn.Conv2d`.

    Raises ValueError where a filter is a single weight, which minus its mean is zero.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.weight[0].numel() < 2:
            raise ValueError(
                "weight standardisation needs filters of two weights or more, not of one"
            )

    def normalised_weight(self) -> torch.Tensor:
        """Return w, (C_out, C_in / groups, k, k)."""
        var, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        w: torch.Tensor = (self.weight - mean) * (var + EPS).rsqrt()
        return w

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve with w: (N, C_in, H, W) -> (N, C_out, H', W')."""
        y: torch.Tensor = self._conv_forward(input, self.normalised_weight(), self.bias)
        return y


class ScaledStandardisedConv2d(StandardisedConv2d):
    """A convolution with standardised weights of length `gain`; to start at zero, zero the gain."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(self.weight.detach().new_ones(self.out_channels))

    @torch.no_grad()
    def reset_gain(self) -> None:
        """Set the gain to 1."""
        self.gain.fill_(1)

    def normalised_weight(self) -> torch.Tensor:
        """Return w, (C_out, C_in / groups, k, k)."""
        fan_in = math.prod(self.weight.shape[1:])
        var, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        scale = (var * fan_in).clamp_min(SCALED_EPS).rsqrt() * self.gain.view(-1, 1, 1, 1)
        w: torch.Tensor = (self.weight - mean) * scale
        return w
