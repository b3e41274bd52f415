"""Monte Carlo batch norm: how unsure a trained network is, from the statistics of training batches.

    p(y | x) = (1/T) sum_t softmax(f(x; mean_t, var_t))     uncertainty: std over t; H = -sum p log p

mean_t, var_t: the statistics of every batch norm when training batch t goes through the network.
Teye, Azizpour, Smith 2018, Bayesian uncertainty estimation for batch normalized deep networks,
section 3 (algorithm 1). Batches should have the size that the network was trained with: their noise is
the posterior's.

Used in evaluation only, on any module with batch norms, torch's or ours; it comes back untouched, modes
and running statistics, even if something fails. Shapes: x (N, C, H, W) -> (N, K).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from residua.nn.norms.statistics import (
    Moments,
    lent,
    normalised_by_batch,
    put_moments,
    running_norms,
)


class Prediction(NamedTuple):
    """What T networks say of N pictures and K classes."""

    mean: torch.Tensor  # (N, K) mean probability
    std: torch.Tensor  # (N, K) standard deviation over the T, biased
    entropy: torch.Tensor  # (N,) of the mean, in nats


class MonteCarloStatistics:
    """T sets of statistics of a model's norms, taken once and used for any number of pictures."""

    def __init__(self, sets: list[dict[str, Moments]]) -> None:
        self.sets = sets

    @torch.no_grad()
    def predict(self, model: nn.Module, x: torch.Tensor) -> Prediction:
        """Predict pictures (N, C, H, W) under each set; `model` gives scores (N, K)."""
        norms = running_norms(model)
        probabilities = []
        with lent(model, norms):
            for chosen in self.sets:
                for name, moments in chosen.items():
                    put_moments(norms[name], moments)
                probabilities.append(model(x).softmax(-1))
        std, mean = torch.std_mean(torch.stack(probabilities), 0, correction=0)
        return Prediction(mean, std, torch.special.entr(mean).sum(-1))


@torch.no_grad()
def collect_statistics(model: nn.Module, batches: Iterable[torch.Tensor]) -> MonteCarloStatistics:
    """Take the statistics of each batch (N, C, H, W): one forward pass a batch.

    Raises ValueError if the model has no norm that tracks statistics, or there is no batch.
    """
    norms = running_norms(model)
    if not norms:
        raise ValueError("Monte Carlo batch norm needs a batch norm, and the model has none")
    sets: list[dict[str, Moments]] = []

    def hear(name: str, n: int, moments: Moments) -> None:
        sets[-1][name] = moments

    with lent(model, norms), normalised_by_batch(norms, hear):
        for x in batches:
            sets.append({})
            model(x)
    if not sets:
        raise ValueError("Monte Carlo batch norm needs one batch or more, and got none")
    return MonteCarloStatistics(sets)


def monte_carlo(
    model: nn.Module, x: torch.Tensor, batches: Iterable[torch.Tensor], samples: int
) -> Prediction:
    """Predict pictures x (N, C, H, W) under the statistics of the first `samples` batches."""
    return collect_statistics(model, itertools.islice(batches, samples)).predict(model, x)
