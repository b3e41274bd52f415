"""ShakeDrop: stochastic depth whose dropped branches are shaken instead, Shake-Shake for one branch.

    training     y = s(x) + (b + alpha - b alpha) f(x)       f as it is where b = 1, alpha f where b = 0
                 dL/df := (b + beta - b beta) dL/dy
    evaluation   y = s(x) + E[b + alpha - b alpha] f(x)      p + (1 - p) E[alpha]

with b ~ Bernoulli(p), alpha ~ U(-1, 1), beta ~ U(0, 1). Yamada, Iwamura, Akiba, Kise 2019, ShakeDrop
Regularization for Deep Residual Learning, which also tries other ranges; with alpha = beta = 0 it is
RandomDrop. b is one draw a mini-batch; alpha and beta are drawn at one of the paper's four levels: one for
a mini-batch, a sample (its "image"), a channel of a sample, or a value (its "pixel").

Shapes: (N, C, H, W) -> (N, C, H, W).

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
stochastic_depth=0.2, drop=shake_drop 44.4 %, 1.02 (accuracy, time of a step).
"""

from __future__ import annotations

import torch
from torch import nn

from residua.nn.names import unknown
from residua.nn.regularisers.stochastic_depth import probability
from residua.nn.regularisers.two_ways import two_ways, uniform

LEVELS = {"batch": 0, "sample": 1, "channel": 2, "pixel": 4}  # name: axes with draws of their own


class ShakeDrop(nn.Module):
    """Scale a branch at random in training, by another number on the way back; no draws in evaluation.

    per: where alpha and beta are drawn anew. Ranges are (low, high).
    Raises ValueError unless 0 < survival <= 1, for another `per`, and for a range the wrong way round.
    """

    def __init__(
        self,
        survival: float,
        per: str = "sample",
        alpha: tuple[float, float] = (-1.0, 1.0),
        beta: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.survival = probability(survival)
        if per not in LEVELS:
            raise ValueError(unknown("per", per, LEVELS))
        for name, (low, high) in (("alpha", alpha), ("beta", beta)):
            if not low <= high:
                raise ValueError(f"{name} must have low <= high, not ({low}, {high})")
        self.per, self.alpha, self.beta = per, alpha, beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (b + alpha - b alpha) x or, in evaluation, its expectation."""
        if self.survival == 1.0:
            return x
        if not self.training:
            return x * (self.survival + (1 - self.survival) * sum(self.alpha) / 2)
        own = LEVELS[self.per]
        shape = tuple(x.shape[:own]) + (1,) * (x.dim() - own)
        b = torch.empty((), device=x.device).bernoulli_(self.survival) == 1
        alpha, beta = uniform(shape, *self.alpha, x), uniform(shape, *self.beta, x)
        # b + alpha - b alpha, without its rounding
        return two_ways(x, torch.where(b, 1.0, alpha), torch.where(b, 1.0, beta))

    def extra_repr(self) -> str:
        """Describe survival and level."""
        ranges = f"alpha={self.alpha}, beta={self.beta}"
        return f"survival={self.survival:.3g}, per={self.per}, {ranges}"
