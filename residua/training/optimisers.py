"""Optimisers and the learning rate of a step.

    sgd     v <- mu v + g + lambda w;  w <- w - lr (g + lambda w + mu v)   with Nesterov's look-ahead
    adamw   Loshchilov, Hutter 2019
    lamb    r = m / (sqrt v + eps) + lambda w;  w <- w - lr min(|w|, 10) / |r| r      a tensor at a time
            You et al. 2020, algorithm 2 (from the pytorch-optimizer library)

Norms' parameters and biases are not decayed unless asked: L2 on a weight that a norm follows acts on
its effective learning rate alone, and on the norm's own gain it only pulls it to zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from residua.errors import BadInput
from residua.training.recipe import OptimiserSection, ScheduleSection


def parameter_groups(model: nn.Module, section: OptimiserSection) -> list[dict[str, Any]]:
    """Return the trainable parameters in two groups: decayed, and not (vectors and scalars)."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim > 1]
    vectors = [p for p in trainable if p.ndim <= 1]
    decay = section.weight_decay
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": decay if section.decay_norms_and_biases else 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimiser(model: nn.Module, section: OptimiserSection, lr: float) -> torch.optim.Optimizer:
    """Build the optimiser over the parameters that require a gradient."""
    groups = parameter_groups(model, section)
    if not groups:
        raise BadInput("nothing to train: `freeze` covers every parameter of the model")
    if section.name == "sgd":
        nesterov = section.nesterov and section.momentum > 0
        return torch.optim.SGD(
            groups, lr=lr, momentum=section.momentum, nesterov=nesterov, fused=_can_fuse(model)
        )
    if section.name == "adamw":
        return torch.optim.AdamW(
            groups, lr=lr, betas=section.betas, eps=section.eps, fused=_can_fuse(model)
        )
    from pytorch_optimizer import Lamb

    # The library's defaults take the decay off the weights, outside the trust ratio, and make the
    # first step 1 / (1 - beta1) times as long; neither is in the paper.
    as_published = {"weight_decouple": False, "adam_debias": True}
    lamb: torch.optim.Optimizer = Lamb(
        groups, lr=lr, betas=section.betas, eps=section.eps, **as_published
    )
    return lamb


def restore_optimiser(optimiser: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take back what `optimiser.state_dict()` gave, each tensor in its parameter's memory layout.

    A file has no strides. The fused kernels walk parameter and momentum as flat memory, and would
    silently pair one weight with the momentum of another.
    """
    optimiser.load_state_dict(saved)
    for parameter, values in optimiser.state.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                alike = torch.empty_like(parameter, dtype=value.dtype)
                values[key] = alike.copy_(value)


def _can_fuse(model: nn.Module) -> bool:
    """Return whether torch has its one-kernel update for the model's device."""
    return next(model.parameters()).device.type in ("cpu", "cuda", "mps")


def lr_factor(section: ScheduleSection, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of step 0..steps-1 as a share of its peak: of the step alone.

    cosine:    final + (1 - final) (1 + cos(pi t)) / 2, t from the end of the warm-up to the end
    one_cycle: linear up to 1 at `peak`, linear down to `final`
    step:      gamma ** (milestones passed)

    >>> section = ScheduleSection(name="step", milestones=(0.5, 0.75), gamma=0.1)
    >>> [round(lr_factor(section, s, 100, 10), 3) for s in (0, 49, 50, 75)]
    [1.0, 1.0, 0.1, 0.01]
    """
    warmup = min(round(section.warmup_epochs * steps_per_epoch), steps - 1)
    if step < warmup:
        return section.warmup_start + (1.0 - section.warmup_start) * (step + 1) / warmup
    if section.name == "constant":
        return 1.0
    if section.name == "step":
        passed = sum(step >= round(milestone * steps) for milestone in section.milestones)
        return section.gamma**passed
    if section.name == "one_cycle":
        peak = max(section.peak * steps, 1.0)
        if step < peak:
            return (step + 1) / (peak + 1)
        down = (steps - step) / (steps - peak)
        return section.final + (1.0 - section.final) * down
    t = (step - warmup) / (steps - warmup)
    return section.final + (1.0 - section.final) * 0.5 * (1.0 + math.cos(math.pi * t))
