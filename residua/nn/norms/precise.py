"""Precise batch norm: statistics of many batches under the final weights, not of a moving average.

    mean = sum_i n_i mean_i / n       var = sum_i n_i (var_i + (mean_i - mean)^2) / (n - 1)

over batches i of n_i values a channel, n in all: mean and variance of the batches put together. Wu,
Johnson 2021, Rethinking "Batch" in BatchNorm, section 3. The mean of the batches' own variances, which
a moving average approaches, leaves out how much batches differ, a share of 1 / n_i: much where batches
and maps are small. Both have n - 1, as torch keeps variances.

While statistics are taken each norm normalises by its batch, as in training, so that one pass serves all
layers; below the first norm they are therefore exact, above it what training batches showed (the whole
set's would take a pass a layer). Ghost and synchronised norms take the batch as one, in this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from residua.nn.norms.statistics import (
    Moments,
    lent,
    normalised_by_batch,
    put_moments,
    running_norms,
)


class Pooled:
    """Mean and variance of groups put together, a group at a time (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: torch.Tensor | float = 0.0
        self.squares: torch.Tensor | float = 0.0  # sum of (x - mean)^2

    def add(self, n: int, moments: Moments) -> None:
        """Take in n values of this mean and biased variance."""
        mean, var = moments
        share = n / (self.n + n)
        step = mean - self.mean
        self.squares = self.squares + n * var + step.square() * (self.n * share)
        self.mean = self.mean + step * share
        self.n += n

    def moments(self) -> Moments:
        """Return mean and unbiased variance (of a single value: 0)."""
        mean, squares = torch.as_tensor(self.mean), torch.as_tensor(self.squares)
        return mean, squares / max(self.n - 1, 1)


@torch.no_grad()
def precise_statistics(
    model: nn.Module,
    inputs: Iterable[torch.Tensor],
    norms: Mapping[str, nn.Module] | None = None,
) -> int:
    """Set running statistics from inputs, batches (N, C, H, W); return how many norms there are.

    norms: those to set, by name; the others are in evaluation. None: every one that tracks statistics.
    Modes, momenta and counters stay as they are; if a batch fails, so do the statistics. A norm that
    no input reaches keeps what it had.
    """
    norms = running_norms(model) if norms is None else norms
    pooled = {name: Pooled() for name in norms}

    def hear(name: str, n: int, moments: Moments) -> None:
        pooled[name].add(n, moments)

    with lent(model, norms), normalised_by_batch(norms, hear):
        for x in inputs if norms else ():
            model(x)
    for name, pool in pooled.items():
        if pool.n:
            put_moments(norms[name], pool.moments())
    return len(norms)
