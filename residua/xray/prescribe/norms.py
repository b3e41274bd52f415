"""Other norms in the place of batch norm, with its gains and biases.

Wu, He 2018 (group norm); Hoffer et al. 2017 (ghost batch norm).
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any

import torch
from torch import nn

from residua.errors import BadInput
from residua.nn.norms.ghost import SAMPLES, GhostBatchNorm
from residua.xray.anatomy import anatomy
from residua.xray.prescribe.rewired import Rewired, Step

GROUPS = 32  # Wu, He 2018, table 3; fewer where 32 does not divide the channels

Batch = (nn.modules.batchnorm._BatchNorm,)


def group_norm(model: nn.Module, example: Any, groups: float = GROUPS) -> nn.Module:
    """Put group norm in the place of every batch norm; the most groups up to `groups` that divide."""
    if groups != int(groups) or groups < 1:
        raise ValueError(f"{groups} groups: expected a whole number from 1")
    return _exchange(model, example, lambda c: nn.GroupNorm(gcd(int(groups), c), c), "group_norm")


def ghost_norm(model: nn.Module, example: Any, samples: float = SAMPLES) -> nn.Module:
    """Put ghost batch norm, over parts of `samples` samples, in the place of every batch norm."""
    return _exchange(model, example, lambda c: GhostBatchNorm(c, int(samples)), "ghost_norm")


def _exchange(
    model: nn.Module, example: Any, make: Callable[[int], nn.Module], remedy: str
) -> nn.Module:
    """Exchange modules where they are modules, and calls of the function through the graph."""
    found = 0
    for parent in list(model.modules()):
        for name, old in list(parent.named_children()):
            if isinstance(old, Batch) and not isinstance(old, GhostBatchNorm):
                setattr(parent, name, _like(make(old.num_features), old))
                found += 1
    steps = []
    graph = None if example is None else anatomy(model, example).graph
    if graph is not None:
        ours = {
            name
            for name, module in model.named_modules()
            if isinstance(module, (*Batch, nn.GroupNorm))
        }
        parameters = dict(model.named_parameters())
        for node in graph.nodes:
            if node.op == "batch_norm" and node.module not in ours:
                norm = make(node.shape[1])
                values = [parameters[n] for n in node.parameters if parameters[n].dim() == 1]
                _copy(norm, *values)
                steps.append(Step(node, "instead", norm))
    if not found and not steps:
        hint = "" if example is not None else " (as a module; with an example, functions are seen)"
        raise BadInput(f"{remedy} has no place here: the network has no batch norm{hint}")
    if graph is None or not steps:
        return model
    return Rewired(model, graph, steps).train(model.training)


def _like(new: nn.Module, old: nn.Module) -> nn.Module:
    values = [p for p in (old.weight, old.bias) if isinstance(p, torch.Tensor)]
    _copy(new, *values)
    for name in ("running_mean", "running_var"):
        if isinstance(getattr(new, name, None), torch.Tensor) and isinstance(
            getattr(old, name), torch.Tensor
        ):
            getattr(new, name).copy_(getattr(old, name))
    if values:
        new = new.to(values[0].device, values[0].dtype)
    return new.train(old.training)


@torch.no_grad()
def _copy(
    norm: nn.Module, gain: torch.Tensor | None = None, bias: torch.Tensor | None = None
) -> None:
    for target, value in ((norm.weight, gain), (norm.bias, bias)):
        if isinstance(target, torch.Tensor) and value is not None:
            target.copy_(value)
