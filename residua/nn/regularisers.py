"""Regularisers that act on a branch in training and are its expectation in evaluation.

Stochastic depth (Huang, Sun, Liu, Sedra, Weinberger 2016, eq. 2 and 4), per sample:

    training     y = s(x) + b f(x) / p     b ~ Bernoulli(p), one draw a sample
    evaluation   y = s(x) + f(x)

Dividing by the survival probability p in training keeps the expectation, where the paper multiplies
by p in evaluation; the two give the same expected output. Survival falls linearly with depth,
p_l = 1 - (l / L) (1 - p_L).
"""

from __future__ import annotations

import torch
from torch import nn


class StochasticDepth(nn.Module):
    """Drop the whole branch of a sample with probability 1 - survival; identity in evaluation.

    Shapes: (N, C, H, W) -> (N, C, H, W). Raises ValueError unless 0 < survival <= 1.
    """

    def __init__(self, survival: float) -> None:
        super().__init__()
        if not 0.0 < survival <= 1.0:
            raise ValueError(f"survival probability {survival} is not in (0, 1]")
        self.survival = survival

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale each sample by Bernoulli(p) / p in training."""
        if not self.training or self.survival == 1.0:
            return x
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        keep = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(self.survival)
        return x * keep.div_(self.survival)

    def extra_repr(self) -> str:
        """Describe the survival probability."""
        return f"survival={self.survival:.3g}"


def linear_decay(rate: float, block: int, blocks: int) -> float:
    """Return the survival probability of block 1..L when the last one is dropped at `rate`.

    >>> [linear_decay(0.5, block, 4) for block in (1, 2, 3, 4)]
    [0.875, 0.75, 0.625, 0.5]
    """
    return 1.0 - rate * block / blocks
