"""Stochastic depth as published, by each of the names it was published under.

    training     y = s(x) + b f(x)     b ~ Bernoulli(p)
    evaluation   y = s(x) + p f(x)     p = E[b]

    stochastic depth   Huang, Sun, Liu, Sedra, Weinberger 2016, eq. 2 (training) and 5 (evaluation);
                       b is one draw for all of a mini-batch
    ResDrop            what Yamada, Iwamura, Kise 2016 call a residual network trained with it: `ResDrop`
    RandomDrop         the same equation in Yamada, Iwamura, Akiba, Kise 2019, where it is ShakeDrop with
                       alpha = beta = 0: `RandomDrop`, one draw a sample or a mini-batch

Published effect, test error of ResNet-110 on CIFAR-10: 5.25 % against 6.41 % without (Huang et al. 2016).

Shapes: (N, C, H, W) -> (N, C, H, W).

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
stochastic_depth=0.2, drop=random_drop 47.1 %, 1.03; stochastic_depth=0.2, drop=res_drop 46.5 %, 1.02
(accuracy, time of a step).
"""

from __future__ import annotations

import torch

from residua.nn.regularisers.stochastic_depth import StochasticDepth


class RandomDrop(StochasticDepth):
    """Multiply by Bernoulli(p) in training and by p in evaluation. ValueError as in StochasticDepth."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return b x or, in evaluation, p x."""
        if self.survival == 1.0:
            return x
        return x * (self.draw(x) if self.training else self.survival)


class ResDrop(RandomDrop):
    """RandomDrop with one draw a mini-batch."""

    def __init__(self, survival: float) -> None:
        super().__init__(survival, per="batch")
