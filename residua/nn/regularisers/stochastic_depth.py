"""Stochastic depth, scaled in training: a whole branch is dropped, or kept and made larger.

    training     y = s(x) + b f(x) / p     b ~ Bernoulli(p), one draw a sample, or a mini-batch
    evaluation   y = s(x) + f(x)

Huang, Sun, Liu, Sedra, Weinberger 2016, eq. 2, with the division by the survival probability p in
training, where the paper multiplies by p in evaluation (eq. 5: that is `RandomDrop`). The expectation in
training equals the value in evaluation either way; this form leaves nothing behind in evaluation.

Shapes: (N, C, H, W) -> (N, C, H, W).

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
stochastic_depth=0.2, drop=stochastic_depth 47.8 %, 1.03; stochastic_depth=0.2, drop_decay=constant 43.4 %,
1.05; stochastic_depth=0.2, drop_per=batch 45.4 %, 1.02 (accuracy, time of a step).
"""

from __future__ import annotations

import torch
from torch import nn

from residua.nn.names import unknown

SAMPLE_OR_BATCH = ("sample", "batch")


class StochasticDepth(nn.Module):
    """Drop the whole branch of a sample with probability 1 - survival; identity in evaluation.

    per: "sample" draws for each sample, "batch" once for all of them.
    Raises ValueError unless 0 < survival <= 1, and for another `per`.
    """

    def __init__(self, survival: float, per: str = "sample") -> None:
        super().__init__()
        self.survival = probability(survival)
        if per not in SAMPLE_OR_BATCH:
            raise ValueError(unknown("per", per, SAMPLE_OR_BATCH))
        self.per = per

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale each sample by Bernoulli(p) / p in training."""
        if not self.training or self.survival == 1.0:
            return x
        return x * self.draw(x).div_(self.survival)

    def draw(self, x: torch.Tensor) -> torch.Tensor:
        """Return ones for what survives and zeros for what is dropped: (N or 1, 1, ...)."""
        shape = (x.shape[0] if self.per == "sample" else 1,) + (1,) * (x.dim() - 1)
        return torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(self.survival)

    def extra_repr(self) -> str:
        """Describe the survival probability."""
        return f"survival={self.survival:.3g}, per={self.per}"


def probability(survival: float) -> float:
    """Return a survival probability as it is; ValueError unless 0 < survival <= 1."""
    if not 0.0 < survival <= 1.0:
        raise ValueError(f"survival probability {survival} is not in (0, 1]")
    return survival
