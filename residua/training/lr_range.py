"""The learning-rate range test: raise the rate from step to step and see where the loss is lost.

    lr_i = lr_0 (lr_n / lr_0)^(i / n),  loss smoothed exponentially, stop where it exceeds 4 x its minimum

The suggestion is a third of the rate at which the smoothed loss is least (Smith 2017, section 3.3, reads
it off by eye).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch

from residua.training.optimisers import make_optimiser
from residua.training.plan import Trial
from residua.training.recipe import Recipe

LOWEST, HIGHEST = 1e-5, 10.0
STEPS = 100
SMOOTHING = 0.9
LOST = 4.0  # times the least smoothed loss
BACK_OFF = 3.0


@dataclass(frozen=True)
class RangeTest:
    """The curve of the test and what it suggests."""

    lrs: list[float]
    losses: list[float]  # smoothed
    suggestion: float


def range_test(recipe: Recipe, trial: Trial, steps: int = STEPS, seed: int = 0) -> RangeTest:
    """Run the test on a copy of the model, over the first batches of training, in float32."""
    model = copy.deepcopy(trial.model).train()
    optimiser = make_optimiser(model, recipe.optimiser, LOWEST)
    lrs: list[float] = []
    losses: list[float] = []
    average = 0.0
    torch.manual_seed(seed)
    for step in range(steps):
        lr = LOWEST * (HIGHEST / LOWEST) ** (step / max(steps - 1, 1))
        for group in optimiser.param_groups:
            group["lr"] = lr
        batch = trial.batches.batch(step)
        loss = trial.loss(model, batch, step, "32-true")
        average = SMOOTHING * average + (1 - SMOOTHING) * float(loss.detach())
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smoothed) or (losses and smoothed > LOST * min(losses)):
            break
        lrs.append(lr)
        losses.append(smoothed)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
    best = lrs[losses.index(min(losses))] if losses else LOWEST
    return RangeTest(lrs, losses, best / BACK_OFF)
